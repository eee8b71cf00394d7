"""Many operations as a stream of outcomes: the one executor behind provision, rotate and deprovision."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from enum import StrEnum
from typing import Any

from attrs import define, field, frozen

from .._request.call import Meter
from ..errors import InvalidArgumentError
from ..models import Database, User


class Action(StrEnum):
    """What became of a name."""

    CREATED = "created"
    KEPT = "kept"
    RESET = "reset"
    DELETED = "deleted"
    ABSENT = "absent"
    FAILED = "failed"


@frozen
class Outcome:
    """What became of one name of a run.

    ``user`` or ``db`` is what is there now, where something is. ``error`` is why a FAILED one failed; its
    ``may_have_applied`` tells whether the server may have done it all the same. ``tries`` is the number of requests
    sent.
    """

    name: str
    action: Action
    user: User | None = None
    db: Database | None = None
    error: Exception | None = None
    tries: int = 0

    @property
    def ok(self) -> bool:
        return self.error is None


Job = Callable[[Any, Meter], Coroutine[Any, Any, Outcome]]
Setup = Callable[[], Awaitable[tuple[Job, int]]]


class Run:
    """A bulk run: iterate over it to do the work. Outcomes come as soon as each is known, in the order of completion.

    Work is begun only while an outcome is being waited for, so a slow consumer slows the sending: at most twice the
    concurrency of names are begun and not yet taken. ``break``, an exception or a cancellation in the loop end the run:
    nothing more is sent and what is in flight is cancelled, at once with ``contextlib.aclosing`` or ``aclose()``, else
    as soon as the run is dropped. A cancelled request may have been applied; ``stop()`` avoids that.
    """

    __slots__ = ("_outcomes", "_work")

    def __init__(self, specs: Iterable[Any] | AsyncIterable[Any], setup: Setup) -> None:
        if isinstance(specs, str | bytes) or not isinstance(specs, Iterable | AsyncIterable):
            raise InvalidArgumentError(f"a run takes an iterable of names, not {type(specs).__name__}")
        self._work = _Work()
        self._outcomes = _outcomes(self._work, specs, setup)

    def __aiter__(self) -> AsyncIterator[Outcome]:
        return self

    def __anext__(self) -> Awaitable[Outcome]:
        return anext(self._outcomes)

    def stop(self) -> None:
        """Start nothing more; the loop ends after the outcomes of what is in flight. For a signal handler (SIGTERM).

        A name of which nothing was sent yet, as it waited for the rate budget, gets no outcome.
        """
        self._work.stop()

    async def aclose(self) -> None:
        """End the run: cancel what is in flight and wait until it has ended."""
        await self._outcomes.aclose()


@define(eq=False)
class _Work:
    """What is under way in a run. Apart from the run, so that dropping that ends its generator."""

    running: dict[asyncio.Future[None], Meter] = field(factory=dict[asyncio.Future[None], Meter])
    done: deque[Outcome] = field(factory=deque[Outcome])
    wake: asyncio.Event = field(factory=asyncio.Event)
    awaited: bool = False  # whether somebody waits for an outcome, for else nothing more may begin
    stopped: bool = False

    def start(self, worker: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(worker)
        self.running[task] = Meter()
        task.add_done_callback(self._ended)

    def begin(self) -> Meter:
        """The meter of what the current task does next."""
        task = asyncio.current_task()
        assert task is not None
        meter = self.running[task] = Meter()
        return meter

    def end(self, outcome: Outcome) -> None:
        self.done.append(outcome)
        self.wake.set()

    def stop(self) -> None:
        self.stopped = True
        for task, meter in self.running.items():
            if meter.requests == 0:
                task.cancel()
        self.wake.set()

    def _ended(self, task: asyncio.Future[None]) -> None:
        del self.running[task]
        self.wake.set()


async def _outcomes(
    work: _Work, specs: Iterable[Any] | AsyncIterable[Any], setup: Setup
) -> AsyncGenerator[Outcome, None]:
    job, concurrency = await setup()
    source = _Source(specs, work.wake)

    def may_begin(more: int) -> bool:
        room = len(work.running) + more + len(work.done) <= 2 * concurrency
        return room and not work.stopped and source.has_next()

    async def worker(spec: Any) -> None:
        work.end(await job(spec, work.begin()))
        while work.awaited and may_begin(0):  # in the place of the one that has ended
            work.end(await job(source.ready.popleft(), work.begin()))

    try:
        while True:
            work.wake.clear()
            while len(work.running) < concurrency and may_begin(1):
                work.start(worker(source.ready.popleft()))
            if work.done:
                yield work.done.popleft()
            elif work.running or (source.pulling is not None and not work.stopped):
                work.awaited = True
                await work.wake.wait()
                work.awaited = False
            else:
                break
        if source.failure is not None:
            raise source.failure
    finally:
        under_way = [*work.running, *([source.pulling] if source.pulling else [])]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


class _Source:
    """The specs of a run, one ahead at the most. A spec of an async iterable is awaited in a task, which sets ``wake``.

    What the iterable raises ends it, and is kept in ``failure`` until what is in flight has ended.
    """

    def __init__(self, specs: Iterable[Any] | AsyncIterable[Any], wake: asyncio.Event) -> None:
        self.ready: deque[Any] = deque(maxlen=1)
        self.pulling: asyncio.Future[Any] | None = None
        self.failure: BaseException | None = None
        self._specs = aiter(specs) if isinstance(specs, AsyncIterable) else iter(specs)
        self._wake = wake
        self._ended = False

    def has_next(self) -> bool:
        """Whether a spec is ``ready``. Sees to it that one will be, if there is one."""
        if self.ready or self._ended or self.pulling is not None:
            return bool(self.ready)
        if isinstance(self._specs, AsyncIterator):
            self.pulling = asyncio.ensure_future(_next(self._specs))
            self.pulling.add_done_callback(self._pulled)
        else:
            try:
                self._take(next(self._specs, _END))
            except Exception as error:  # noqa: BLE001 - it is the caller's own, and raised to the caller
                self._end(error)
        return bool(self.ready)

    def _pulled(self, task: asyncio.Future[Any]) -> None:
        self.pulling = None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._take(task.result())
        else:
            self._end(error)
        self._wake.set()

    def _take(self, spec: Any) -> None:
        if spec is _END:
            self._ended = True
        else:
            self.ready.append(spec)

    def _end(self, error: BaseException) -> None:
        self._ended = True
        self.failure = error


_END = object()


async def _next(specs: AsyncIterator[Any]) -> Any:
    return await anext(specs, _END)
