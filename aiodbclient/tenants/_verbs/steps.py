"""The verbs as lists of steps on a claimed tenant, and ``finish_or_undo`` after a crash.

``docs/why/logins.md`` has the table of verbs, states, steps and what a crash leaves.
"""

from __future__ import annotations

from contextlib import suppress

from attrs import evolve

from ...errors import NotFoundError
from .._context import AWAY
from .._credential import Credential
from .._naming import Role
from .._record import Verb, no_roles, without_role
from .._servers import Server
from .._stores import RoleCredentials
from ..errors import MoveError
from .tenant import Tenant


async def finish_or_undo(tenant: Tenant) -> bool:
    """Finish or undo what a dead process left of a verb that does not say so itself. Return whether it left something.

    Raises MoveError if the cluster that the tenant left cannot be reached.
    """
    intent = tenant.on_record.intent
    match None if intent is None else (intent.verb, intent.role):
        case Verb.PROVISION | Verb.ADOPT | Verb.SUSPEND | Verb.RESUME | Verb.REMOVE, Role.OWNER:
            return False  # of the whole tenant: only verbs that continue with it get here
        case Verb.PREPARE | Verb.MOVE, _:
            with suppress(MoveError):  # the copy is on record now
                await undo_move(tenant)
        case Verb.REVOKE, role:
            await revoke_previous(tenant, role)
        case Verb.REMOVE, role:
            await remove_role(tenant, role)
        case Verb.ROTATE | Verb.REPAIR | Verb.PROVISION, _:
            await tenant.end_new_logins()
            await tenant.commit(tenant.record)
        case None if tenant.on_record.left_behind is not None:
            await drop_left_behind(tenant)
        case _:
            return False
    return True


def refuse_role(tenant: Tenant) -> None:
    """For readers or writers: raise an error if the tenant cannot have them."""
    owner = tenant.on_record.of_role(Role.OWNER)
    if tenant.role is not Role.OWNER and owner.usable is None:
        raise no_roles(tenant.names.tenant, tenant.role) if owner.is_empty else owner.unusable()


async def revoke_previous(tenant: Tenant, role: Role) -> None:
    """End the previous login of a role, and try to drop it and all that were ended before."""
    on_record = tenant.on_record.of_role(role)
    current, previous = on_record.pair
    assert current is not None
    assert previous is not None
    await tenant.begin(Verb.REVOKE, role=role)
    await tenant.session.end_logins([previous.username])
    await tenant.drop_ended(previous.username)
    await tenant.commit_credentials(role, current, None)


async def suspend(tenant: Tenant) -> Credential:
    """End all logins of a tenant and of its roles, and store since when it is suspended. Return its credential."""
    logins, current = tenant.every_login(), tenant.record.current
    assert current is not None
    await tenant.begin(Verb.SUSPEND)  # from now on ``get`` returns None, and no role can be made
    await tenant.session.end_logins(logins)
    await tenant.drop_ended(*logins)
    await tenant.session.shut()
    since = current.suspended or await tenant.context.store.now()
    roles = {
        role: RoleCredentials(current=evolve(pair.current, suspended=since))
        for role, pair in tenant.record.roles.items()
    }
    await tenant.commit(evolve(tenant.record, current=evolve(current, suspended=since), previous=None, roles=roles))
    return tenant.current


async def resume(tenant: Tenant) -> Credential:
    """Give a suspended tenant, and its roles, a new login each. Return its credential."""
    await tenant.end_new_logins()
    roles = [Role.OWNER, *tenant.record.roles]
    logins = dict(zip(roles, tenant.new_logins(len(roles)), strict=True))
    await tenant.begin(Verb.RESUME, logins.values())
    owner = await tenant.add_login(logins.pop(Role.OWNER), Role.OWNER)
    made = dict[Role, RoleCredentials]()
    for role, login in logins.items():
        await tenant.session.create_role(role)
        made[role] = RoleCredentials(current=await tenant.add_login(login, role))
    await tenant.commit(evolve(tenant.record, current=owner, previous=None, roles=made))
    return tenant.current


async def remove(tenant: Tenant) -> None:
    """Remove a tenant. Its logins end first, so that nothing of it works on, and are dropped after the database."""
    logins = tenant.every_login()
    is_anothers = tenant.record.current is None and tenant.found.is_foreign  # made after a process died
    await tenant.begin(Verb.REMOVE)  # from now on ``get`` returns None, and no role can be made
    await tenant.session.end_logins(logins)
    if not is_anothers:
        await tenant.session.drop_database()
    await tenant.drop_ended(*logins)
    if not is_anothers:
        await tenant.session.forget()
    await tenant.delete()
    tenant.context.placement.leave(tenant.home.cluster)


async def remove_role(tenant: Tenant, role: Role) -> None:
    await tenant.begin(Verb.REMOVE, [each.username for each in tenant.on_record.of_role(role).credentials], role=role)
    logins = tenant.on_record.begun_logins
    await tenant.session.end_logins(logins)
    await tenant.drop_ended(*logins)
    await tenant.session.forget(role)
    await tenant.commit(without_role(tenant.record, role))


# An unfinished move. Before its commit the tenant is on its cluster, and a copy may be on another one. The commit
# stores the credentials of the copy, with the cluster that it was moved from, until what is left there is dropped. So
# does the undo, if it cannot reach the cluster of the copy, and a new tenant whose first cluster became unreachable.


async def undo_move(tenant: Tenant) -> None:
    """Open the tenant again where it is, then drop the copy. Ends the claim.

    Raises MoveError if the other cluster is unreachable. Then the copy is left behind.
    """
    intent, current = tenant.on_record.intent, tenant.record.current
    assert intent is not None
    assert intent.to is not None
    assert current is not None
    await tenant.renew()  # raises an error if the move was committed after all
    if current.suspended is not None:
        await tenant.session.shut()
    elif intent.verb is Verb.MOVE:
        await tenant.session.unfreeze(tenant.logins())
    if intent.verb is Verb.MOVE:  # the other cluster may be away, and need not be there to use the tenant
        await tenant.begin(Verb.PREPARE, to=intent.to)
    await tenant.end_new_logins()  # the one that dumps
    try:
        await _drop_on(tenant, intent.to)
    except MoveError:
        await tenant.commit(evolve(tenant.record, current=evolve(current, moved_from=intent.to)))
        raise
    await tenant.commit(tenant.record)


async def drop_left_behind(tenant: Tenant) -> None:
    """Drop what is left of the tenant on another cluster. Ends the claim."""
    behind, current = tenant.on_record.left_behind, tenant.record.current
    assert behind is not None
    assert current is not None
    await _drop_on(tenant, behind)
    await tenant.commit(evolve(tenant.record, current=evolve(current, moved_from=None)))


async def _drop_on(tenant: Tenant, cluster: str) -> None:
    """Drop everything that another cluster has of the tenant. It has nothing if it is gone from the account."""
    servers = tenant.context.servers
    what = (
        f"the tenant {tenant.names.tenant!r} works on the cluster {tenant.home.cluster}, but what is left of it on the "
        f"cluster {cluster}"
    )
    if cluster not in servers.clients:
        raise MoveError(f"{what} is still there", advice="run repair with that cluster too")
    try:
        with suppress(NotFoundError):
            other = await servers.server(cluster, tenant.timer.stats)
            with servers.watched(cluster, tenant.names.tenant):
                await _drop_all(tenant, other.server)
    except AWAY as error:
        raise MoveError(
            f"{what} could not be dropped: {error}", advice="run repair when that cluster can be reached"
        ) from error


async def _drop_all(tenant: Tenant, other: Server) -> None:
    """Drop everything that a server has of the tenant, unless others made it."""
    async with other.session(tenant.work) as session:
        found, intent, logins = await other.find(tenant.names), tenant.on_record.intent, tenant.every_login()
        is_ours = not found.is_foreign
        if intent is None or {*found.logins} <= {*intent.logins}:
            logins |= {*found.logins}
        else:  # the move did not make these: another store knows a tenant of that name
            is_ours = False
        await session.end_logins(logins)
        if is_ours:
            await session.drop_database()
        await session.drop_logins({*logins, *found.ended})
        if is_ours:
            await session.forget()
