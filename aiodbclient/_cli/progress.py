"""Show how far a run is: a bar on a terminal, elsewhere a line now and then. All of it on the standard error."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn

from .. import Action, Run
from .output import NAME, console_of, note, printable, span, speaks_json, wrapped, write_error

if TYPE_CHECKING:
    from .. import RateLimiter

_TICK = 0.2  # s between two drawings of the bar
_WORTH_SHOWING = 1.0  # s of waiting for the rate limit
_NARROW = 76  # columns: below, there is no room for the bar and the rate
LINE_EVERY = 30.0  # s between two lines where there is no terminal
_UNTOUCHED = (Action.KEPT, Action.ABSENT)
_PACE = 3600.0  # s over which the pace is measured: the rate limit allows bursts


class Bar:
    """How far a run is. A context manager, for within an event loop.

    A timer of the event loop draws it. A thread would not do, since a budget is for one thread.
    """

    def __init__(self, total: int, work: int, budget: RateLimiter, clock: Callable[[], float] = monotonic) -> None:
        self.run: Run[Any] | None = None
        self._budget = budget
        self._clock = clock
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
            speed_estimate_period=_PACE,
            get_time=clock,
        )
        self._work = self._progress.add_task("", total=work, visible=False)  # without what is left as it is
        self._task = self._progress.add_task("", total=total, rate="", left="", failures="", limit="")
        self._limit = "rate limit: {}" if wide else "limit {}"
        self._total = total
        self._started = self._said = clock()
        self._done = self._failed = 0
        self._untouched = Counter[StrEnum]()
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

    def advance(self, action: StrEnum) -> None:
        """Count a name."""
        self._done += 1
        if action in _UNTOUCHED:
            self._untouched[action] += 1
        else:
            self._progress.advance(self._work)
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
        seconds = self._progress.tasks[0].time_remaining
        left = "" if seconds is None or self._done == self._total else f"{span(seconds)} left"
        worked = self._done - self._untouched.total()
        rate = f"{60 * worked / max(now - self._started, 1e-3):.0f}/min" if worked else ""
        kept = ", ".join(f"{count} {action}" for action, count in sorted(self._untouched.items()))
        failures = f"{self._failed} failed" if self._failed else ""
        limit = self._limit.format(span(budget.next_slot)) if budget.next_slot > _WORTH_SHOWING else ""
        if self._progress.disable:
            if now - self._said >= LINE_EVERY:
                self._said = now
                parts = [f"{self._done} of {self._total} done", kept, rate, failures, left, limit]
                note(", ".join(part for part in parts if part))
            return
        rates = " ".join(part for part in (kept, rate) if part)
        self._progress.update(self._task, rate=rates, left=left, failures=failures, limit=limit)
        self._progress.refresh()
