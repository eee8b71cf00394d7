"""What a record says: its state, and the operation to run next. Each record has one state."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient.tenants import Login, Operation, OperationKind, Role, TenantRecord, TenantState
from aiodbclient.tenants._records import required, unusable
from aiodbclient.tenants.errors import SuspendedError, TenantMovingError, TenantNotFoundError

from ..store_contract import a_login, a_record

WHEN = datetime(2026, 11, 27, tzinfo=UTC)
NEW, READER = a_login("new"), a_login("reader", role=Role.READER)
OLD = evolve(a_login("old"), replaced=WHEN)
OF_ALL = (OperationKind.SUSPEND, OperationKind.RESUME, OperationKind.REMOVE, OperationKind.MOVE)
# Those that an operation leaves usable or not, with the state.
LOCKED_OUT = (TenantState.SUSPENDING, TenantState.SUSPENDED, TenantState.RESUMING, TenantState.MOVING)

LOGINS = st.builds(
    evolve,
    st.sampled_from([a_login("a"), a_login("b", role=Role.READER), a_login("c", role=Role.WRITER)]),
    replaced=st.none() | st.just(WHEN),
)
RECORDS = st.builds(
    a_record,
    st.just("alpha"),
    logins=st.lists(LOGINS, unique=True).map(tuple),
    suspended=st.none() | st.just(WHEN),
    leftover=st.none() | st.just("elsewhere"),
    operation=st.none()
    | st.builds(Operation, kind=st.sampled_from(OperationKind), role=st.none() | st.sampled_from(Role)),
)


def of(kind: OperationKind | None, *logins: Login, role: Role | None = None, **more: Any) -> TenantRecord:
    operation = None if kind is None else Operation(kind=kind, role=role)
    return a_record("alpha", logins=logins, operation=operation, **more)


@given(RECORDS, st.sampled_from(Role))
def test_each_record_has_one_state_and_one_next_operation(record: TenantRecord, role: Role) -> None:
    state = record.state(role)
    credential = record.credential(role)
    assert (credential is not None) == (state is TenantState.USABLE)
    if credential is not None:
        assert required(record, "alpha", role) == credential
    else:
        error = unusable(record, "alpha", role)
        assert isinstance(error, TenantNotFoundError) != (state in LOCKED_OUT)
    is_settled = record.operation_on(role) is None and state in (TenantState.USABLE, TenantState.SUSPENDED)
    first = record.pending(role)[:1]
    assert bool(first) == (not is_settled or len(first) == 1)
    assert len(set(record.pending(role))) == len(record.pending(role)) <= 2


@pytest.mark.parametrize(
    ("record", "state", "pending"),
    [
        (of(None, NEW), TenantState.USABLE, []),
        (of(None, OLD, NEW), TenantState.USABLE, ["revoke-previous"]),
        (of(None, NEW, suspended=WHEN), TenantState.SUSPENDED, []),
        (of(None, NEW, leftover="elsewhere"), TenantState.USABLE, ["repair"]),
        (of(OperationKind.PROVISION), TenantState.PROVISIONING, ["provision"]),
        (of(OperationKind.ADOPT), TenantState.PROVISIONING, ["provision"]),
        (of(OperationKind.ROTATE, NEW, role=Role.OWNER), TenantState.USABLE, ["rotate"]),
        (of(OperationKind.REVOKE, OLD, NEW, role=Role.OWNER), TenantState.USABLE, ["revoke-previous"]),
        (of(OperationKind.REPAIR, OLD, NEW), TenantState.USABLE, ["repair", "revoke-previous"]),
        (of(OperationKind.RESUME, NEW, suspended=WHEN), TenantState.RESUMING, ["resume"]),
        (of(OperationKind.SUSPEND, OLD, NEW), TenantState.SUSPENDING, ["suspend"]),
        (of(OperationKind.REMOVE, OLD, NEW), TenantState.REMOVING, ["remove"]),
        (of(OperationKind.PREPARE, NEW), TenantState.USABLE, ["repair"]),
        (of(OperationKind.MOVE, NEW), TenantState.MOVING, ["repair"]),
    ],
)
def test_state_and_pending_operations(record: TenantRecord, state: TenantState, pending: list[str]) -> None:
    assert record.state() is state
    assert record.pending() == pending


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


@pytest.mark.parametrize("kind", OperationKind)
def test_operation_on_readers_leaves_the_tenant_usable(kind: OperationKind) -> None:
    record = of(kind, NEW, READER, role=Role.READER)
    assert record.state() is TenantState.USABLE
    assert record.pending() == []
    assert record.operation_on(Role.READER) == record.operation


@pytest.mark.parametrize("kind", OperationKind)
def test_operation_on_tenant_and_its_readers(kind: OperationKind) -> None:
    """Readers are locked out only with the tenant."""
    record = of(kind, NEW, READER)
    if kind not in (OperationKind.PROVISION, OperationKind.ADOPT):  # it has no readers yet
        assert (record.credential(Role.READER) is None) == (kind in OF_ALL)
    assert record.state(Role.WRITER) is TenantState.ABSENT


def test_rotation_keeps_the_other_roles() -> None:
    newer = evolve(a_login("newer"), created=WHEN)
    record = of(None, NEW, READER).rotated(newer)
    assert record.current() == newer
    assert record.previous() == evolve(NEW, replaced=WHEN)
    assert record.current(Role.READER) == READER
    assert record.previous(Role.READER) is None
    assert record.without(record.previous()).logins == (READER, newer)
