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
from .outcomes import Action, Done, Removed

SpecT = TypeVar("SpecT")
DoneT_co = TypeVar("DoneT_co", bound=Done, covariant=True)

# If this many names in a row fail without a usable answer, it is an outage: the next name would most likely fail too.
OUTAGE = 5
UNANSWERED = (TransportError, ServerError, InvalidResponseError)


class Job(ABC, Generic[SpecT, DoneT_co]):
    """The work of a bulk run: once at its start, and for each name. Each run has its own object.

    Attributes:
        pause: How the run waits while a cluster refuses changes.
        resumable: Whether a name that ends early loses nothing: the same run finishes it later.
    """

    resumable: ClassVar[bool] = False

    def __init__(self) -> None:
        self.pause: Pause = Pause()

    @abstractmethod
    def check(self, given: object) -> SpecT:
        """Check what the caller gave for one name, and return the spec for ``do``.

        Raises:
            InvalidArgumentError: Its type is wrong. The name fails, and nothing is sent for it.
        """

    @abstractmethod
    async def prepare(self) -> int:
        """Do the work before the first name, such as reading what exists. May be cancelled at any await.

        Returns:
            How many names to process at a time, unless the caller of the run gave a number.

        Raises:
            Exception: Any error ends the run before its first name. The loop over the run raises it.
        """

    @abstractmethod
    async def do(self, spec: SpecT, meter: Meter) -> DoneT_co:
        """Process one name. May be cancelled at any await.

        Args:
            spec: What ``check`` returned.
            meter: Counts the requests; pass it to the calls. ``Run.stop`` cancels this call while the count is 0.

        Returns:
            The outcome, with ``meter.requests`` as its ``tries``.

        Raises:
            Exception: Any error becomes the ``error`` of a Failed outcome.
        """

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
