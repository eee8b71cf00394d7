"""Runs over many names: what a run does is a ``Job``, and how it is done is here.

The consumer of a ``Run`` pulls outcomes. While it waits for one, specs are pulled and names are begun, each in a task
of the run, until ``concurrency`` are under way.
"""

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
    """A bulk run: iterate over it to do the work.

    Outcomes come as soon as each is known, in the order of completion. Work is begun only while an outcome is being
    waited for, so a slow consumer slows the sending. At most twice the concurrency of names are begun and not taken.

    The loop raises what ends the whole run, after the outcomes of what was in flight: what could not be read at the
    start, an exception of the iterable of names, a token that is refused, or an outage, which is several names in a row
    that got no usable answer in all their tries. Nothing was sent for a name that has no outcome then.

    ``break``, an exception or a cancellation in the loop end the run: nothing more is sent and what is in flight is
    cancelled, at once with ``async with run:`` or ``aclose()``, else as soon as the run is dropped. A cancelled request
    may have been applied; ``stop()`` avoids that.

    A run is done once. Iterating over it again when it has ended raises ConfigurationError.
    """

    __slots__ = ("__weakref__", "_executor")

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
        # Dropping the run ends it: its tasks know the executor, and nothing but its consumer knows the run.
        weakref.finalize(self, self._executor.abandon).atexit = False

    def __aiter__(self) -> Self:
        if self._executor.ended:
            raise ConfigurationError("this run has ended, and a run is done once: make another one to do it again")
        return self

    async def __anext__(self) -> OutcomeT_co:
        executor = self._executor
        if executor.awaited:
            raise ConfigurationError("another task is waiting for an outcome of this run: a run has one consumer")
        try:
            outcome: OutcomeT_co | None = await executor.next()
        except BaseException:
            executor.ended = True
            await executor.close()
            raise
        if outcome is None:
            executor.ended = not executor.closed
            await executor.close()
            raise StopAsyncIteration
        return outcome

    if not TYPE_CHECKING:  # type checkers refuse to await a run, and this is for who runs none

        def __await__(self) -> Never:
            raise ConfigurationError("a run is not awaited: iterate over it with `async for outcome in run`")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def stop(self) -> None:
        """Start nothing more; the loop ends after the outcomes of what is in flight. For a signal handler (SIGTERM).

        A name of which nothing was sent yet, as it waited for the rate budget, gets no outcome. What the run reads at
        its start is cancelled. May be called again.
        """
        self._executor.stop()

    async def aclose(self) -> None:
        """End the run: cancel what is in flight and wait until it has ended.

        May be called from any task of the same event loop, and again. The loop of a consumer that waits for an outcome
        ends.
        """
        await self._executor.close()
