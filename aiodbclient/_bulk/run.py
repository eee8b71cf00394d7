"""``Run``: the caller iterates over it to process many names."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Never, Self, TypeVar

from .._checks import check_whole
from ..errors import ConfigurationError
from .executor import Executor
from .job import Job
from .outcomes import Done, Failed, Outcome
from .specs import Source

DoneT = TypeVar("DoneT", bound=Done)
OutcomeT_co = TypeVar("OutcomeT_co", bound=Outcome, covariant=True)


class Run(Generic[OutcomeT_co]):
    """A bulk run. Iterate over it to do the work: ``async for outcome in run``.

    Each name has one outcome, as soon as it is known. A failed name is an outcome too (``outcome.error``), and does not
    stop the others. The run starts names only while the loop waits for an outcome. So a slow loop slows the sending: at
    most twice ``concurrency`` names are in flight or have an outcome that the loop has not taken.

    If something ends the whole run, the loop first yields the outcomes of names in flight, then raises the error.
    Nothing was sent for names without an outcome. These end a run:

    - an error of the first reads (the cluster, the list of users or databases);
    - an exception from the iterable of names;
    - a refused token (AuthenticationError) or a closed client (ConfigurationError);
    - an outage: at least five names in a row, and at least ``concurrency`` names in a row, got no usable answer in all
      tries.

    To end it early:

    - ``stop()`` starts no more names. The loop continues until the names in flight are done, which may have to wait for
      the rate limit.
    - ``aclose()``, or leaving an ``async with run:``, cancels the names in flight and waits until they have ended.
    - Cancelling the task that runs the loop does the same as ``aclose()``.
    - After ``break``, or an exception in the loop body, the names in flight are cancelled as soon as nothing references
      the run. Until then, another loop over the run continues where the first one ended.

    A request that was cancelled may have been applied.

    If the cluster refuses changes with a 412, because it is being resized or made, the run pauses until it is online.
    After the client's ``max_wait``, or 15 minutes, its names fail with ClusterNotOnlineError.

    A run works once.
    """

    __slots__ = ("__weakref__", "_ended", "_executor")

    def __init__(
        self: Run[DoneT | Failed],
        specs: Iterable[Any] | AsyncIterable[Any],
        job: Job[Any, DoneT],
        concurrency: int | None = None,
    ) -> None:
        if concurrency is not None:
            check_whole("concurrency", concurrency)
        wake = asyncio.Event()
        self._executor: Executor[Any] = Executor(job, Source(specs, wake), wake, concurrency)
        self._ended = False  # on its own, not by ``aclose``
        weakref.finalize(self, self._executor.abandon).atexit = False

    def __aiter__(self) -> Self:
        if self._ended:
            raise ConfigurationError("this run has ended, and a run works once: make another one to repeat it")
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

    if not TYPE_CHECKING:  # for callers without a type checker, which would refuse ``await run``

        def __await__(self) -> Never:
            raise ConfigurationError("a run cannot be awaited: iterate over it with `async for outcome in run`")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def waiting(self) -> str | None:
        """What the run waits for now, such as "the cluster is resizing"; None while the cluster accepts changes."""
        return self._executor.job.pause.waiting

    @property
    def copied(self) -> int:
        """How many bytes a run of ``Tenants.move`` or ``Tenants.dump`` has written to dumps and read from them."""
        return self._executor.job.copied

    @property
    def expected(self) -> timedelta | None:
        """How long until the last name can have been sent, as the rate budget stands.

        None while the number of names is not known: an iterator is counted when it has ended. A run of tenants also has
        to find its cluster first.
        """
        seconds = self._executor.expected
        return None if seconds is None else timedelta(seconds=seconds)

    def stop(self) -> None:
        """Start no more names. The loop ends after the outcomes of the names in flight.

        A name is in flight from its first request on. If its next request waits for the rate budget, that takes up to a
        minute when the minute's requests are used up, and up to an hour when the hour's are. Call ``aclose`` to end at
        once. A name that has changed nothing, because it only read or got a 429, does not wait and gets no outcome. Nor
        does a tenant: running it again finishes it. The reads at the start of the run are cancelled. Safe to repeat,
        and to call in an asyncio signal handler (SIGTERM).
        """
        self._executor.stop()

    async def aclose(self) -> None:
        """Cancel the names in flight, and wait until they have ended.

        A loop that waits for an outcome ends. A cancelled request may have been applied; ``stop`` avoids that. Safe to
        repeat, and to call in any task of the same event loop.
        """
        await self._executor.close()
