"""Show how far a run is: a bar on a terminal, elsewhere a line now and then. All of it on the standard error."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import ceil
from time import monotonic
from types import TracebackType
from typing import Any, Self

from attrs import define, field, frozen
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn

from .. import Action, Run, Window
from .opening import AnyBudget
from .output import NAME, console_of, note, printable, span, speaks_json, wrapped, write_error

_TICK = 0.2  # s between two drawings of the bar
_WORTH_SHOWING = 1.0  # s of waiting for the rate limit
_NARROW = 76  # columns: below, there is no room for the bar and the rate
LINE_EVERY = 30.0  # s between two lines where there is no terminal
_UNTOUCHED = (Action.KEPT, Action.ABSENT)
_MOST_SENT = 5000  # requests in an hour


class Bar:
    """How far a run is. A context manager, for within an event loop.

    A timer of the event loop draws it. A thread would not do, since a budget is for one thread.
    """

    def __init__(
        self, total: int, work: int, budget: AnyBudget, clock: Callable[[], float] = monotonic, *, limited: bool = True
    ) -> None:
        self.run: Run[Any] | None = None
        self._waits_for: str | None = None
        self._budget = budget
        self._clock = clock
        self._limited = limited
        self._console = console_of(stderr=True)
        wide = self._console.width >= _NARROW
        self._progress = Progress(
            *([TaskProgressColumn(), BarColumn(bar_width=None)] if wide else []),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}" if wide else ""),
            TextColumn("{task.fields[left]}", style="cyan"),
            TextColumn("{task.fields[failures]}", style="red"),
            TextColumn("{task.fields[limit]}", style="yellow"),
            console=self._console,
            auto_refresh=False,
            disable=not self._console.is_terminal or speaks_json() or not work,
            expand=wide,
        )
        self._task = self._progress.add_task("", total=total, rate="", left="", failures="", limit="")
        self._limit = "rate limit: {}" if wide else "limit {}"
        self._total = total
        self._pace = Pace(work, clock=clock)
        self._started = self._ticked = self._said = clock()
        self._done = self._failed = 0
        self._untouched = Counter[Action]()
        self._ticking: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        self._tick()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        self._draw()
        self._progress.stop()

    def advance(self, action: Action, requests: int) -> None:
        """Count a name that took so many requests."""
        self._done += 1
        if action in _UNTOUCHED:
            self._untouched[action] += 1
        else:
            self._pace.count(requests)
        self._progress.advance(self._task)

    def fail(self, name: str, reasons: Sequence[str]) -> None:
        """Print above the bar why a name failed. With ``--json`` it is on the standard output already."""
        self._failed += 1
        if speaks_json() or not reasons:
            return
        text = "\n".join(wrapped(f"{name}: {printable(reason)}", sys.stderr) for reason in reasons)
        if self._progress.disable:
            write_error(f"{text}\n")
        else:
            self._console.print(text, style="red", soft_wrap=True)

    def say(self, text: str) -> None:
        """Print ``text`` above the bar."""
        if self._progress.disable:
            note(text)
        else:
            self._console.print(wrapped(f"{NAME}: {text}", sys.stderr), soft_wrap=True)

    def _tick(self) -> None:
        self._draw()
        self._ticking = asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _draw(self) -> None:
        now, budget = self._clock(), self._budget.snapshot()
        shut = budget.next_slot > _WORTH_SHOWING
        waits = shut and budget.waiting > 0
        if not waits:
            self._pace.active += now - self._ticked
        self._ticked = now
        used = zip(self._budget.windows, budget.used, strict=True) if self._limited else ()
        seconds = self._pace.left(used)
        left = "" if seconds is None or self._done == self._total else f"{span(seconds)} left"
        worked = self._done - self._untouched.total()
        rate = f"{60 * worked / max(now - self._started, 1e-3):.0f}/min" if worked else ""
        kept = ", ".join(f"{count} {action}" for action, count in sorted(self._untouched.items()))
        failures = f"{self._failed} failed" if self._failed else ""
        limit = self._limit.format(span(budget.next_slot)) if waits or (shut and self._limited) else ""
        waits_for = None if self.run is None else self.run.waiting
        if waits_for is not None:
            limit = ", ".join(part for part in (f"waiting: {waits_for}", limit) if part)
        if self._progress.disable and waits_for not in (None, self._waits_for):
            note(f"waiting: {waits_for}")
        self._waits_for = waits_for
        if self._progress.disable:
            if now - self._said >= LINE_EVERY:
                self._said = now
                parts = [f"{self._done} of {self._total} done", kept, rate, failures, left, limit]
                note(", ".join(part for part in parts if part))
            return
        rates = " ".join(part for part in (kept, rate) if part)
        self._progress.update(self._task, rate=rates, left=left, failures=failures, limit=limit)
        self._progress.refresh()


@frozen
class Taken:
    """A window of the rate limit, and how far it is used up."""

    window: Window
    free: int
    releases: tuple[tuple[float, int], ...] = ()


def _limited(requests: int, short: Taken, long: Taken) -> float:
    """Seconds until the last request can be sent, if they go in bursts that fill the short window."""
    now = 0.0
    burst, free = short.free, long.free
    releases = deque(long.releases)
    while requests > 0:
        sent = min(burst, requests)
        while free < sent and releases:
            at, count = releases.popleft()
            now = max(now, at)
            free += count
        free -= sent
        requests -= sent
        releases.append((now + long.window.seconds, sent))
        if requests > 0:
            now = max(now, short.releases[0][0]) if not sent and short.releases else now + short.window.seconds
            burst = short.window.limit
    return now


@define
class Pace:
    """How a run gets on. Names that are left as they are do not count."""

    names: int  # that take work, as far as is known
    done: int = 0
    requests: int = 0  # of those that are done
    active: float = 0.0  # s in which the rate limit did not make the run wait
    clock: Callable[[], float] = field(kw_only=True, repr=False)
    _sent: deque[tuple[float, int]] = field(factory=partial(deque[tuple[float, int]], maxlen=_MOST_SENT), init=False)

    def count(self, requests: int) -> None:
        """A name is done that took so many requests."""
        self.done += 1
        self.requests += requests
        if requests:
            self._sent.append((self.clock(), requests))

    def left(self, windows: Iterable[tuple[Window, int]]) -> float | None:
        """Estimate the seconds that are left: at the pace so far, but no less than the rate limit makes it take."""
        names = max(self.names - self.done, 0)
        if not names:
            return 0.0
        if not self.done or not self.active:
            return None
        taken = [self._taken(window, used) for window, used in sorted(windows, key=lambda each: each[0].seconds)]
        limited = _limited(ceil(names * self.requests / self.done), taken[0], taken[-1]) if taken else 0.0
        return max(names * self.active / self.done, limited)

    def _taken(self, window: Window, used: int) -> Taken:
        """What is known of a window. The slots of others are taken to be free after half of it."""
        now = self.clock()
        ours = [(window.seconds - (now - at), count) for at, count in self._sent if now - at < window.seconds]
        others = used - sum(count for _, count in ours)
        if others > 0:
            ours.append((window.seconds / 2, others))
        return Taken(window, max(window.limit - used, 0), tuple(sorted(ours)))
