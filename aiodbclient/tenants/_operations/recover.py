"""Finish or undo what a process left that died: its operation, then what is left of the tenant on another cluster."""

from __future__ import annotations

from contextlib import suppress

from attrs import evolve

from ...errors import NotFoundError
from .._clusters import UNREACHABLE
from .._naming import Role
from .._records import Operation, OperationKind
from .._servers import Server, TenantSteps
from ..errors import MoveError
from .tenant import Tenant

# Only the same operation, or ``repair``, finishes what these left of a whole tenant.
_NOT_RECOVERED = (
    OperationKind.PROVISION,
    OperationKind.ADOPT,
    OperationKind.SUSPEND,
    OperationKind.RESUME,
    OperationKind.REMOVE,
)


async def recover(tenant: Tenant, continued: OperationKind | None) -> bool:
    """Finish or undo what a dead process left, but not what is ``continued``. Return whether the record changed."""
    before = tenant.stored
    operation = before.operation
    if operation is not None and (operation.kind is not continued or operation.role not in (None, tenant.role)):
        await _end_operation(tenant, operation)
    with suppress(MoveError):  # its cluster is unreachable
        await drop_leftover(tenant)
    return tenant.record is not before


async def _end_operation(tenant: Tenant, operation: Operation) -> None:
    """Finish an operation that revokes something, and undo one that makes something."""
    role = operation.role or Role.OWNER
    if operation.role is None and operation.kind in _NOT_RECOVERED:
        return
    if operation.kind in (OperationKind.PREPARE, OperationKind.MOVE):
        with suppress(MoveError):  # the other cluster is unreachable, and on record as the leftover
            await undo_move(tenant)
    elif operation.kind is OperationKind.REVOKE:
        await tenant.revoke_previous(role)
    elif operation.kind is OperationKind.REMOVE:
        await tenant.remove_role(role)
    else:  # a rotation, a repair, or the first login of readers or writers
        await tenant.drop_unfinished_logins()
        await tenant.save(evolve(tenant.stored, operation=None))


# Before the commit of a move, the tenant is on its cluster, and another cluster may have a copy. The commit stores the
# logins of the copy. It also stores the old cluster as ``leftover``, until the tenant's database there is dropped.
# ``leftover`` has two other sources: an undo that cannot reach the cluster of the copy, and a new tenant whose first
# cluster became unreachable.


async def undo_move(tenant: Tenant) -> None:
    """Open the tenant again where it is, and drop the copy; raise MoveError if the copy stays."""
    await tenant.reread()  # its commit may be stored, though the answer was lost
    record, operation = tenant.stored, tenant.stored.operation
    if operation is None or operation.target is None:
        return
    is_frozen = operation.kind is OperationKind.MOVE
    if record.suspended is not None:
        await tenant.steps.lock_out()
    elif is_frozen:
        await tenant.steps.unfreeze({each.username: each.role for each in record.logins})
    if is_frozen:  # the other cluster may be unreachable, and need not be there to use the tenant
        await tenant.start(OperationKind.PREPARE, target=operation.target)
    await tenant.drop_unfinished_logins()  # the one that dumps
    undone = evolve(record, operation=None)
    try:
        await _drop_on(tenant, operation.target)
    except MoveError:
        await tenant.save(evolve(undone, leftover=operation.target))
        raise
    await tenant.save(undone)


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
            server = (await clusters.get(cluster, tenant.reporter.stats)).server
            was_interrupted = cluster != tenant.cluster.id  # otherwise the tenant has just left it
            with clusters.track_failures(cluster, tenant.names.tenant):
                async with server.session(tenant, was_interrupted=was_interrupted) as steps:
                    await _drop_all(tenant, server, steps)
    except UNREACHABLE as error:
        raise MoveError(
            f"{what} could not be dropped: {error}", advice="run repair when that cluster can be reached"
        ) from error


async def _drop_all(tenant: Tenant, other: Server, steps: TenantSteps) -> None:
    """Drop everything that a server has of the tenant, unless others made it."""
    found, operation, logins = await other.inspect(tenant.names), tenant.stored.operation, tenant.every_login()
    is_another_stores = False
    if operation is None or operation.target is None:
        logins |= {*found.logins}
    else:  # the copy of a move that is undone. Meanwhile another store may have made a tenant of that name
        is_another_stores = not {*found.logins} <= {*operation.logins}
    await steps.end_logins(logins)
    if not (found.not_ours or is_another_stores):
        await steps.drop_database()
    await steps.drop_logins({*logins, *found.disabled})
    if not is_another_stores:
        await steps.drop_roles()
