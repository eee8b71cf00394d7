"""What a record of a store means: the ``State`` of a tenant or of its readers or writers, and the ``Intent``.

An intent is what a process is about to do to the tenant. A verb stores it before its first step, with the logins that
it makes. If the process dies or loses its claim, whoever claims the tenant next drops these logins, which no program
has, and finishes the verb or undoes it. ``docs/why/logins.md`` has the table.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from enum import Enum, StrEnum, auto
from typing import Self

from attrs import asdict, evolve, frozen

from ..errors import ConflictError, NotFoundError
from ._credential import Credential
from ._naming import Names, Role
from ._stores import Record, RoleCredentials, Store, entries_of
from .errors import StoreError, SuspendedError, TenantMovingError, TenantNotFoundError, TenantUnavailableError


class Verb(StrEnum):
    """What is about to happen."""

    PROVISION = "provision"
    ADOPT = "adopt"  # ``provision`` takes over what others made
    ROTATE = "rotate"
    REVOKE = "revoke"
    REPAIR = "repair"
    SUSPEND = "suspend"
    RESUME = "resume"
    REMOVE = "remove"
    PREPARE = "prepare"  # ``move`` prepares the other cluster
    MOVE = "move"


class State(Enum):
    """The state of a tenant, or of its readers or writers, as the record shows it."""

    ABSENT = auto()  # not on record, or only claimed: nothing was begun
    PROVISIONING = auto()
    USABLE = auto()
    SUSPENDING = auto()
    SUSPENDED = auto()
    RESUMING = auto()
    MOVING = auto()
    REMOVING = auto()

    @property
    def is_shut(self) -> bool:
        """Whether the tenant exists, and no login of it may enter."""
        return self in (State.SUSPENDING, State.SUSPENDED, State.RESUMING, State.MOVING)


# The state of a tenant while a verb is on record, and the verb of the command that finishes it.
_BEGUN: Mapping[Verb, tuple[State, str]] = {
    Verb.PROVISION: (State.PROVISIONING, "provision"),
    Verb.ADOPT: (State.PROVISIONING, "provision"),
    Verb.ROTATE: (State.USABLE, "rotate"),
    Verb.REVOKE: (State.USABLE, "revoke-previous"),
    Verb.REPAIR: (State.USABLE, "repair"),
    Verb.SUSPEND: (State.SUSPENDING, "suspend"),
    Verb.RESUME: (State.RESUMING, "resume"),
    Verb.REMOVE: (State.REMOVING, "remove"),
    Verb.PREPARE: (State.USABLE, "repair"),
    Verb.MOVE: (State.MOVING, "repair"),
}

_OF_ALL = (Verb.SUSPEND, Verb.RESUME, Verb.REMOVE, Verb.MOVE)  # of a tenant: its readers and writers too

_WHY_UNUSABLE: Mapping[State, str] = {
    State.SUSPENDING: "is being suspended",
    State.RESUMING: "is being resumed: try again in a moment, or run resume if nobody resumes it",
    State.MOVING: "is being moved to another cluster: try again in a moment, or repair the tenant if nobody moves it",
    State.REMOVING: "is being removed, or its removal is unfinished: run remove",
}


@frozen(kw_only=True)
class Intent:
    """What a process is about to do to a tenant, or to its readers or writers."""

    verb: Verb
    cluster: str
    database: str
    role: Role = Role.OWNER
    logins: tuple[str, ...] = ()  # that it makes. No program has them before the verb is done
    other_cluster: str | None = None  # to which it moves, or which a new tenant left because it is unreachable

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what ``str`` of an intent returned, or raise StoreError."""
        try:
            fields = json.loads(text)
            verb, role, logins = Verb(fields.pop("verb")), Role(fields.pop("role")), tuple(fields.pop("logins"))
            return cls(verb=verb, role=role, logins=logins, **fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StoreError(
                f"the intent {text!r} has a form that this version of aiodbclient does not support: use the newer one"
            ) from None


@frozen(kw_only=True)
class OnRecord:
    """What a record of a store says of a tenant, or of its readers or writers."""

    name: str  # of the tenant
    role: Role
    record: Record | None  # of the tenant
    intent: Intent | None  # of the tenant
    cluster: str | None  # of the tenant; None if nothing was begun
    database: str | None  # same
    every_credential: list[Credential]  # of the tenant and of all its roles
    logins: Mapping[str, Role]  # of every credential
    begun_logins: tuple[str, ...]  # that a verb which was begun makes: they may exist, and no program has them
    known_logins: frozenset[str]  # both
    left_behind: str | None  # the cluster that may still have an earlier or unfinished database of the tenant
    # Of the role:
    exists: bool  # whether the store has something of it. The tenant's own record may be empty
    current: Credential | None  # to use, unless the state says otherwise
    previous: Credential | None  # the one before the last rotation, if it is not revoked
    begun: Verb | None  # the verb that was begun and concerns the role
    state: State
    usable: Credential | None  # that a program can use; a rotation keeps it
    suspended: Credential | None  # of a suspended tenant; None too if another verb has begun

    @classmethod
    def read(cls, name: str, role: Role, record: Record | None) -> Self:
        """Read a record of a store, or raise StoreError, as for a damaged one, if it is of a newer version."""
        stored = Record(name=name) if record is None else record
        try:
            intent = None if stored.intended is None else Intent.read(stored.intended)
        except StoreError as error:
            error.damaged = (name,)
            raise
        begun_logins = () if intent is None else intent.logins
        pairs: list[Record | RoleCredentials] = [stored, *stored.roles.values()]
        every_credential = [each for of in pairs for each in (of.current, of.previous) if each is not None]
        logins = {each.username: each.role for each in every_credential}
        pair = stored if role is Role.OWNER else stored.roles.get(role)
        current, previous = (None, None) if pair is None else (pair.current, pair.previous)
        home = stored.current or intent
        begun = None
        if intent is not None:
            is_of_all = intent.role is Role.OWNER and intent.verb in _OF_ALL and current is not None
            begun = intent.verb if intent.role is role or is_of_all else None
        state = State.USABLE if begun is None else _BEGUN[begun][0]
        if state is State.USABLE and current is None:
            state = State.ABSENT
        elif state is State.USABLE and current is not None and current.suspended is not None:
            state = State.SUSPENDED
        return cls(
            name=name,
            role=role,
            record=record,
            intent=intent,
            cluster=None if home is None else home.cluster,
            database=None if home is None else home.database,
            every_credential=every_credential,
            logins=logins,
            begun_logins=begun_logins,
            known_logins=frozenset([*logins, *begun_logins]),
            left_behind=None if stored.current is None else stored.current.moved_from,
            exists=record is not None if role is Role.OWNER else current is not None or begun is not None,
            current=current,
            previous=previous,
            begun=begun,
            state=state,
            usable=current if state is State.USABLE else None,
            suspended=current if state is State.SUSPENDED else None,
        )

    def of_role(self, role: Role) -> Self:
        """What the same record says of another role."""
        return self.read(self.name, role, self.record)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was begun: the name is, or was, only claimed."""
        return self.current is None and self.previous is None and self.begun is None

    @property
    def credentials(self) -> list[Credential]:
        return [each for each in (self.current, self.previous) if each is not None]

    def newer_logins(self, names: Names, logins: Iterable[str]) -> list[str]:
        """Those of ``logins`` that another store made: unknown, and not older than the newest that is known."""
        newest = max(map(names.number, self.known_logins), default=0)
        return [login for login in logins if login not in self.known_logins and names.number(login) >= newest]

    @property
    def pending(self) -> list[str]:
        """The verbs to run next, in their order: they finish what was begun."""
        if self.left_behind is not None and self.role is Role.OWNER:
            return ["repair"]
        verbs = ["provision"] if self.state is State.ABSENT else []
        if self.begun is not None:
            verbs = [_BEGUN[self.begun][1]]
        if self.previous is not None and self.state is State.USABLE and "revoke-previous" not in verbs:
            verbs.append("revoke-previous")
        return verbs

    def required(self) -> Credential:
        """Return the usable credential, or raise the error of ``unusable``."""
        if self.usable is None:
            raise self.unusable()
        return self.usable

    def unusable(self) -> TenantNotFoundError | TenantUnavailableError:
        """The error for a tenant, or a role of it, without a usable credential, with the verb to run next."""
        name, role, state = self.name, self.role, self.state
        if state is State.ABSENT and role is not Role.OWNER:
            lacks = f"no {role}: provision one first"
            if self.cluster is None:
                lacks = f"no credential on record, so it can have no {role}: provision it first"
            return TenantNotFoundError(f"the tenant {name!r} has {lacks}; nothing was sent")
        what = _WHY_UNUSABLE.get(state, "has no usable credential on record: provision it first")
        if self.suspended is not None:
            what = f"is suspended since {self.suspended.suspended:%Y-%m-%d %H:%M} UTC: resume it first"
        who = f"the tenant {name!r}" if role is Role.OWNER else f"the {role} of the tenant {name!r}"
        kinds = {State.MOVING: TenantMovingError}
        kind = kinds.get(state, SuspendedError) if state.is_shut else TenantNotFoundError
        return kind(f"{who} {what}; nothing was sent")


async def read_all(store: Store) -> AsyncIterator[OnRecord | StoreError]:
    """Yield the record of each tenant, or the StoreError if it cannot be read."""
    async for entry in entries_of(store):
        try:
            found = entry if isinstance(entry, StoreError) else OnRecord.read(entry.name, Role.OWNER, entry)
        except StoreError as error:  # of a newer version
            found = error
        yield found


def with_credentials(record: Record, role: Role, current: Credential, previous: Credential | None) -> Record:
    """The record with these credentials of a role."""
    if role is Role.OWNER:
        return evolve(record, current=current, previous=previous)
    return evolve(record, roles={**record.roles, role: RoleCredentials(current=current, previous=previous)})


def no_database(name: str, database: str, there: str | None) -> NotFoundError | ConflictError:
    """The error for a tenant without a database on its cluster: it is on the cluster ``there``, or lost."""
    what = f"the database {database!r} of the tenant {name!r}"
    if there is not None:
        return ConflictError(
            f"{what} is on the cluster {there}: it was moved after this store was copied",
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
