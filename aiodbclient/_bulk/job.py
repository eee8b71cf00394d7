"""What a bulk run does for each name: the kinds of job that the others are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from .._request.call import Meter
from .._request.context import ClusterContext
from ..engines import CAPABILITIES, Capabilities
from ..errors import AuthenticationError, ConfigurationError, NotFoundError
from .outcomes import Action, Done, Removed

ApiT = TypeVar("ApiT")
SpecT = TypeVar("SpecT")
DoneT_co = TypeVar("DoneT_co", bound=Done, covariant=True)


class Job(ABC, Generic[SpecT, DoneT_co]):
    """What a bulk run does: once at its start, and for each name. One object serves one run."""

    @abstractmethod
    def check(self, given: object) -> SpecT:
        """What the caller gave for one name, as ``do`` wants it.

        Raises:
            InvalidArgumentError: It is not that. The name fails, and nothing is sent for it.
        """

    @abstractmethod
    async def prepare(self, meter: Meter) -> int:
        """Do what comes before the first name, such as reading what is there already.

        Args:
            meter: Counts the requests; hand it to the calls.

        Returns:
            How many names may be under way at a time, unless the caller of the run says otherwise.

        Raises:
            Exception: Whatever it raises ends the run before its first name, and is raised to the run's consumer.
        """

    @abstractmethod
    async def do(self, spec: SpecT, meter: Meter) -> DoneT_co:
        """Do it for one name. May be cancelled at any await.

        Args:
            spec: What ``check`` returned.
            meter: Counts the requests; hand it to the calls. While it is at 0, ``Run.stop`` cancels this.

        Returns:
            The outcome, which tells ``meter.requests`` as its ``tries``.

        Raises:
            Exception: Whatever it raises is the error of a Failed outcome, and stops no other name, unless
                ``ends_run`` says so.
        """

    def ends_run(self, error: Exception) -> bool:
        """Whether ``error``, with which a name failed, would meet every other name too, so that the run ends."""
        return isinstance(error, AuthenticationError | ConfigurationError)


class ClusterJob(Job[SpecT, DoneT_co], Generic[ApiT, SpecT, DoneT_co]):
    """A job on one cluster.

    Args:
        context: The cluster.
        api: What makes the calls, such as ``UsersAPI``, made for each name, so that its requests can be counted.
    """

    def __init__(self, context: ClusterContext, api: Callable[[ClusterContext], ApiT]) -> None:
        self.retry = context.options.retry
        self._context = context.for_bulk(Meter())
        self._api = api

    def calls(self, meter: Meter) -> ApiT:
        """The API in the budget's bulk lane, its requests counted by ``meter``."""
        return self._api(self._context.for_bulk(meter))

    async def prepare(self, meter: Meter) -> int:
        """Read the engine of the cluster, where it is not known yet; it says how many names at a time."""
        engine = await self._context.for_bulk(meter).learn_engine()
        return CAPABILITIES.get(engine, Capabilities()).concurrent_user_writes


async def removed(delete: Callable[[str], Awaitable[None]], name: str, meter: Meter) -> Removed:
    try:
        await delete(name)
    except NotFoundError:
        return Removed(name=name, action=Action.ABSENT, tries=meter.requests)
    return Removed(name=name, action=Action.DELETED, tries=meter.requests)
