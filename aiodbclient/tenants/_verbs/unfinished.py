"""What whoever works on a tenant next does of an unfinished move: undo a move before its commit, or finish it.

Before the commit the tenant is on its cluster, and a copy may be on another one. The commit stores the credential of
the copy, with the cluster that it was moved from, until what is left there is dropped.
"""

from __future__ import annotations

import json
from contextlib import suppress

from attrs import asdict, evolve, frozen

from ...errors import InvalidArgumentError, NotFoundError
from .._context import AWAY
from .._credential import Credential, Secret, new_password
from .._naming import ROLES, Role
from .._record import Intent, State, Verb
from ..errors import MoveError
from .tenant import ClaimedTenant, on_roles


@frozen
class MovePlan:
    """What the intent of a move says besides its login."""

    to: str  # the id of the other cluster

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, intent: Intent) -> MovePlan:
        """Read what ``str`` returned."""
        fields = json.loads(intent.more)
        return cls(fields["to"])


async def end_copying(tenant: ClaimedTenant) -> bool:
    """Undo or finish an unfinished move, and release the claim. Return False if none is on record."""
    intent = tenant.record.intent
    if tenant.names.role is not Role.OWNER:  # its tenant is settled, and the role with it
        return False
    if tenant.record.left_behind is not None:
        await finish_move(tenant)
    elif intent is not None and intent.verb in (Verb.PREPARE, Verb.MOVE):
        await undo(tenant, MovePlan.read(intent), shut=intent.verb is Verb.MOVE)
    else:
        return False
    return True


async def end_copying_here(tenant: ClaimedTenant) -> bool:
    """Do what ``end_copying`` does, but return False if the cluster that the tenant left cannot be reached."""
    try:
        return await end_copying(tenant)
    except MoveError:
        return False


async def reader_of(tenant: ClaimedTenant) -> Credential:
    """A login that may read the whole database, for a dump."""
    login, password = tenant.names.temporary, new_password()
    await tenant.server.set_login(tenant.work, login, password)
    return tenant.site.credential(tenant.names, login, password, await tenant.now())


async def freeze(tenant: ClaimedTenant, plan: MovePlan) -> None:
    """Let no login of the tenant work in the database, until ``undo`` or for ever."""
    await tenant.begin(Verb.MOVE, tenant.current.username, str(plan))  # from now on ``get`` returns None
    await on_roles(tenant, _freeze_role)
    await tenant.server.end_logins(tenant.work, tenant.names.all_logins)


async def undo(tenant: ClaimedTenant, plan: MovePlan, *, shut: bool) -> None:
    """Open the tenant again where it is, then drop the copy. ``shut``: whether ``freeze`` began."""
    current, previous = tenant.current, tenant.record.previous
    await tenant.held.renew()  # raises an error if the move was committed after all
    if shut:
        await on_roles(tenant, _open_role)
    if shut and current.suspended is None:
        await _open(tenant)
    if current.suspended is not None:
        await tenant.server.shut(tenant.work)
    if shut:  # the other cluster may be away, and need not be there to use the tenant
        await tenant.begin(Verb.PREPARE, current.username, str(plan))
    await tenant.server.drop_temporary(tenant.work)
    if plan.to not in tenant.context.sites.clients:
        raise InvalidArgumentError(
            f"the tenant {tenant.names.tenant!r} works on the cluster {tenant.site.cluster}, but what an unfinished "
            f"move made on the cluster {plan.to} is still there: name that cluster too"
        )
    await _drop_on(tenant, plan.to)
    await tenant.held.commit(current, previous)


async def finish_move(tenant: ClaimedTenant) -> None:
    """After the commit: give the roles their logins, and drop what is left on the other cluster. Ends the claim."""
    behind = tenant.record.left_behind
    assert behind is not None
    await on_roles(tenant, _bring_role)
    left = (
        f"the tenant {tenant.names.tenant!r} was moved and works on the cluster {tenant.site.cluster}, but what is "
        f"left of it on the cluster {behind}"
    )
    if behind not in tenant.context.sites.clients:
        raise MoveError(f"{left} is still there", advice="run repair with that cluster too")
    try:
        await _drop_on(tenant, behind)
    except AWAY as error:
        raise MoveError(
            f"{left} could not be dropped: {error}", advice="run repair when that cluster can be reached"
        ) from error
    await tenant.held.commit(evolve(tenant.current, moved_from=None), tenant.record.previous)


async def _drop_on(tenant: ClaimedTenant, cluster: str) -> None:
    """Drop everything that another cluster has of the tenant. It has nothing if it is gone from the account."""
    with suppress(NotFoundError):
        site = await tenant.context.sites.site(cluster, tenant.timer.stats)
        with tenant.context.sites.watched(cluster, tenant.names.tenant):
            await drop_all(evolve(tenant, site=site))


async def drop_all(tenant: ClaimedTenant) -> None:
    """Drop everything that a cluster has of a tenant."""
    server = tenant.server
    await server.end_work(tenant.work)
    await server.drop_temporary(tenant.work)
    roles = [evolve(tenant.work, names=tenant.in_role(role).names) for role in ROLES]
    await server.end_logins(tenant.work, tenant.names.all_logins)
    await server.drop_database(tenant.work)
    for work in (*roles, tenant.work):
        for login in work.names.logins:
            await server.drop_login(work, login)
        await server.forget(work)


async def _freeze_role(role: ClaimedTenant) -> None:
    if role.record.state in (State.PROVISIONING, State.SUSPENDING, State.REMOVING):
        raise MoveError(f"the {role.names.role} of the tenant {role.names.tenant!r} is unfinished: repair it first")
    if role.record.state is not State.ABSENT:
        await role.begin(Verb.MOVE, role.current.username)


async def _open_role(role: ClaimedTenant) -> None:
    if role.record.state is State.MOVING:
        if role.current.suspended is None:
            await _open(role)
        await role.held.commit(role.current, role.record.previous)


async def _open(tenant: ClaimedTenant) -> None:
    """Give a tenant or a role that was shut its logins back, with the passwords on record."""
    for each in tenant.record.credentials:
        assert each.password is not None  # an adopted login is not moved
        await tenant.server.set_login(tenant.work, each.username, Secret(each.password))


async def _bring_role(role: ClaimedTenant) -> None:
    """Give a role its login on the cluster to which its tenant was moved."""
    if role.record.current is None or role.record.current.cluster == role.site.cluster:
        return
    await role.server.create(role.work)
    current = role.current
    if current.suspended is None:
        credential = await role.set_login(current.username)
    else:
        credential = role.site.credential(role.names, current.username, current.password, await role.now())
        credential = evolve(credential, suspended=current.suspended)
    await role.held.commit(credential, None)
