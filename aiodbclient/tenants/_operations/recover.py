"""Finish or undo the operation of a process that died."""

from __future__ import annotations

from contextlib import suppress

from .._move.leftover import undo_move
from .._naming import Role
from .._records import OperationKind
from ..errors import MoveError
from .tenant import Tenant


async def finish_operation(tenant: Tenant) -> None:
    """Finish or undo the operation on record, but those that only an operation on the whole tenant continues."""
    operation = tenant.stored.operation
    if operation is None:
        return
    match operation.kind:
        case OperationKind.PREPARE | OperationKind.MOVE:
            with suppress(MoveError):  # the other cluster is unreachable, and on record as the leftover
                await undo_move(tenant)
        case OperationKind.REVOKE:
            await tenant.finish(await tenant.revoke_previous(operation.role or Role.OWNER), release=False)
        case OperationKind.REMOVE if operation.role is not None:
            await tenant.finish(await tenant.remove_role(operation.role), release=False)
        case OperationKind.ROTATE | OperationKind.REPAIR:
            await _drop_new_logins(tenant)
        case OperationKind.PROVISION if operation.role is not None:
            await _drop_new_logins(tenant)
        case _:
            pass


async def _drop_new_logins(tenant: Tenant) -> None:
    await tenant.drop_new_logins()
    await tenant.finish(tenant.stored, release=False)
