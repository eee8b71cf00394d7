"""What a record says: its ``Intent``, which is what a process is about to do to the tenant, and its ``State``. Pure.

A store keeps an intent as one text, ``pg_intent VERB CLUSTER LOGIN``. No login begins like that: ``names_of`` refuses
each name that begins with ``pg_``, on every engine, and what it derives from the name ``pg`` goes on with a digest.
Version 1.0 stored the login alone, which reads as ``make``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import Enum, StrEnum, auto
from typing import Self

from attrs import frozen

from ..errors import StoreError
from ._stores import Record

_MARK = "pg_intent "
_TEXT = re.compile(_MARK + r"([a-z]+) (\S+) (.+)", re.DOTALL)
_NO_CLUSTER = "-"


class Verb(StrEnum):
    """What is about to happen."""

    MAKE = "make"  # the login is created
    RESET = "reset"  # the login, which exists, gets another password
    END = "end"  # the login is ended, and the tenant stays
    REMOVE = "remove"  # the tenant is removed
    RELEASE = "release"  # the tenant is removed, and its database stays
    SUSPEND = "suspend"  # all logins of the tenant are ended, and its database stays


@frozen
class Intent:
    """What a process is about to do to a tenant."""

    verb: Verb
    login: str  # the one that changes first
    cluster: str | None = None  # None: version 1.0 stored it

    def __str__(self) -> str:
        return f"{_MARK}{self.verb} {self.cluster or _NO_CLUSTER} {self.login}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what ``str`` of an intent returned, or the login that version 1.0 stored."""
        if not text.startswith(_MARK):
            return cls(Verb.MAKE, text)
        match = _TEXT.fullmatch(text)
        if match is None or match[1] not in list(Verb):
            raise StoreError(
                f"the intent {text!r} has a form that this version of aiodbclient does not support: use the newer one"
            )
        return cls(Verb(match[1]), match[3], None if match[2] == _NO_CLUSTER else match[2])

    @property
    def removes(self) -> bool:
        """Whether the tenant is being removed."""
        return self.verb in (Verb.REMOVE, Verb.RELEASE)


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
    """Return the id of the cluster that ``record`` names; None if it names none. Raises as ``Intent.read``."""
    if record is None:
        return None
    intent = intent_of(record)
    named = [each.cluster for each in (intent, record.current, record.previous) if each is not None]
    return next((cluster for cluster in named if cluster is not None), None)


def home_of(record: Record | None, clusters: Collection[str]) -> str | None:
    """Return the cluster of a tenant, of these ``clusters``; None if nothing was begun."""
    # Earlier versions, which had one cluster, did not store it.
    if record is not None and cluster_of(record) is None and not is_empty(record) and len(clusters) == 1:
        return next(iter(clusters))
    return cluster_of(record)


def is_empty(record: Record) -> bool:
    """Whether nothing was begun for the name: it is, or was, only claimed."""
    return record.current is None and record.previous is None and record.intended is None


def intended_login(record: Record | None) -> str | None:
    """Return the login that the intent on ``record`` names, or None. Raises as ``Intent.read``."""
    intent = intent_of(record)
    return None if intent is None else intent.login


class State(Enum):
    """The state of a tenant, as its record shows it."""

    ABSENT = auto()  # not on record, or only claimed: nothing was begun
    BEGUN = auto()  # being created
    USABLE = auto()
    REPLACED = auto()  # the login in use is being made or reset
    SUSPENDING = auto()
    SUSPENDED = auto()
    RESUMING = auto()
    REMOVING = auto()

    @property
    def is_of_suspension(self) -> bool:
        """Whether the tenant is suspended, also if that or its end is unfinished."""
        return self in (State.SUSPENDING, State.SUSPENDED, State.RESUMING)

    @property
    def has_logins(self) -> bool:
        """Whether the tenant was created, and its removal has not begun."""
        return self not in (State.ABSENT, State.BEGUN, State.REMOVING)


def state_of(record: Record | None) -> State:
    """Return the state of the tenant with this record. Raises as ``Intent.read``."""
    intent = intent_of(record)
    if record is None or is_empty(record):
        return State.ABSENT
    if intent is not None and intent.removes:
        return State.REMOVING
    if record.current is None:
        return State.BEGUN
    if intent is not None and intent.verb is Verb.SUSPEND:
        return State.SUSPENDING
    if record.current.suspended is not None:
        return State.SUSPENDED if intent is None else State.RESUMING
    return State.REPLACED if intended_login(record) == record.current.username else State.USABLE


_NEXT = {
    State.ABSENT: ["provision"],
    State.BEGUN: ["provision"],
    State.REPLACED: ["repair"],
    State.SUSPENDING: ["suspend"],
    State.RESUMING: ["resume"],
    State.REMOVING: ["remove"],
}


def pending(record: Record) -> list[str]:
    """Return the verbs to run next, in their order: they finish what was begun. Raises as ``Intent.read``."""
    state = state_of(record)
    verbs = _NEXT.get(state, [])
    if record.previous is not None and state in (State.USABLE, State.REPLACED):
        return [*verbs, "retire"]
    if record.intended is not None and state is State.USABLE:
        return ["rotate"]  # it ended before its new credential was stored
    return verbs
