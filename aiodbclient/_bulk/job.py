"""``Job``, the work of a bulk run, and the base of the jobs on users and databases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import ClassVar, Generic, TypeVar

from .._request.call import Meter
from .._request.context import ClusterContext
from .._request.pause import Pause
from ..engines import capabilities_of
from ..errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidResponseError,
    NotFoundError,
    ServerError,
    TransportError,
)
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
