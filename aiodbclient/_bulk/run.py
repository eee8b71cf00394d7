"""``Run``: a bulk run. It does a ``Job`` for each of many names, and yields their outcomes."""

from __future__ import annotations

import asyncio
import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Generator, Iterable, Sized
from datetime import timedelta
from typing import Any, Generic, TypeVar

from .._checks import check_whole
from .._http.call import RequestStats
from .._http.maintenance import MaintenanceWait
from .._http.retry import with_message
from .._pacing.limiter import RateLimiter
from ..errors import (
    AuthenticationError,
    ConfigurationError,
    DatabaseClientError,
    InvalidArgumentError,
    InvalidResponseError,
    ServerError,
    TransportError,
)
from .outcomes import Done, Failed, Outcome, Outcomes

SpecT = TypeVar("SpecT")
DoneT = TypeVar("DoneT", bound=Done)
FailedT = TypeVar("FailedT", bound=Failed)
DoneT_co = TypeVar("DoneT_co", bound=Done, covariant=True)
FailedT_co = TypeVar("FailedT_co", bound=Failed, covariant=True)
OutcomeT_co = TypeVar("OutcomeT_co", bound=Outcome, covariant=True)

_EXHAUSTED = object()

# If this many names in a row fail without a usable answer, it is an outage: the next name would most likely fail too.
OUTAGE_AFTER = 5
NO_USABLE_ANSWER = (TransportError, ServerError, InvalidResponseError)


class Job(ABC, Generic[SpecT, DoneT_co, FailedT_co]):
    """The work of one bulk run: once at its start, and for each name. May be cancelled at any await."""

    def __init__(self, rate_limiter: RateLimiter | None = None) -> None:
        self.rate_limiter = rate_limiter
        self.maintenance: MaintenanceWait = MaintenanceWait()

    @abstractmethod
    def parse(self, given: object) -> SpecT:
        """Return the spec for ``do`` of what the caller gave for one name, or raise InvalidArgumentError."""

    @abstractmethod
    async def prepare(self) -> int:
        """Do the work before the first name, and return how many names to process at a time by default."""

    @abstractmethod
    async def do(self, spec: SpecT, stats: RequestStats) -> DoneT_co:
        """Process one name, with calls that count their requests in ``stats``; an error becomes a failed outcome."""

    @abstractmethod
    def failed(self, name: str, error: Exception, requests: int) -> FailedT_co:
        """Return the outcome of a name that failed."""

    def ends_run(self, error: Exception) -> bool:
        """Whether an error of one name ends the run, because every other name would raise it too."""
        return isinstance(error, AuthenticationError | ConfigurationError)


class Run(Generic[OutcomeT_co]):
    """A bulk run. ``outcomes = await run``, or ``async for outcome in run`` to get each outcome as soon as it is known.

    ``await`` returns Outcomes, in the order of the names. ``async for`` yields them in the order of completion. A run
    starts when you await or iterate it, and only once. If you do neither, Python shows a RuntimeWarning.

    A failed name is an outcome too (``outcome.error``), and does not stop the others. A slow loop slows the run: at
    most twice ``concurrency`` names are in progress, or have an outcome that the loop has not taken.

    These end a run early. The loop first yields the outcomes of the names in progress, then raises the error:

    - an error of the first reads (the cluster, the list of users or databases);
    - an exception from the iterable of names;
    - a refused token (AuthenticationError) or a closed client (ConfigurationError);
    - an outage: no try of the last five names, or of the last ``concurrency`` names if that is more, got a usable
      answer.

    Names without an outcome are then unchanged, as they are after ``stop()``. Leaving the loop in another way cancels
    all names: ``break``, an exception in its body, a cancelled task, ``aclose()``. Then up to ``concurrency`` names
    without an outcome may have been changed. ``run.outcomes`` has the outcomes in both cases, also those that the loop
    has not taken. Run it again to continue.

    If the cluster refuses changes with a 412, because it is being resized or made, the run waits until it is online.
    After 15 minutes, its names fail with ClusterNotOnlineError.
    """

    _iterated = True  # until ``__init__`` has ended

    def __init__(
        self: Run[DoneT | FailedT],
        specs: Iterable[Any] | AsyncIterable[Any],
        job: Job[Any, DoneT, FailedT],
        concurrency: int | None = None,
    ) -> None:
        check_iterable(specs, "a run")
        if concurrency is not None:
            check_whole("concurrency", concurrency)
        self._specs = aiter(specs) if isinstance(specs, AsyncIterable) else iter(specs)
        self._total = len(specs) if isinstance(specs, Sized) else None  # None: not known yet
        self._pulled = 0
        self._pulling = asyncio.Lock()
        self._specs_ended = False
        self._names = set[str]()  # the names that were begun
        self._job = job
        self._concurrency = concurrency
        # The tasks that have not ended, each with the requests of its name; None while ``stop`` must not cancel it.
        self._tasks: dict[asyncio.Task[None], RequestStats | None] = {}
        self._queue: asyncio.Queue[Any] = asyncio.Queue()  # outcomes, and tasks that have ended
        self._permits = asyncio.Semaphore(0)  # names that may be begun, which bounds ``_queue``
        # By the place among the names: what was given without an outcome yet, and the outcomes.
        self._begun: dict[int, tuple[Any, RequestStats]] = {}
        self._outcomes: dict[int, Any] = {}
        self._stopped = False
        self._failure: BaseException | None = None  # what ends the run
        self._unanswered = 0  # failed names in a row without a usable answer
        self._iterated = False

    async def __aiter__(self) -> AsyncIterator[OutcomeT_co]:
        if self._iterated:
            raise ConfigurationError("this run was used before, and a run works once: make another one to repeat it")
        self._iterated = True
        if not self._stopped:
            self._start_task(self._prepare())
        try:
            while self._tasks:
                item = await self._queue.get()
                if isinstance(item, asyncio.Task):
                    self._end_task(item)
                else:
                    yield item
                    self._permits.release()
        finally:
            await self.aclose()
        if self._failure is not None:
            raise self._failure

    def __await__(self) -> Generator[Any, None, Outcomes[OutcomeT_co]]:
        return self._collect().__await__()

    def __del__(self) -> None:
        if not (self._iterated or self._stopped):
            message = "a run was never awaited or iterated: nothing was done"
            warnings.warn(message, RuntimeWarning, stacklevel=2, source=self)

    @property
    def outcomes(self) -> Outcomes[OutcomeT_co]:
        """The outcomes so far, in the order of the names. Use it after an exception or a cancellation.

        A run keeps all its outcomes, also those that the loop has taken.
        """
        return Outcomes(self._outcomes[place] for place in sorted(self._outcomes))

    @property
    def expected(self) -> timedelta | None:
        """The least time until the run begins its last name, by the current state of the rate limit.

        None while the number of names is not known: an iterator is counted when it has ended. Also None for a run
        that sends hardly any requests to the API.
        """
        limiter = self._job.rate_limiter
        if self._total is None or limiter is None:
            return None
        begun = sum(stats is not None and stats.requests > 0 for stats in self._tasks.values())
        names = 0 if self._stopped else self._total - len(self._outcomes) - begun
        return timedelta(seconds=limiter.estimate_wait(names - 1, bulk=True) if names else 0.0)

    def stop(self) -> None:
        """Begin no more names. The loop ends after the outcomes of the names in progress.

        A name is in progress from its first write on, unless the API refused that write. Its next request may wait for
        the rate limit: up to a minute if the minute's requests are used up, and up to an hour if the hour's are. To end
        at once, call ``aclose``. All other names are cancelled, and unchanged. Safe to repeat, and to call in a signal
        handler of asyncio (SIGTERM).
        """
        self._stopped = True
        for task, stats in self._tasks.items():
            if stats is not None:
                stats.stopped = True
                if stats.gives_up:
                    task.cancel()

    async def aclose(self) -> None:
        """Cancel all names, and wait until they have ended.

        A loop that waits for an outcome ends. A cancelled request may have been applied; ``stop`` avoids that. Safe to
        repeat, and to call in any task of the same event loop.
        """
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _collect(self) -> Outcomes[OutcomeT_co]:
        async for _ in self:
            pass
        last = max(self._outcomes, default=0)
        for place, (given, stats) in self._begun.items():  # ``stop`` cancelled them
            if place < last:  # so that the outcomes are of the first names, without a gap
                error = DatabaseClientError("the run was stopped before this name was changed: run it again")
                self._outcomes[place] = self._job.failed(_name_of(given), error, stats.requests)
        return self.outcomes

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.setdefault(task, RequestStats())  # an eager task has stored its own by now
        task.add_done_callback(self._queue.put_nowait)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        """Note that a task has ended, and why, if it should not have."""
        self._tasks.pop(task, None)
        error = _cancelled_elsewhere(0) if task.cancelled() else task.exception()
        if error is not None and not (task.cancelled() and self._stopped):
            self._failure = self._failure or error

    async def _prepare(self) -> None:
        """Prepare the job, and begin the workers."""
        at_a_time = await self._job.prepare()
        self._concurrency = self._concurrency or at_a_time
        for _ in range(self._concurrency):
            self._start_task(self._work())
            self._permits.release()
            self._permits.release()

    async def _work(self) -> None:
        """Process one name after another."""
        task = asyncio.current_task()
        assert task is not None
        while True:
            stats = self._tasks[task] = RequestStats()
            await self._permits.acquire()
            place, given = await self._next_spec()
            if given is _EXHAUSTED:
                return
            self._begun[place] = given, stats
            self._outcomes[place] = outcome = await self._outcome_of(given, stats)
            self._tasks[task] = None
            del self._begun[place]
            self._queue.put_nowait(outcome)
            self._stop_if_all_would_fail(outcome)

    async def _next_spec(self) -> tuple[int, Any]:
        """Return the place of the next name, and what the caller gave for it, or ``_EXHAUSTED``."""
        async with self._pulling:
            if self._stopped or self._specs_ended:
                return self._pulled, _EXHAUSTED
            self._specs_ended = True  # also if the iterable raises
            if isinstance(self._specs, AsyncIterator):
                given = await anext(self._specs, _EXHAUSTED)
            else:
                given = next(self._specs, _EXHAUSTED)
            if given is _EXHAUSTED:
                self._total = self._pulled
            else:
                self._specs_ended = False
                self._pulled += 1
            return self._pulled, given

    async def _outcome_of(self, given: Any, stats: RequestStats) -> Outcome:
        name = _name_of(given)
        error: Exception
        try:
            spec = self._job.parse(given)
            if name in self._names:
                raise InvalidArgumentError(
                    f"{name!r} is a duplicate: it came before in this run; nothing was sent for it"
                )
            self._names.add(name)
            return await self._job.do(spec, stats)
        except Exception as failure:  # noqa: BLE001 - a failed name must not stop the others
            error = failure
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error = _cancelled_elsewhere(stats.requests)
        return self._job.failed(name, error, stats.requests)

    def _stop_if_all_would_fail(self, outcome: Outcome) -> None:
        """Count an outcome. Stop the run if every other name would fail in the same way."""
        error = outcome.error
        if outcome.requests:
            self._unanswered = self._unanswered + 1 if isinstance(error, NO_USABLE_ANSWER) else 0
        if error is None or self._failure is not None:
            return
        if self._unanswered >= max(OUTAGE_AFTER, self._concurrency or 0):
            self._failure = _error_of_run(error, f"{self._unanswered} names in a row got no usable answer")
        elif self._job.ends_run(error):
            self._failure = _error_of_run(error, "every other name would fail in the same way")
        if self._failure is not None:
            self.stop()


def _name_of(given: Any) -> str:
    name = getattr(given, "name", given)
    return name if isinstance(name, str) else repr(given)


def _cancelled_elsewhere(requests: int) -> DatabaseClientError:
    """Return the error for a job that awaited a task that other code cancelled, such as the token provider's."""
    return DatabaseClientError("a task that this call waited for was cancelled", may_have_applied=requests > 0)


def _error_of_run(error: Exception, why: str) -> Exception:
    """Return a copy of ``error`` for the loop. Its message also says why the run ended, and what was not changed."""
    if not isinstance(error, DatabaseClientError):
        return error
    text = (
        f"the run ended here because {why}; names without an outcome were not changed; the last error: {error.args[0]}"
    )
    so_far = "run.outcomes has the outcomes so far"
    return with_message(error, text, advice=f"{error.advice}; {so_far}" if error.advice else so_far)


def check_iterable(specs: object, taker: str) -> None:
    """Refuse what is no iterable of names."""
    if isinstance(specs, str | bytes) or not isinstance(specs, Iterable | AsyncIterable):
        raise InvalidArgumentError(f"{taker} takes an iterable of names, not {type(specs).__name__}; nothing was sent")


def parse_name(given: object, *models: type) -> str:
    """Return ``given`` if it is a name, or its name if it is one of the ``models``."""
    name = getattr(given, "name", None) if isinstance(given, models) else given
    if isinstance(name, str):
        return name
    raise InvalidArgumentError(f"a name is a string, not {given!r}; nothing was sent")
