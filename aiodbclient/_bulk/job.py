"""What a bulk run does, as an object: ``Job``, and what the jobs on users and on databases have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from .._request.call import Meter
from .._request.context import ClusterContext
from ..engines import Capabilities
from ..errors import AuthenticationError, ConfigurationError, NotFoundError
from .outcomes import Action, Done, Removed

SpecT = TypeVar("SpecT")
DoneT_co = TypeVar("DoneT_co", bound=Done, covariant=True)


class Job(ABC, Generic[SpecT, DoneT_co]):
    """What a bulk run does: once at its start, and for each name. One object serves one run."""

    @abstractmethod
    def check(self, given: object) -> SpecT:
        """Check what the caller gave for one name, and return it as ``do`` takes it.

        Raises:
            InvalidArgumentError: It is of the wrong type. The name fails, and nothing is sent for it.
        """

    @abstractmethod
    async def prepare(self, meter: Meter) -> int:
        """Do what comes before the first name, such as reading what is there already. May be cancelled at any await.

        Args:
            meter: Counts the requests; hand it to the calls.

        Returns:
            How many names to do at a time, unless the caller of the run says otherwise.

        Raises:
            Exception: Any error ends the run before its first name, and is raised by its loop.
        """

    @abstractmethod
    async def do(self, spec: SpecT, meter: Meter) -> DoneT_co:
        """Do it for one name. May be cancelled at any await.

        Args:
            spec: What ``check`` returned.
            meter: Counts the requests; hand it to the calls. ``Run.stop`` cancels this while it is at 0.

        Returns:
            The outcome, with ``meter.requests`` as its ``tries``.

        Raises:
            Exception: Any error becomes the ``error`` of a Failed outcome.
        """

    def ends_run(self, error: Exception) -> bool:
        """Whether an error of one name ends the run, since every other name would meet it too."""
        return isinstance(error, AuthenticationError | ConfigurationError)


class ClusterJob(Job[SpecT, DoneT_co]):
    """A job on one cluster."""

    def __init__(self, context: ClusterContext) -> None:
        self.retry = context.options.retry
        self._context = context.for_bulk(Meter())

    async def prepare(self, meter: Meter) -> int:
        """Read the cluster's engine if it is not known yet, and return how many names it bears at a time."""
        engine = await self._context.for_bulk(meter).learn_engine()
        return (Capabilities.of(engine) or Capabilities()).concurrent_user_writes


async def removed(delete: Callable[[str], Awaitable[None]], name: str, meter: Meter) -> Removed:
    """Delete ``name``, and return what became of it."""
    try:
        await delete(name)
    except NotFoundError:
        return Removed(name=name, action=Action.ABSENT, tries=meter.requests)
    return Removed(name=name, action=Action.DELETED, tries=meter.requests)
