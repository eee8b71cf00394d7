"""What an unfinished move left: undo it, or drop the copy that no program uses."""

from __future__ import annotations

from contextlib import suppress

from attrs import evolve

from ...errors import NotFoundError
from .._context import AWAY
from .._record import Verb
from .._servers import Server
from ..errors import MoveError
from .tenant import Tenant

# An unfinished move. Before its commit the tenant is on its cluster, and a copy may be on another one. The commit
# stores the credentials of the copy, with the cluster that it was moved from, until what is left there is dropped. So
# does the undo, if it cannot reach the cluster of the copy, and a new tenant whose first cluster became unreachable.


async def undo_move(tenant: Tenant) -> None:
    """Open the tenant again where it is, drop the copy, and end the claim; raise MoveError if the copy stays."""
    intent, current = tenant.on_record.intent, tenant.record.current
    assert intent is not None
    assert intent.other_cluster is not None
    assert current is not None
    await tenant.renew()  # raises an error if the move was committed after all
    if current.suspended is not None:
        await tenant.steps.shut()
    elif intent.verb is Verb.MOVE:
        await tenant.steps.unfreeze(tenant.on_record.logins)
    if intent.verb is Verb.MOVE:  # the other cluster may be away, and need not be there to use the tenant
        await tenant.begin(Verb.PREPARE, other_cluster=intent.other_cluster)
    await tenant.end_begun_logins()  # the one that dumps
    try:
        await _drop_on(tenant, intent.other_cluster)
    except MoveError:
        await tenant.commit(evolve(tenant.record, current=evolve(current, moved_from=intent.other_cluster)))
        raise
    await tenant.commit(tenant.record)


async def drop_left_behind(tenant: Tenant) -> None:
    """Drop what is left of the tenant on another cluster, and end the claim."""
    behind, current = tenant.on_record.left_behind, tenant.record.current
    assert behind is not None
    assert current is not None
    await _drop_on(tenant, behind)
    await tenant.commit(evolve(tenant.record, current=evolve(current, moved_from=None)))


async def _drop_on(tenant: Tenant, cluster: str) -> None:
    """Drop everything that another cluster has of the tenant, unless that cluster no longer exists."""
    servers = tenant.context.servers
    what = (
        f"the tenant {tenant.names.tenant!r} works on the cluster {tenant.home.cluster}, but what is left of it on the "
        f"cluster {cluster}"
    )
    if cluster not in servers.clients:
        raise MoveError(f"{what} is still there", advice="run repair with that cluster too")
    try:
        with suppress(NotFoundError):
            other = await servers.server(cluster, tenant.reporter.stats)
            with servers.watched(cluster, tenant.names.tenant):
                await _drop_all(tenant, other.server)
    except AWAY as error:
        raise MoveError(
            f"{what} could not be dropped: {error}", advice="run repair when that cluster can be reached"
        ) from error


async def _drop_all(tenant: Tenant, other: Server) -> None:
    """Drop everything that a server has of the tenant, unless others made it."""
    async with other.session(tenant) as steps:
        found, intent, logins = await other.find(tenant.names), tenant.on_record.intent, tenant.every_login()
        is_ours = not found.is_foreign
        if intent is None or {*found.logins} <= {*intent.logins}:
            logins |= {*found.logins}
        else:  # the move did not make these: another store knows a tenant of that name
            is_ours = False
        await steps.end_logins(logins)
        if is_ours:
            await steps.drop_database()
        await steps.drop_logins({*logins, *found.ended})
        if is_ours:
            await steps.forget()
