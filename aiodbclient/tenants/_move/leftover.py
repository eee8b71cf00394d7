"""What is left of a tenant on another cluster: undo an unfinished move, and drop the copy that no program uses."""

from __future__ import annotations

from contextlib import suppress

from attrs import evolve

from ...errors import NotFoundError
from .._clusters import UNREACHABLE
from .._operations.tenant import Tenant
from .._records import OperationKind, new_logins
from .._servers import Server, TenantSteps
from ..errors import MoveError

# Before the commit of a move, the tenant is on its cluster, and another cluster may have a copy. The commit stores the
# logins of the copy. It also stores the old cluster as ``leftover``, until the tenant's database there is dropped.
# ``leftover`` has two other sources: an undo that cannot reach the cluster of the copy, and a new tenant whose first
# cluster became unreachable.


async def undo_move(tenant: Tenant) -> None:
    """Open the tenant again where it is, and drop the copy; raise MoveError if the copy stays."""
    record, operation = tenant.stored, tenant.stored.operation
    assert operation is not None
    assert operation.target is not None
    await tenant.renew()  # raises an error if the claim was lost
    is_frozen = operation.kind is OperationKind.MOVE
    if record.suspended is not None:
        await tenant.steps.lock_out()
    elif is_frozen:
        await tenant.steps.unfreeze({each.username: each.role for each in record.logins})
    if is_frozen:  # the other cluster may be unreachable, and need not be there to use the tenant
        await tenant.start(OperationKind.PREPARE, target=operation.target)
    await tenant.drop_new_logins()  # the one that dumps
    try:
        await _drop_on(tenant, operation.target)
    except MoveError:
        await tenant.finish(evolve(record, leftover=operation.target), release=False)
        raise
    await tenant.finish(record, release=False)


async def drop_leftover(tenant: Tenant) -> None:
    """Drop what is left of the tenant on another cluster, if something is; raise MoveError if that stays."""
    leftover = tenant.stored.leftover
    if leftover is None:
        return
    await _drop_on(tenant, leftover)
    await tenant.save(evolve(tenant.stored, leftover=None))


async def _drop_on(tenant: Tenant, cluster: str) -> None:
    """Drop everything that another cluster has of the tenant, unless that cluster no longer exists."""
    clusters = tenant.context.clusters
    what = (
        f"the tenant {tenant.names.tenant!r} works on the cluster {tenant.stored.cluster}, but what is left of it on "
        f"the cluster {cluster}"
    )
    if cluster not in clusters.clients:
        raise MoveError(f"{what} is still there", advice="run repair with that cluster too")
    try:
        with suppress(NotFoundError):
            other = await clusters.get(cluster, tenant.reporter.stats)
            with clusters.track_failures(cluster, tenant.names.tenant):
                if cluster == tenant.cluster.id:  # which the tenant has just left
                    await _drop_all(tenant, other.server, tenant.steps)
                    return
                async with other.server.session(tenant) as steps:
                    await _drop_all(tenant, other.server, steps)
    except UNREACHABLE as error:
        raise MoveError(
            f"{what} could not be dropped: {error}", advice="run repair when that cluster can be reached"
        ) from error


async def _drop_all(tenant: Tenant, other: Server, steps: TenantSteps) -> None:
    """Drop everything that a server has of the tenant, unless others made it."""
    found, operation, logins = await other.inspect(tenant.names), tenant.stored.operation, tenant.every_login()
    is_ours, is_move = not found.not_ours, operation is not None and operation.target is not None
    if not is_move or {*found.logins} <= {*new_logins(tenant.stored)}:
        logins |= {*found.logins}
    else:  # the move did not make these: another store knows a tenant of that name
        is_ours = False
    await steps.end_logins(logins)
    if is_ours:
        await steps.drop_database()
    await steps.drop_logins({*logins, *found.disabled})
    if is_ours:
        await steps.drop_roles()
