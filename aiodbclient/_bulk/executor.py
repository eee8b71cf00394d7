"""How a run is done: specs are pulled, names begun and outcomes kept, while the consumer of the run waits for one."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from attrs import define, field

from .._request.call import Meter
from ..errors import (
    DatabaseClientError,
    InvalidArgumentError,
    InvalidResponseError,
    ServerError,
    TransportError,
)
from .job import Job
from .outcomes import Done, Failed
from .specs import Seen, Source, told_name

DoneT = TypeVar("DoneT", bound=Done)

# So many names in a row that failed for want of any usable answer are an outage, and no longer bad luck of each.
_OUTAGE = 5


@define(eq=False, repr=False)
class Executor(Generic[DoneT]):
    """What is under way in a run. Apart from the run, so that dropping that can end it."""

    job: Job[Any, DoneT]
    source: Source
    wake: asyncio.Event
    concurrency: int | None
    ended: bool = False  # by itself: every outcome was taken, or it raised
    closed: bool = False  # by ``close``
    stopped: bool = False
    awaited: bool = False  # whether the consumer waits for an outcome, for else nothing more may begin
    _preparing: asyncio.Task[int] | None = None
    _room: int = 0  # names that may be under way at a time; 0 until the job is prepared
    _running: dict[asyncio.Task[None], Meter] = field(factory=dict[asyncio.Task[None], Meter])
    _done: deque[DoneT | Failed] = field(factory=deque[DoneT | Failed])
    _seen: Seen = field(factory=Seen)
    _unanswered: int = 0  # names in a row that failed for want of a usable answer
    _failure: BaseException | None = None

    async def next(self) -> Any:
        """The next outcome (``DoneT | Failed``), or None where there is none any more. Raises what ended the run."""
        while True:
            self.wake.clear()
            if self._room:
                while len(self._running) < self._room and self._may_begin(1):
                    self._start(self._worker(self.source.ready.popleft()))
            elif self._preparing is None and not self.stopped:
                self._preparing = asyncio.create_task(self.job.prepare(Meter()))
                self._preparing.add_done_callback(self._prepared)
            if self._done:
                return self._done.popleft()
            if not self._under_way():
                break
            self.awaited = True
            try:
                await self.wake.wait()
            finally:
                self.awaited = False
        failure = self._failure or self.source.failure
        if failure is None or self.closed:
            return None
        raise failure

    def stop(self) -> None:
        self.stopped = True
        if self._preparing is not None:
            self._preparing.cancel()
        for task, meter in self._running.items():
            if meter.requests == 0:
                task.cancel()
        self.wake.set()

    async def close(self) -> None:
        self.closed = True
        self._done.clear()
        await asyncio.gather(*self._cancel(), return_exceptions=True)

    def abandon(self) -> None:
        """Cancel everything, from whatever thread drops the run."""
        for task in self._tasks():
            loop = task.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)

    def _cancel(self) -> list[asyncio.Future[Any]]:
        self.stop()
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        return tasks

    def _tasks(self) -> list[asyncio.Future[Any]]:
        return [task for task in (*self._running, self._preparing, self.source.pulling) if task and not task.done()]

    def _under_way(self) -> bool:
        pulling = self.source.pulling is not None and not self.stopped
        return bool(self._running) or pulling or (self._preparing is not None and not self._preparing.done())

    def _prepared(self, task: asyncio.Task[int]) -> None:
        if task.cancelled():
            if not self.stopped:
                self._failure = _cancelled_elsewhere(Meter())
        elif (error := task.exception()) is not None:
            self._failure = error
        else:
            self._room = self.concurrency or task.result()
        self.stopped = self.stopped or self._room == 0
        self.wake.set()

    def _may_begin(self, more: int) -> bool:
        room = len(self._running) + more + len(self._done) <= 2 * self._room
        return room and not self.stopped and self.source.has_next()

    def _start(self, worker: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(worker)
        self._running[task] = Meter()
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self.wake.set()

    async def _worker(self, given: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        while True:
            meter = self._running[task] = Meter()
            self._take(await self._outcome(given, meter))
            if not (self.awaited and self._may_begin(0)):
                return
            given = self.source.ready.popleft()  # in the place of the one that has ended

    async def _outcome(self, given: Any, meter: Meter) -> DoneT | Failed:
        name = told_name(given)
        try:
            spec = self.job.check(given)
            if not self._seen.add(name):
                raise InvalidArgumentError(
                    f"{name!r} is a duplicate: it came before in this run, and nothing was sent for it"
                )
            return await self.job.do(spec, meter)
        except Exception as error:  # noqa: BLE001 - one failure, whatever it is, never stops the others
            return Failed(name=name, error=error, tries=meter.requests)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return Failed(name=name, error=_cancelled_elsewhere(meter), tries=meter.requests)

    def _take(self, outcome: DoneT | Failed) -> None:
        """Hand on ``outcome``, and end the run where it tells that no other name would fare better."""
        if self.closed:
            return
        self._done.append(outcome)
        self.wake.set()
        if outcome.error is None or outcome.tries == 0:
            self._unanswered = 0 if outcome.tries else self._unanswered
        elif isinstance(outcome.error, TransportError | ServerError | InvalidResponseError):
            self._unanswered += 1
        else:
            self._unanswered = 0
        outage = self._unanswered >= max(_OUTAGE, self._room)
        if outcome.error is not None and self._failure is None and (outage or self.job.ends_run(outcome.error)):
            self._failure = _ending(outcome.error, self._unanswered if outage else 0)
            self.stop()


def _cancelled_elsewhere(meter: Meter) -> DatabaseClientError:
    """For a job that nobody cancelled: it awaited something that was, such as the caller's token provider."""
    return DatabaseClientError("what it waited for was cancelled", may_have_applied=meter.requests > 0)


def _ending(error: Exception, unanswered: int) -> Exception:
    """``error`` as the run raises it, telling what it means for the names that are left."""
    if not isinstance(error, DatabaseClientError):
        return error
    why = f"{unanswered} names in a row got no usable answer" if unanswered else "no other name would fare better"
    told = copy.copy(error)
    told.args = (f"{error.args[0]}; the run ended here, since {why}: nothing was sent for a name without an outcome",)
    return told
