"""Execute a run: the tasks of the names in progress, and the outcomes that the caller has not taken yet."""

from __future__ import annotations

import asyncio
import copy
import math
from collections import deque
from typing import Any, Generic, TypeVar

from .._pacing.budget import Pacer, seconds_for
from .._request.call import Meter
from ..errors import DatabaseClientError, InvalidArgumentError
from .job import OUTAGE, UNANSWERED, Job
from .outcomes import Done, Failed
from .specs import Source, shown_name

DoneT = TypeVar("DoneT", bound=Done)


class Executor(Generic[DoneT]):
    """Start names while ``next`` waits for an outcome, and keep the outcomes until ``next`` returns them."""

    # It has no reference to its ``Run``. So an abandoned run is garbage-collected, and that cancels its tasks.

    def __init__(self, job: Job[Any, DoneT], source: Source, wake: asyncio.Event, concurrency: int | None) -> None:
        self.awaited = False  # whether ``next`` is waiting; otherwise it starts nothing
        self.closed = False
        self.job = job
        self._source = source
        self._wake = wake
        self._concurrency = concurrency
        self._preparing: asyncio.Task[int] | None = None
        self._room = 0  # how many names at a time; 0 until the job is prepared
        self._running: dict[asyncio.Task[None], Meter] = {}
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
        failure = self._failure or self._source.failure
        if failure is None or self.closed:
            return None
        raise failure

    @property
    def expected(self) -> float | None:
        """For how many seconds the budget keeps the names that are not sent yet, at least; None if not known."""
        budget, total = self.job.pause.budget, self._source.total
        if total is None or not isinstance(budget, Pacer):
            return None
        names = total - self._source.pulled + len(self._source.ready)
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
        return [task for task in (*self._running, self._preparing, self._source.pulling) if task and not task.done()]

    def _is_under_way(self) -> bool:
        pulling = self._source.pulling is not None and not self._stopped
        return bool(self._running) or pulling or (self._preparing is not None and not self._preparing.done())

    def _begin(self) -> None:
        """Start names while there is room. The first time, prepare the job."""
        if self._room:
            # At most twice ``_room`` names are in progress or have an outcome that the caller has not taken.
            while (
                len(self._running) < min(self._room, 2 * self._room - len(self._done))
                and not self._stopped
                and self._source.has_next()
            ):
                meter = Meter(resumable=self.job.resumable)
                task = asyncio.create_task(self._work(self._source.ready.popleft(), meter))
                self._running[task] = meter
                task.add_done_callback(self._ended)
        elif self._preparing is None and not self._stopped:
            self._preparing = asyncio.create_task(self.job.prepare())
            self._preparing.add_done_callback(self._prepared)

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

    async def _work(self, given: Any, meter: Meter) -> None:
        """Process one name, and keep its outcome."""
        name = shown_name(given)
        outcome: DoneT | Failed
        try:
            spec = self.job.check(given)
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
