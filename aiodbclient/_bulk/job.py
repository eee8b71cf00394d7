"""``Job``, the work of a bulk run, the base of the jobs on users and databases, and the specs that a caller gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, ClassVar, Generic, TypeVar

from .._request.call import Meter
from .._request.context import ClusterContext
from .._request.pause import Pause
from .._user_settings import check_settings
from ..engines import capabilities_of
from ..errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    ServerError,
    TransportError,
)
from ..models import NewUser
from .outcomes import Action, Done, Failed, Removed

SpecT = TypeVar("SpecT")
DoneT_co = TypeVar("DoneT_co", bound=Done, covariant=True)

# If this many names in a row fail without a usable answer, it is an outage: the next name would most likely fail too.
OUTAGE = 5
UNANSWERED = (TransportError, ServerError, InvalidResponseError)


class Job(ABC, Generic[SpecT, DoneT_co]):
    """The work of one bulk run: once at its start, and for each name. May be cancelled at any await."""

    resumable: ClassVar[bool] = False  # whether a name that ends early loses nothing: the same run finishes it later

    def __init__(self) -> None:
        self.pause: Pause = Pause()  # how the run waits while a cluster refuses changes
        self.copied = 0  # bytes, of all names
        self.ending: Exception | None = None  # what the run raises after ``ends_run``, if it is not the error itself

    @abstractmethod
    def check(self, given: object) -> SpecT:
        """Return the spec for ``do`` of what the caller gave for one name, or raise InvalidArgumentError."""

    @abstractmethod
    async def prepare(self) -> int:
        """Do the work before the first name, and return how many names to process at a time by default."""

    @abstractmethod
    async def do(self, spec: SpecT, meter: Meter) -> DoneT_co:
        """Process one name, with calls that count their requests in ``meter``; an error becomes a Failed outcome."""

    def failed(self, outcome: Failed) -> Failed:
        """Return the outcome of a name that failed, with what else is known of it."""
        return outcome

    def ends_run(self, error: Exception) -> bool:
        """Whether an error of one name ends the run, because every other name would raise it too."""
        return isinstance(error, AuthenticationError | ConfigurationError)


class ClusterJob(Job[SpecT, DoneT_co]):
    """A job on one cluster."""

    def __init__(self, context: ClusterContext) -> None:
        super().__init__()
        self.retry = context.options.retry
        self._context = context.for_bulk(Meter(), self.pause)

    async def prepare(self) -> int:
        """Read the engine if it is unknown, and return how many names at a time the engine supports."""
        engine = await self._context.learn_engine()
        return capabilities_of(engine).concurrent_user_writes


async def removed(delete: Callable[[str], Awaitable[None]], name: str, meter: Meter) -> Removed:
    """Delete ``name`` and return the outcome."""
    try:
        await delete(name)
    except NotFoundError:
        return Removed(name=name, action=Action.ABSENT, tries=meter.requests)
    return Removed(name=name, action=Action.DELETED, tries=meter.requests)


async def listed(specs: Iterable[Any] | AsyncIterable[Any]) -> list[Any]:
    """Return the specs of a plan as a list."""
    refuse_no_iterable(specs, "a plan")
    return [each async for each in specs] if isinstance(specs, AsyncIterable) else list(specs)


def refuse_no_iterable(specs: object, taker: str) -> None:
    if isinstance(specs, str | bytes) or not isinstance(specs, Iterable | AsyncIterable):
        raise InvalidArgumentError(f"{taker} takes an iterable of names, not {type(specs).__name__}; nothing was sent")


def shown_name(given: object) -> str:
    """Return the name of the outcome for a given spec: its name, or its repr if it has none."""
    name = getattr(given, "name", given)
    return name if isinstance(name, str) else repr(given)


def name_spec(given: object) -> str:
    """Return ``given`` if it is a name."""
    if isinstance(given, str):
        return given
    raise InvalidArgumentError(f"this run takes names (str), not {given!r}; nothing was sent")


def user_spec(given: object) -> NewUser:
    """Return ``given`` as a NewUser."""
    spec = NewUser(given) if isinstance(given, str) else given
    if isinstance(spec, NewUser) and isinstance(spec.name, str):
        check_settings(spec.mysql_settings, spec.settings, spec.readonly)
        return spec
    raise InvalidArgumentError(f"a run takes names and NewUsers, not {given!r}; nothing was sent")
