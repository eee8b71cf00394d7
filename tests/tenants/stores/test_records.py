"""What a record says: its state, and the operation to run next. Each record has one state."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from typing import Any

from attrs import evolve

from aiodbclient.tenants import Login, Operation, OperationKind, Role, TenantRecord, TenantState
from aiodbclient.tenants._records import operation_on, required, rotated, unusable
from aiodbclient.tenants.errors import SuspendedError, TenantMovingError, TenantNotFoundError

from ..store_contract import a_login, a_record

WHEN = datetime(2026, 11, 27, tzinfo=UTC)
NEW, READER = a_login("new"), a_login("reader", role=Role.READER)
# Those that an operation leaves usable or not, with the state.
LOCKED_OUT = (TenantState.SUSPENDING, TenantState.SUSPENDED, TenantState.RESUMING, TenantState.MOVING)

# For each operation, the state in which it leaves what it is about (None: as it was), and the command that finishes it.
OPERATIONS = {
    OperationKind.PROVISION: (TenantState.PROVISIONING, "provision"),
    OperationKind.ADOPT: (TenantState.PROVISIONING, "provision"),
    OperationKind.ROTATE: (None, "rotate"),
    OperationKind.REVOKE: (None, "revoke-previous"),
    OperationKind.REPAIR: (None, "repair"),
    OperationKind.SUSPEND: (TenantState.SUSPENDING, "suspend"),
    OperationKind.RESUME: (TenantState.RESUMING, "resume"),
    OperationKind.REMOVE: (TenantState.REMOVING, "remove"),
    OperationKind.PREPARE: (None, "repair"),
    OperationKind.MOVE: (TenantState.MOVING, "repair"),
}
# What a role has: a current login, and one from before its rotation.
HAS = [(False, False), (True, False), (True, True)]


def all_records() -> Iterator[tuple[TenantRecord, Role, bool, bool]]:
    """Each record that can be, each role, and whether the role has a current and a previous login."""
    operations = [None, *(Operation(kind=kind, role=role) for kind in OperationKind for role in (None, *Role))]
    for has in product(HAS, repeat=len(Role)):
        logins = [
            login
            for role, (is_there, was_rotated) in zip(Role, has, strict=True)
            for login in (
                *([evolve(a_login(f"old-{role}", role=role), replaced=WHEN)] if was_rotated else []),
                *([a_login(f"new-{role}", role=role)] if is_there else []),
            )
        ]
        for operation, suspended, leftover in product(operations, (None, WHEN), (None, "other")):
            record = a_record(
                "alpha", logins=tuple(logins), operation=operation, suspended=suspended, leftover=leftover
            )
            for role, (is_there, was_rotated) in zip(Role, has, strict=True):
                yield record, role, is_there, was_rotated


def of(kind: OperationKind | None, *logins: Login, **more: Any) -> TenantRecord:
    return a_record("alpha", logins=logins, operation=kind and Operation(kind=kind), **more)


def test_each_record_has_one_state_and_one_next_operation() -> None:
    """All of them, against a table: the state by the operation, the login and the suspension, and what comes next."""
    states = set[TenantState]()
    for record, role, is_there, was_rotated in all_records():
        operation = record.operation
        # An operation on the whole tenant is one on its readers only if it has some.
        is_about = operation is not None and (
            operation.role is role or (operation.role is None and (is_there or role is Role.OWNER))
        )
        in_progress, finish = OPERATIONS[operation.kind] if operation is not None and is_about else (None, None)
        settled = TenantState.SUSPENDED if record.suspended else TenantState.USABLE
        state = in_progress or (settled if is_there else TenantState.ABSENT)
        last = ["revoke-previous"] if was_rotated and state is TenantState.USABLE else []
        pending = [finish] if finish else ["provision"] if state is TenantState.ABSENT else []
        pending += [each for each in last if each not in pending]
        if record.leftover and role is Role.OWNER:
            pending = ["repair"]

        assert record.state(role) is state, record
        assert record.pending(role) == pending, record
        assert operation_on(record, role) == (operation if is_about else None), record
        credential = record.credential(role)
        if state is TenantState.USABLE and is_there:
            assert credential is not None
            assert (credential.username, credential.role) == (f"new-{role}", role)
            assert required(record, "alpha", role) == credential
        else:
            assert credential is None, record
            error = unusable(record, "alpha", role)
            assert isinstance(error, SuspendedError | TenantMovingError) == (state in LOCKED_OUT), record
        states.add(state)
    assert states == {*TenantState}


def test_errors_of_unusable_states() -> None:
    texts = {
        OperationKind.SUSPEND: "is being suspended",
        OperationKind.RESUME: "is being resumed",
        OperationKind.MOVE: "is being moved to another",
    }
    for kind, text in texts.items():
        error = unusable(of(kind, NEW), "alpha", Role.OWNER)
        assert type(error) is (TenantMovingError if kind is OperationKind.MOVE else SuspendedError)
        assert text in str(error)
    suspended = unusable(of(None, NEW, suspended=WHEN), "alpha", Role.OWNER)
    assert isinstance(suspended, SuspendedError)
    assert "is suspended since 2026-11-27 00:00 UTC: resume it first" in str(suspended)
    for record in (None, of(OperationKind.REMOVE, NEW), of(OperationKind.PROVISION)):
        assert isinstance(unusable(record, "alpha", Role.OWNER), TenantNotFoundError)


def test_rotation_keeps_the_other_roles() -> None:
    newer = evolve(a_login("newer"), created=WHEN)
    record = rotated(of(None, NEW, READER), newer)
    assert record.current() == newer
    assert record.previous() == evolve(NEW, replaced=WHEN)
    assert record.current(Role.READER) == READER
    assert record.previous(Role.READER) is None
