"""The object that a caller iterates over to run a job on many names."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Never, Self, TypeVar

from ..errors import ConfigurationError, InvalidArgumentError
from .executor import Executor
from .job import Job
from .outcomes import Done, Failed, Outcome
from .specs import Source

DoneT = TypeVar("DoneT", bound=Done)
OutcomeT_co = TypeVar("OutcomeT_co", bound=Outcome, covariant=True)


class Run(Generic[OutcomeT_co]):
    """A bulk run. Iterate over it to do the work: ``async for outcome in run``.

    Each name has one outcome, which comes as soon as it is known. A name that failed is an outcome too
    (``outcome.error``), and stops no other name. Names are begun only while the loop waits for an outcome, so a slow
    loop slows the sending: at most twice ``concurrency`` names are in flight or have an outcome that was not taken yet.

    The loop raises what ends the whole run, after the outcomes of what was in flight. Nothing was sent for a name that
    has no outcome then. A run is ended by:

    - an error of what is read at its start (the cluster, the list of users or databases);
    - an exception that the iterable of names raises;
    - a token that is refused (AuthenticationError), or a client that is closed (ConfigurationError);
    - an outage: at least five names in a row, and as many as are done at a time, got no usable answer in all tries.

    To end it early:

    - ``stop()``: nothing is sent for further names, and the loop goes on until the outcomes of what is in flight came,
      which may have to wait for the rate limit.
    - ``aclose()``, or leaving an ``async with run:``: what is in flight is cancelled, and has ended when it returns.
    - A cancellation of the task that runs the loop does the same as ``aclose()``.
    - ``break``, or an exception in the body of the loop: what is in flight is cancelled as soon as nothing refers to
      the run any more. Until then, another loop over it goes on where the first one ended.

    A request that was cancelled may have been applied.

    A run is done once: iterating over it again after it has ended raises ConfigurationError.
    """

    __slots__ = ("__weakref__", "_ended", "_executor")

    def __init__(
        self: Run[DoneT | Failed],
        specs: Iterable[Any] | AsyncIterable[Any],
        job: Job[Any, DoneT],
        concurrency: int | None = None,
    ) -> None:
        if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
            raise InvalidArgumentError(f"concurrency must be an int of at least 1, not {concurrency!r}")
        wake = asyncio.Event()
        self._executor: Executor[Any] = Executor(job, Source(specs, wake), wake, concurrency)
        self._ended = False  # by itself, and not by ``aclose``
        weakref.finalize(self, self._executor.abandon).atexit = False

    def __aiter__(self) -> Self:
        if self._ended:
            raise ConfigurationError("this run has ended, and a run is done once: make another one to do it again")
        return self

    async def __anext__(self) -> OutcomeT_co:
        if self._executor.awaited:
            raise ConfigurationError("another task is waiting for an outcome of this run: a run has one consumer")
        try:
            outcome: OutcomeT_co | None = await self._executor.next()
        except BaseException:
            self._ended = True
            await self._executor.close()
            raise
        if outcome is None:
            self._ended = not self._executor.closed
            await self._executor.close()
            raise StopAsyncIteration
        return outcome

    if not TYPE_CHECKING:  # a type checker refuses ``await run`` by itself; this is for callers without one

        def __await__(self) -> Never:
            raise ConfigurationError("a run is not awaited: iterate over it with `async for outcome in run`")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def stop(self) -> None:
        """Begin nothing more. The loop ends after the outcomes of what is in flight.

        A name of which nothing was sent yet, because it waits for the rate budget, gets no outcome. One of which a
        request was sent is in flight, also while its next request waits for the rate budget: that takes up to a minute
        where the minute's requests are spent, and up to an hour where the hour's are. Call ``aclose`` for an end at
        once. What the run reads at its start is cancelled. Safe to repeat, and to call in a signal handler of asyncio
        (SIGTERM).
        """
        self._executor.stop()

    async def aclose(self) -> None:
        """End the run: cancel what is in flight, and wait until that has ended.

        A loop that waits for an outcome ends. A request that was cancelled may have been applied; ``stop`` avoids that.
        Safe to repeat, and to call in any task of the same event loop.
        """
        await self._executor.close()
