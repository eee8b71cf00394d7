"""What a store has on record for a tenant: ``OnRecord``, with its ``State`` and its ``Intent``.

An intent is what a process is about to do to the tenant. A verb stores it before its first step. If a process dies, or
loses its claim, the intent says what was begun: the same verb takes its steps again from the first, and ``repair``
finishes or undoes any. A store keeps an intent as a text, ``VERB LOGIN CLUSTER MORE``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from enum import Enum, StrEnum, auto
from typing import Self

from attrs import frozen

from ..errors import NotFoundError
from ._credential import Credential
from ._naming import Role, tenant_of
from ._stores import Record, Store, entries_of
from .errors import StoreError, SuspendedError, TenantMovingError, TenantNotFoundError, TenantUnavailableError


class Verb(StrEnum):
    """What is about to happen."""

    PROVISION = "provision"
    ADOPT = "adopt"  # ``provision`` takes over what others made
    ROTATE = "rotate"
    REVOKE = "revoke"
    REPAIR = "repair"  # the login in use keeps its password
    RESET = "reset"  # ``repair`` gives the login in use another password
    SUSPEND = "suspend"
    RESUME = "resume"
    REMOVE = "remove"
    PREPARE = "prepare"  # ``move`` prepares the other cluster
    MOVE = "move"


class State(Enum):
    """The state of a tenant, as its record shows it."""

    ABSENT = auto()  # not on record, or only claimed: nothing was begun
    PROVISIONING = auto()
    USABLE = auto()
    RESETTING = auto()  # the password of the login in use is unknown
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
    Verb.RESET: (State.RESETTING, "repair"),
    Verb.SUSPEND: (State.SUSPENDING, "suspend"),
    Verb.RESUME: (State.RESUMING, "resume"),
    Verb.REMOVE: (State.REMOVING, "remove"),
    Verb.PREPARE: (State.USABLE, "repair"),
    Verb.MOVE: (State.MOVING, "repair"),
}

_WHY_UNUSABLE: Mapping[State, str] = {
    State.SUSPENDING: "is being suspended",
    State.RESUMING: "is being resumed: try again in a moment",
    State.MOVING: "is being moved to another cluster: try again in a moment, or repair the tenant if nobody moves it",
    State.REMOVING: "is being removed, or its removal is unfinished: run remove",
    State.RESETTING: "is being repaired, or its repair is unfinished: run repair",
}


@frozen
class Intent:
    """What a process is about to do to a tenant."""

    verb: Verb
    login: str  # the one that changes first
    cluster: str
    more: str = ""  # what else the verb needs to run again

    @property
    def ends_other(self) -> bool:
        """Whether the verb ends the login that is not in use, so that it may be ended already."""
        return self.verb in (Verb.ROTATE, Verb.REVOKE)

    def __str__(self) -> str:
        return f"{self.verb} {self.login} {self.cluster} {self.more}".rstrip()

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what ``str`` of an intent returned. Raises StoreError."""
        verb, _, rest = text.partition(" ")
        login, _, rest = rest.partition(" ")
        cluster, _, more = rest.partition(" ")
        if verb in list(Verb) and login and cluster:
            return cls(Verb(verb), login, cluster, more)
        raise StoreError(
            f"the intent {text!r} has a form that this version of aiodbclient does not support: use the newer one"
        )


@frozen(kw_only=True)
class OnRecord:
    """What is on record for a tenant, or for a reader or writer of it, if anything is."""

    name: str  # of the tenant
    role: Role = Role.OWNER
    exists: bool = False  # whether the store has a record of it, which may be empty
    current: Credential | None = None
    previous: Credential | None = None
    intent: Intent | None = None

    @classmethod
    def read(cls, name: str, role: Role, record: Record | None) -> Self:
        """Read a record of a store. Raises StoreError, as for a damaged one, if it is of a newer version."""
        if record is None:
            return cls(name=name, role=role)
        try:
            intent = None if record.intended is None else Intent.read(record.intended)
        except StoreError as error:
            error.damaged = (record.name,)
            raise
        return cls(name=name, role=role, exists=True, current=record.current, previous=record.previous, intent=intent)

    def record(self) -> Record:
        """The record again, with the name of the tenant."""
        intended = None if self.intent is None else str(self.intent)
        return Record(name=self.name, current=self.current, previous=self.previous, intended=intended)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was begun for the name: it is, or was, only claimed."""
        return self.current is None and self.previous is None and self.intent is None

    @property
    def credentials(self) -> list[Credential]:
        """The current credential and the previous one, as far as they are on record."""
        return [each for each in (self.current, self.previous) if each is not None]

    @property
    def state(self) -> State:
        """The state of the tenant."""
        state = State.USABLE if self.intent is None else _BEGUN[self.intent.verb][0]
        if state is not State.USABLE:
            return state
        if self.current is None:
            return State.ABSENT
        return State.USABLE if self.current.suspended is None else State.SUSPENDED

    @property
    def cluster(self) -> str | None:
        """The id of the tenant's cluster; None if nothing was begun."""
        credential = self.current or self.previous
        if credential is not None:
            return credential.cluster
        return None if self.intent is None else self.intent.cluster

    @property
    def usable(self) -> Credential | None:
        """The credential that a program can use; None if there is none, or its login changes or is ended."""
        return self.current if self.state is State.USABLE else None

    @property
    def suspended(self) -> Credential | None:
        """The credential of a suspended tenant. None if it is not suspended, or if another verb has begun."""
        return self.current if self.state is State.SUSPENDED else None

    @property
    def left_behind(self) -> str | None:
        """The cluster that a tenant was moved from, if its database is not dropped there; or None."""
        return None if self.current is None else self.current.moved_from

    @property
    def pending(self) -> list[str]:
        """The verbs to run next, in their order: they finish what was begun."""
        verbs = ["provision"] if self.state is State.ABSENT else []
        if self.intent is not None:
            verbs = [_BEGUN[self.intent.verb][1]]
        if self.left_behind is not None:
            return ["repair"]
        if (
            self.previous is not None
            and self.state in (State.USABLE, State.RESETTING)
            and "revoke-previous" not in verbs
        ):
            verbs.append("revoke-previous")
        return verbs

    def required(self) -> Credential:
        """Return the usable credential. Raises as ``unusable`` describes."""
        if self.usable is None:
            raise self.unusable()
        return self.usable

    def unusable(self) -> TenantNotFoundError | TenantUnavailableError:
        """The error for a tenant, or a role of it, that has no usable credential. It names the verb to run next."""
        name, role, state = self.name, self.role, self.state
        if state is State.ABSENT and role is not Role.OWNER:
            return TenantNotFoundError(f"the tenant {name!r} has no {role}: provision one first; nothing was sent")
        what = _WHY_UNUSABLE.get(state, "has no usable credential on record: provision it first")
        if self.suspended is not None:
            what = f"is suspended since {self.suspended.suspended:%Y-%m-%d %H:%M} UTC: resume it first"
        who = f"the tenant {name!r}" if role is Role.OWNER else f"the {role} of the tenant {name!r}"
        kinds = {State.MOVING: TenantMovingError}
        kind = kinds.get(state, SuspendedError) if state.is_shut else TenantNotFoundError
        return kind(f"{who} {what}; nothing was sent")


async def read_all(store: Store) -> AsyncIterator[OnRecord | StoreError]:
    """Yield all that is on record, with the error of each record that cannot be read in its place."""
    async for entry in entries_of(store):
        try:
            found = entry if isinstance(entry, StoreError) else OnRecord.read(*tenant_of(entry.name), entry)
        except StoreError as error:  # of a newer version
            found = error
        yield found


def no_database(name: str, database: str, role: Role = Role.OWNER) -> NotFoundError:
    """The error for a tenant, or a role of it, that is on record and has no database."""
    if role is not Role.OWNER:
        return NotFoundError(
            f"the database {database!r} does not exist: repair the tenant {name!r} itself first", status=404
        )
    return NotFoundError(
        f"the database {database!r} does not exist, and what was in it is lost",
        status=404,
        advice="restore it from a backup of the cluster, or remove the tenant and provision it again, empty",
    )


def no_roles(name: str, role: Role) -> TenantNotFoundError:
    """The error for a reader or writer of a tenant that is not on record."""
    return TenantNotFoundError(
        f"the tenant {name!r} has no credential on record, so it can have no {role}: provision it first; "
        "nothing was sent"
    )
