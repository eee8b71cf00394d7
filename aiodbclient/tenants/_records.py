"""``TenantRecord``: what a store keeps of a tenant, its state, and the operation that is in progress. Pure.

An operation is stored before its first step, with the logins that it makes. If the process dies or loses its claim,
whoever claims the tenant next drops these logins, which no program has, and finishes the operation or undoes it.
``docs/why/logins.md`` has the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from operator import attrgetter

from attrs import evolve, field, frozen
from attrs.converters import optional

from .._masking import masked
from ..engines import Engine
from ..errors import ConflictError, NotFoundError
from ._credential import Credential
from ._naming import Names, Role
from .errors import SuspendedError, TenantMovingError, TenantNotFoundError, TenantUnavailableError


class OperationKind(StrEnum):
    """An operation that changes a tenant, or a part of one.

    Attributes:
        PROVISION: It creates the tenant, or its readers or writers.
        ADOPT: It takes over a database that others made.
        ROTATE: It makes a new login.
        REVOKE: It revokes the previous login.
        REPAIR: It repairs the tenant.
        SUSPEND: It revokes all logins.
        RESUME: It makes a new login for each role of a suspended tenant.
        REMOVE: It removes the tenant, or its readers or writers.
        PREPARE: It prepares a move on the other cluster. The tenant works.
        MOVE: It moves the tenant. No login can connect.
    """

    PROVISION = "provision"
    ADOPT = "adopt"
    ROTATE = "rotate"
    REVOKE = "revoke"
    REPAIR = "repair"
    SUSPEND = "suspend"
    RESUME = "resume"
    REMOVE = "remove"
    PREPARE = "prepare"
    MOVE = "move"


class TenantState(StrEnum):
    """The state of a tenant, or of its readers or writers.

    Attributes:
        ABSENT: It does not exist.
        PROVISIONING: It is being created.
        USABLE: It works.
        SUSPENDING: It is being suspended.
        SUSPENDED: No login of it can connect, until ``resume``.
        RESUMING: It is being resumed.
        MOVING: It is being moved to another cluster. No login of it can connect.
        REMOVING: It is being removed.
    """

    ABSENT = "absent"
    PROVISIONING = "provisioning"
    USABLE = "usable"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    MOVING = "moving"
    REMOVING = "removing"


# The tenant exists, and no login of it can connect.
LOCKED_OUT = (TenantState.SUSPENDING, TenantState.SUSPENDED, TenantState.RESUMING, TenantState.MOVING)

# The state while an operation is in progress, and the command that finishes it.
_IN_PROGRESS: Mapping[OperationKind, tuple[TenantState, str]] = {
    OperationKind.PROVISION: (TenantState.PROVISIONING, "provision"),
    OperationKind.ADOPT: (TenantState.PROVISIONING, "provision"),
    OperationKind.ROTATE: (TenantState.USABLE, "rotate"),
    OperationKind.REVOKE: (TenantState.USABLE, "revoke-previous"),
    OperationKind.REPAIR: (TenantState.USABLE, "repair"),
    OperationKind.SUSPEND: (TenantState.SUSPENDING, "suspend"),
    OperationKind.RESUME: (TenantState.RESUMING, "resume"),
    OperationKind.REMOVE: (TenantState.REMOVING, "remove"),
    OperationKind.PREPARE: (TenantState.USABLE, "repair"),
    OperationKind.MOVE: (TenantState.MOVING, "repair"),
}

# Why a tenant has no usable credential, and what to do. A role is SUSPENDED, for example, with its tenant.
_UNUSABLE: Mapping[TenantState, tuple[type[TenantNotFoundError | TenantUnavailableError], str]] = {
    TenantState.ABSENT: (TenantNotFoundError, "has no usable credential on record: provision it first"),
    TenantState.PROVISIONING: (TenantNotFoundError, "has no usable credential on record: provision it first"),
    TenantState.SUSPENDING: (SuspendedError, "is being suspended"),
    TenantState.SUSPENDED: (SuspendedError, "is suspended since {since:%Y-%m-%d %H:%M} UTC: resume it first"),
    TenantState.RESUMING: (
        SuspendedError,
        "is being resumed: try again in a moment, or run resume if nobody resumes it",
    ),
    TenantState.MOVING: (
        TenantMovingError,
        "is being moved to another cluster: try again in a moment, or repair the tenant if nobody moves it",
    ),
    TenantState.REMOVING: (TenantNotFoundError, "is being removed, or its removal is unfinished: run remove"),
}


@frozen(kw_only=True)
class Login:
    """A login of a tenant.

    Attributes:
        username: Its name on the server. No later login has the same name.
        role: Its rights.
        password: Its password. None for an adopted login, which others made.
        created: When it was stored, in UTC.
        replaced: When a rotation made a newer login of the role, in UTC. It works until it is revoked. None: programs
            use this one.
    """

    username: str
    role: Role = Role.OWNER
    password: str | None = field(repr=masked, converter=optional(str))  # plain: JSON and drivers want no subclass
    created: datetime
    replaced: datetime | None = None


@frozen(kw_only=True)
class Operation:
    """An operation that is in progress, or was when its process died.

    Attributes:
        kind: What it does.
        role: The role that it concerns. None: the whole tenant.
        logins: The logins that it makes. No program has them before it is done.
        target: The cluster to which it moves the tenant.
        template: The tenant whose database it copies.
    """

    kind: OperationKind
    role: Role | None = None
    logins: tuple[str, ...] = ()
    target: str | None = None
    template: str | None = None


@frozen(kw_only=True)
class TenantRecord:
    """What a store keeps of a tenant. Its ``repr`` shows no secret.

    Attributes:
        name: The tenant.
        cluster: The id of its cluster.
        cluster_name: The name of its cluster.
        database: Its database.
        host: The host name of its cluster.
        port: The port.
        engine: The engine.
        ca: The cluster's certificate authority as PEM; None if the cluster does not use TLS.
        suspended: When it was suspended, in UTC. None if it is not.
        is_set_up: Whether the ``setup`` of a ``Tenants`` ran for the database.
        version: The version of what is in the database, stored by ``setup`` or ``each``. None if none was stored.
        leftover: The id of another cluster that may still have a database of the tenant.
        logins: The logins that its programs use, and those that they used before a rotation.
        operation: The operation in progress. None if there is none. An error does not end it.
    """

    name: str
    cluster: str
    cluster_name: str
    database: str
    host: str
    port: int
    engine: Engine | str
    ca: str | None = field(default=None, repr=False)
    suspended: datetime | None = None
    is_set_up: bool = False
    version: str | None = None
    leftover: str | None = None
    logins: tuple[Login, ...] = ()
    operation: Operation | None = None

    def state(self, role: Role = Role.OWNER) -> TenantState:
        """Return the state of the tenant, or of its readers or writers."""
        operation = operation_on(self, role)
        state = TenantState.USABLE if operation is None else _IN_PROGRESS[operation.kind][0]
        if state is not TenantState.USABLE:
            return state
        if self.current(role) is None:
            return TenantState.ABSENT
        return state if self.suspended is None else TenantState.SUSPENDED

    def current(self, role: Role = Role.OWNER) -> Login | None:
        """Return the newest login of a role, or None."""
        for each in self.logins:
            if each.role is role and each.replaced is None:
                return each
        return None

    def previous(self, role: Role = Role.OWNER) -> Login | None:
        """Return the login before the last rotation, if it is not revoked yet."""
        for each in self.logins:
            if each.role is role and each.replaced is not None:
                return each
        return None

    def credential(self, role: Role = Role.OWNER) -> Credential | None:
        """Return the credential to use. None in every state but USABLE."""
        login = self.current(role)
        return None if login is None or self.state(role) is not TenantState.USABLE else credential_of(self, login)

    def pending(self, role: Role = Role.OWNER) -> list[str]:
        """Return the commands to run next, in their order: they finish what was begun."""
        if self.leftover is not None and role is Role.OWNER:
            return ["repair"]
        operation, state = operation_on(self, role), self.state(role)
        commands = ["provision"] if state is TenantState.ABSENT else []
        if operation is not None:
            commands = [_IN_PROGRESS[operation.kind][1]]
        if self.previous(role) is not None and state is TenantState.USABLE and "revoke-previous" not in commands:
            commands.append("revoke-previous")
        return commands


def credential_of(record: TenantRecord, of: Login | Role = Role.OWNER) -> Credential:
    """Return the credential of a login with a password, or of the current one of a role, whether it works or not."""
    login = record.current(of) if isinstance(of, Role) else of
    assert login is not None
    assert login.password is not None
    return Credential(
        name=record.name,
        username=login.username,
        password=login.password,
        database=record.database,
        host=record.host,
        port=record.port,
        engine=record.engine,
        ca=record.ca,
        cluster=record.cluster,
        cluster_name=record.cluster_name,
        role=login.role,
        created=login.created,
    )


def operation_on(record: TenantRecord, role: Role) -> Operation | None:
    """Return the operation in progress if it concerns a role that the tenant has."""
    operation = record.operation
    if operation is None or operation.role not in (None, role):
        return None
    exists = operation.role is role or role is Role.OWNER or record.current(role) is not None
    return operation if exists else None


def roles_of(record: TenantRecord) -> list[Role]:
    """The roles that have a login."""
    return [role for role in Role if record.current(role) is not None]


def unfinished_logins(record: TenantRecord) -> tuple[str, ...]:
    """The logins of the operation in progress: they may exist, and no program has them."""
    return () if record.operation is None else record.operation.logins


def known_logins(record: TenantRecord) -> frozenset[str]:
    """All logins that the tenant may have."""
    return frozenset([*map(attrgetter("username"), record.logins), *unfinished_logins(record)])


def newer_logins(record: TenantRecord, names: Names, logins: Iterable[str]) -> list[str]:
    """Return those of ``logins`` that another store made: unknown, and not older than the newest known one."""
    known = known_logins(record)
    newest = max(map(names.number, known), default=0)
    return [login for login in logins if login not in known and names.number(login) >= newest]


def rotated(record: TenantRecord, login: Login) -> TenantRecord:
    """Return the record after a rotation: a role has a newer login, and its current one becomes the previous one."""
    replaced = [evolve(each, replaced=login.created) if each.role is login.role else each for each in record.logins]
    return evolve(record, operation=None, logins=(*replaced, login))


def state_of(record: TenantRecord | None, role: Role) -> TenantState:
    return TenantState.ABSENT if record is None else record.state(role)


def required(record: TenantRecord | None, name: str, role: Role) -> Credential:
    """Return the usable credential, or raise the error of ``unusable``."""
    credential = None if record is None else record.credential(role)
    if credential is None:
        raise unusable(record, name, role)
    return credential


def unusable(record: TenantRecord | None, name: str, role: Role) -> TenantNotFoundError | TenantUnavailableError:
    """The error for a tenant, or a role of it, without a usable credential, with the operation to run next."""
    state, tenant = state_of(record, role), f"the tenant {name!r}"
    if role is not Role.OWNER and record is None:
        text = f"{tenant} has no credential on record, so it can have no {role}: provision it first"
        return TenantNotFoundError(f"{text}; nothing was sent")
    if role is not Role.OWNER and state is TenantState.ABSENT:
        return TenantNotFoundError(f"{tenant} has no {role}: provision one first; nothing was sent")
    error, why = _UNUSABLE.get(state, _UNUSABLE[TenantState.ABSENT])
    since = None if record is None else record.suspended
    who = tenant if role is Role.OWNER else f"the {role} of {tenant}"
    return error(f"{who} {why.format(since=since)}; nothing was sent")


def no_database(name: str, database: str, other: str | None) -> NotFoundError | ConflictError:
    """The error for a tenant without a database on its cluster: it is on the cluster ``other``, or lost."""
    what = f"the database {database!r} of the tenant {name!r}"
    if other is not None:
        return ConflictError(
            f"{what} is on the cluster {other}: it was moved after this store was copied",
            status=409,
            advice='remove the record with `store forget`, then provision the tenant with if_exists="adopt" and that '
            "cluster alone",
        )
    return NotFoundError(
        f"{what} does not exist on its cluster",
        status=404,
        advice="if it was moved, add the cluster where it is (--cluster); otherwise restore the database from a backup "
        "of the cluster. Only if the tenant was removed after the backup of the store, remove it here too",
    )
