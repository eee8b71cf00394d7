"""``Run``: the caller iterates over it to process many names. Its ``Executor`` does a ``Job`` for each of them."""

from __future__ import annotations

import asyncio
import copy
import math
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sized
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Never, Self, TypeVar

from .._checks import check_whole
from .._http.call import RequestStats
from .._http.pause import Pause
from .._pacing.budget import seconds_for
from ..errors import (
    AuthenticationError,
    ConfigurationError,
    DatabaseClientError,
    InvalidArgumentError,
    InvalidResponseError,
    ServerError,
    TransportError,
)
from .outcomes import Done, Failed, Outcome

SpecT = TypeVar("SpecT")
DoneT = TypeVar("DoneT", bound=Done)
DoneT_co = TypeVar("DoneT_co", bound=Done, covariant=True)
OutcomeT_co = TypeVar("OutcomeT_co", bound=Outcome, covariant=True)

_END = object()

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
    def spec_of(self, given: object) -> SpecT:
        """Return the spec for ``do`` of what the caller gave for one name, or raise InvalidArgumentError."""

    @abstractmethod
    async def prepare(self) -> int:
        """Do the work before the first name, and return how many names to process at a time by default."""

    @abstractmethod
    async def do(self, spec: SpecT, meter: RequestStats) -> DoneT_co:
        """Process one name, with calls that count their requests in ``meter``; an error becomes a Failed outcome."""

    def failed(self, outcome: Failed) -> Failed:
        """Return the outcome of a name that failed, with what else is known of it."""
        return outcome

    def ends_run(self, error: Exception) -> bool:
        """Whether an error of one name ends the run, because every other name would raise it too."""
        return isinstance(error, AuthenticationError | ConfigurationError)


class Executor(Generic[DoneT]):
    """Start names while ``next`` waits for an outcome, and keep the outcomes until ``next`` returns them."""

    # It has no reference to its ``Run``. So an abandoned run is garbage-collected, and that cancels its tasks.

    def __init__(
        self, specs: Iterable[Any] | AsyncIterable[Any], job: Job[Any, DoneT], concurrency: int | None
    ) -> None:
        refuse_no_iterable(specs, "a run")
        self.awaited = False  # whether ``next`` is waiting; otherwise it starts nothing
        self.closed = False
        self.job = job
        self._specs = aiter(specs) if isinstance(specs, AsyncIterable) else iter(specs)
        self._total = len(specs) if isinstance(specs, Sized) else None  # None: not known yet
        self._pulled = 0
        self._ready = deque[Any](maxlen=1)  # the spec that was pulled but not started, if any
        self._pulling: asyncio.Future[Any] | None = None  # waits for the next one
        self._has_ended = False  # the iterable
        self._iterable_failure: BaseException | None = None
        self._wake = asyncio.Event()
        self._concurrency = concurrency
        self._preparing: asyncio.Task[int] | None = None
        self._room = 0  # how many names at a time; 0 until the job is prepared
        self._running: dict[asyncio.Task[None], RequestStats] = {}
        self._done: deque[DoneT | Failed] = deque()
        self._seen = set[str]()  # the names that were started
        self._unanswered = 0  # failed names in a row without a usable answer
        self._failure: BaseException | None = None  # what ended the run
        self._stopped = False
        self._sent = self._requests = 0  # names that ended after a request, and their requests

    async def next(self) -> Any:
        """Wait for the next outcome."""
        while True:
            self._wake.clear()
            self._begin()
            if self._done:
                return self._done.popleft()
            if not self._is_under_way():
                break
            self.awaited = True
            try:
                await self._wake.wait()
            finally:
                self.awaited = False
        failure = self._failure or self._iterable_failure
        if failure is None or self.closed:
            return None
        raise failure

    @property
    def expected(self) -> float | None:
        """For how many seconds the budget keeps the names that are not sent yet, at least; None if not known."""
        budget = self.job.pause.budget
        if self._total is None or budget is None:
            return None
        names = self._total - self._pulled + len(self._ready)
        names += sum(not meter.begun for meter in self._running.values())
        if self._stopped or not names:
            return 0.0
        each = self._requests / self._sent if self._sent else 1.0  # requests of a name
        return seconds_for(math.ceil(names * each), budget)

    def stop(self) -> None:
        """Start nothing more, and cancel names that only wait. Safe to repeat."""
        self._stopped = True
        if self._preparing is not None:
            self._preparing.cancel()
        for task, meter in self._running.items():
            meter.cancel = task.cancel
            if meter.may_end:
                task.cancel()
        self._wake.set()

    async def close(self) -> None:
        """Cancel everything, wait until it has ended, and drop the outcomes. Safe to repeat."""
        self.closed = True
        self._done.clear()
        self.stop()
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def abandon(self) -> None:
        """Cancel everything. Safe in any thread, because the garbage collector calls it."""
        for task in self._tasks():
            loop = task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)

    def _tasks(self) -> list[asyncio.Future[Any]]:
        return [task for task in (*self._running, self._preparing, self._pulling) if task and not task.done()]

    def _is_under_way(self) -> bool:
        pulling = self._pulling is not None and not self._stopped
        return bool(self._running) or pulling or (self._preparing is not None and not self._preparing.done())

    def _begin(self) -> None:
        """Start names while there is room. The first time, prepare the job."""
        if self._room:
            # At most twice ``_room`` names are in progress or have an outcome that the caller has not taken.
            while (
                len(self._running) < min(self._room, 2 * self._room - len(self._done))
                and not self._stopped
                and self._has_next()
            ):
                meter = RequestStats(resumable=self.job.resumable)
                task = asyncio.create_task(self._work(self._ready.popleft(), meter))
                self._running[task] = meter
                task.add_done_callback(self._ended)
        elif self._preparing is None and not self._stopped:
            self._preparing = asyncio.create_task(self.job.prepare())
            self._preparing.add_done_callback(self._prepared)

    def _has_next(self) -> bool:
        """Whether a spec is ready. If none is, pull the next one, or start a task that does."""
        if not self._ready and not self._has_ended and self._pulling is None:
            if isinstance(self._specs, AsyncIterator):
                self._pulling = asyncio.ensure_future(_next(self._specs))
                self._pulling.add_done_callback(self._end_pulling)
            else:
                self._take(partial(next, self._specs, _END))
        return bool(self._ready)

    def _end_pulling(self, task: asyncio.Future[Any]) -> None:
        self._pulling = None
        self._take(task.result)
        self._wake.set()

    def _take(self, pull: Callable[[], Any]) -> None:
        """Make the spec that ``pull`` returns ready. An error of the caller's iterable is for ``next``."""
        try:
            spec = pull()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            if isinstance(error, StopAsyncIteration):  # ``async for`` would end silently
                error = RuntimeError("the iterable of names raised StopAsyncIteration")
            self._has_ended, self._iterable_failure = True, error
            return
        if spec is _END:
            self._has_ended, self._total = True, self._pulled
        else:
            self._pulled += 1
            self._ready.append(spec)

    def _prepared(self, task: asyncio.Task[int]) -> None:
        if task.cancelled():
            if not self._stopped:
                self._failure = _cancelled_elsewhere(0)
        elif (error := task.exception()) is not None:
            self._failure = error
        else:
            self._room = self._concurrency or task.result()
        self._stopped = self._stopped or self._room == 0
        self._wake.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._wake.set()

    async def _work(self, given: Any, meter: RequestStats) -> None:
        """Process one name, and keep its outcome."""
        name = shown_name(given)
        outcome: DoneT | Failed
        try:
            spec = self.job.spec_of(given)
            if name in self._seen:
                raise InvalidArgumentError(
                    f"{name!r} is a duplicate: it came before in this run; nothing was sent for it"
                )
            self._seen.add(name)
            outcome = await self.job.do(spec, meter)
        except Exception as error:  # noqa: BLE001 - a failed name must not stop the others
            outcome = self.job.failed(Failed(name=name, error=error, tries=meter.requests))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            outcome = Failed(name=name, error=_cancelled_elsewhere(meter.requests), tries=meter.requests)
        self._add(outcome)

    def _add(self, outcome: DoneT | Failed) -> None:
        """Keep ``outcome`` for ``next``. Stop the run if every other name would fail in the same way."""
        if self.closed:
            return
        self._done.append(outcome)
        if outcome.tries:
            self._sent += 1
            self._requests += outcome.tries
        self._wake.set()
        error = outcome.error
        if isinstance(error, UNANSWERED) and outcome.tries:
            self._unanswered += 1
        elif outcome.tries:
            self._unanswered = 0
        if error is None or self._failure is not None:
            return
        if self._unanswered >= max(OUTAGE, self._room):
            self._failure = _ending(error, f"{self._unanswered} names in a row got no usable answer")
        elif self.job.ends_run(error):
            self._failure = self.job.ending or _ending(error, "every other name would fail in the same way")
        if self._failure is not None:
            self.stop()


async def _next(specs: AsyncIterator[Any]) -> Any:
    return await anext(specs, _END)


def _cancelled_elsewhere(requests: int) -> DatabaseClientError:
    """Return the error for a job that awaited a task that other code cancelled, such as the token provider's."""
    return DatabaseClientError("a task that this call waited for was cancelled", may_have_applied=requests > 0)


def _ending(error: Exception, why: str) -> Exception:
    """Return a copy of ``error`` for the loop. Its message also says why the run ended, and what was not sent."""
    if not isinstance(error, DatabaseClientError):
        return error
    ending = copy.copy(error)
    ending.args = (f"{error.args[0]}; the run ended here because {why}; nothing was sent for names without an outcome",)
    return ending


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
        self._executor: Executor[Any] = Executor(specs, job, concurrency)
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
        once. A name that has changed nothing, because it only read or got a 429 or 412, does not wait and gets no
        outcome. Nor does a tenant: running it again finishes it. The reads at the start of the run are cancelled. Safe
        to repeat, and to call in an asyncio signal handler (SIGTERM).
        """
        self._executor.stop()

    async def aclose(self) -> None:
        """Cancel the names in flight, and wait until they have ended.

        A loop that waits for an outcome ends. A cancelled request may have been applied; ``stop`` avoids that. Safe to
        repeat, and to call in any task of the same event loop.
        """
        await self._executor.close()


async def listed(specs: Iterable[Any] | AsyncIterable[Any], taker: str = "a plan") -> list[Any]:
    """Return the specs of a plan, or of another ``taker``, as a list."""
    refuse_no_iterable(specs, taker)
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
