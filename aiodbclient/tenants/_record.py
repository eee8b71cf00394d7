"""What a record says: its ``Intent``, which is what a process is about to do to the tenant, and its ``State``. Pure.

A verb stores its intent before its first step. If a process dies, or loses its claim, the intent says what was begun:
the same verb takes its steps again from the first, and ``repair`` finishes or undoes any. A store keeps an intent as a
text, ``VERB LOGIN CLUSTER MORE``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum, auto
from typing import Self

from attrs import frozen

from ..errors import NotFoundError, StoreError, SuspendedError, TenantNotFoundError
from ._credential import Credential
from ._naming import Role
from ._stores import Record


class Verb(StrEnum):
    """What is about to happen."""

    PROVISION = "provision"
    ADOPT = "adopt"  # ``provision`` takes over what others made
    ROTATE = "rotate"
    RETIRE = "retire"
    REPAIR = "repair"  # the login in use keeps its password
    RESET = "reset"  # ``repair`` gives the login in use another password
    SUSPEND = "suspend"
    RESUME = "resume"
    REMOVE = "remove"
    RELEASE = "release"  # ``remove`` keeps the database
    DUMP = "dump"
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


# The state of a tenant while a verb is on record.
_WHILE: Mapping[Verb, State] = {
    Verb.PROVISION: State.PROVISIONING,
    Verb.ADOPT: State.PROVISIONING,
    Verb.ROTATE: State.USABLE,
    Verb.RETIRE: State.USABLE,
    Verb.REPAIR: State.USABLE,
    Verb.RESET: State.RESETTING,
    Verb.SUSPEND: State.SUSPENDING,
    Verb.RESUME: State.RESUMING,
    Verb.REMOVE: State.REMOVING,
    Verb.RELEASE: State.REMOVING,
    Verb.DUMP: State.USABLE,
    Verb.PREPARE: State.USABLE,
    Verb.MOVE: State.MOVING,
}

# What finishes a verb that ended early, where it is not the verb itself.
_FINISHED_BY: Mapping[Verb, str] = {
    Verb.ADOPT: "provision",
    Verb.RESET: "repair",
    Verb.RELEASE: "remove",
    Verb.DUMP: "repair",
    Verb.PREPARE: "repair",
    Verb.MOVE: "repair",
}


_WHY_UNUSABLE: Mapping[State, str] = {
    State.SUSPENDING: "is being suspended",
    State.RESUMING: "is being resumed: try again in a moment",
    State.MOVING: "is being moved to another cluster: try again in a moment, or repair it if no process moves it",
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
        return self.verb in (Verb.ROTATE, Verb.RETIRE)

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


def intent_of(record: Record | None) -> Intent | None:
    """Return the intent on ``record``, or None. Raises as ``Intent.read``: then the record counts as damaged."""
    if record is None or record.intended is None:
        return None
    try:
        return Intent.read(record.intended)
    except StoreError as error:
        error.damaged = (record.name,)
        raise


def cluster_of(record: Record | None) -> str | None:
    """Return the id of the cluster of a tenant; None if nothing was begun. Raises as ``Intent.read``."""
    if record is None:
        return None
    credential = record.current or record.previous
    if credential is not None:
        return credential.cluster
    intent = intent_of(record)
    return None if intent is None else intent.cluster


def is_empty(record: Record) -> bool:
    """Whether nothing was begun for the name: it is, or was, only claimed."""
    return record.current is None and record.previous is None and record.intended is None


def state_of(record: Record | None) -> State:
    """Return the state of the tenant with this record. Raises as ``Intent.read``."""
    intent = intent_of(record)
    state = State.USABLE if intent is None else _WHILE[intent.verb]
    if state is not State.USABLE:
        return state
    if record is None or record.current is None:
        return State.ABSENT
    return State.USABLE if record.current.suspended is None else State.SUSPENDED


def left_behind(record: Record | None) -> Credential | None:
    """The credential on the cluster that a tenant was moved from, if its database is not dropped there; or None."""
    if record is None or record.current is None or record.previous is None:
        return None
    return record.previous if record.previous.cluster != record.current.cluster else None


def pending(record: Record) -> list[str]:
    """Return the verbs to run next, in their order: they finish what was begun. Raises as ``Intent.read``."""
    intent, state = intent_of(record), state_of(record)
    verbs = ["provision"] if state is State.ABSENT else []
    if intent is not None:
        verbs = [_FINISHED_BY.get(intent.verb, str(intent.verb))]
    if left_behind(record) is not None:
        return ["repair"]
    if record.previous is not None and state in (State.USABLE, State.RESETTING) and "retire" not in verbs:
        verbs.append("retire")
    return verbs


def usable(record: Record | None) -> Credential | None:
    """The credential of ``record`` that a program can use; None if there is none, or its login changes or is ended."""
    return record.current if record is not None and state_of(record) is State.USABLE else None


def suspended(record: Record | None) -> Credential | None:
    """The credential of a suspended tenant. None if it is not suspended, or if another verb has begun."""
    return record.current if record is not None and state_of(record) is State.SUSPENDED else None


def no_database(name: str, database: str, role: Role = Role.OWNER) -> NotFoundError:
    """The error for a tenant, or a role of it, that is on record and has no database."""
    if role is not Role.OWNER:
        return NotFoundError(
            f"the database {database!r} does not exist: repair the tenant {name!r} itself first", status=404
        )
    return NotFoundError(
        f"the database {database!r} does not exist, and what was in it is lost",
        status=404,
        advice="restore it from a backup of the cluster, or make an empty one with repair(recreate=True)",
    )


def required(name: str, record: Record | None, role: Role = Role.OWNER) -> Credential:
    """Return the usable credential of ``record``. Raises as ``unusable`` describes."""
    credential = usable(record)
    if credential is None:
        raise unusable(name, record, role)
    return credential


def unusable(name: str, record: Record | None, role: Role = Role.OWNER) -> TenantNotFoundError | SuspendedError:
    """The error for a tenant, or a role of it, that has no usable credential. It names the verb to run next."""
    state = state_of(record)
    if state is State.ABSENT and role is not Role.OWNER:
        return TenantNotFoundError(f"the tenant {name!r} has no {role}: provision one first; nothing was sent")
    what = _WHY_UNUSABLE.get(state, "has no usable credential on record: provision it first")
    if state is State.SUSPENDED and record is not None and record.current is not None:
        what = f"is suspended since {record.current.suspended:%Y-%m-%d %H:%M} UTC: resume it first"
    who = f"the tenant {name!r}" if role is Role.OWNER else f"the {role} of the tenant {name!r}"
    kind = SuspendedError if state.is_shut else TenantNotFoundError
    return kind(f"{who} {what}; nothing was sent")


def no_roles(name: str, role: Role) -> TenantNotFoundError:
    """The error for a reader or writer of a tenant that is not on record."""
    return TenantNotFoundError(
        f"the tenant {name!r} has no credential on record, so it can have no {role}: provision it first; "
        "nothing was sent"
    )
