"""Show how far a run is: a bar on a terminal, elsewhere a line now and then. All of it on the standard error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .estimate import Pace
from .opening import AnyBudget
from .output import NAME, error_console, note, printable, speaks_json, write_error

_TICK = 0.2  # s between two drawings of the bar
_WORTH_SHOWING = 1.0  # s of waiting for the rate limit
_NARROW = 76  # columns: below, there is no room for the bar and the rate
LINE_EVERY = 30.0  # s between two lines where there is no terminal


class Bar:
    """How far a run is. A context manager, for within an event loop.

    A timer of the event loop draws it. A thread would not do, since a budget is for one thread.

    Args:
        total: The number of names in the run.
        work: The number of names that will take requests.
        budget: The budget that paces the run.
        clock: Tells the seconds that have passed.
        waiting: Tells what the run waits for, or None.
    """

    def __init__(
        self,
        total: int,
        work: int,
        budget: AnyBudget,
        clock: Callable[[], float] = monotonic,
        waiting: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._waiting = waiting
        self._waits_for: str | None = None
        self._budget = budget
        self._clock = clock
        self._console = error_console()
        wide = self._console.width >= _NARROW
        columns = [TextColumn("{task.percentage:>3.0f}%"), BarColumn(bar_width=None)] if wide else []
        self._progress = Progress(
            *columns,
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}" if wide else ""),
            TextColumn("{task.fields[left]}", style="cyan"),
            TextColumn("{task.fields[failures]}", style="red"),
            TextColumn("{task.fields[limit]}", style="yellow"),
            console=self._console,
            auto_refresh=False,
            disable=not self._console.is_terminal or speaks_json.get(),
            expand=wide,
        )
        self._task = self._progress.add_task("", total=total, rate="", left="", failures="", limit="")
        self._limited = "rate limit: {:.0f} s" if wide else "limit {:.0f} s"
        self._total = total
        self._pace = Pace(work, clock=clock)
        self._started = self._ticked = self._said = clock()
        self._done = 0
        self._failed = 0
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

    def advance(self, requests: int) -> None:
        """Count a name that is done and took so many requests."""
        self._done += 1
        self._pace.count(requests)
        self._progress.advance(self._task)

    def fail(self, name: str, reason: str) -> None:
        """Print above the bar why a name failed. With ``--json`` it is on the standard output already."""
        self._failed += 1
        if speaks_json.get():
            return
        text = f"{printable(name)}: {printable(reason)}"
        if self._progress.disable:
            write_error(f"{text}\n")
        else:
            self._console.print(text, style="red", soft_wrap=True)

    def say(self, text: str) -> None:
        """Print ``text`` above the bar."""
        if self._progress.disable:
            note(text)
        else:
            self._console.print(f"{NAME}: {text}", soft_wrap=True)

    def _tick(self) -> None:
        self._draw()
        self._ticking = asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _draw(self) -> None:
        now, budget = self._clock(), self._budget.snapshot()
        waits = budget.waiting > 0 and budget.next_slot > _WORTH_SHOWING
        if not waits:
            self._pace.active += now - self._ticked
        self._ticked = now
        seconds = self._pace.left(zip(self._budget.windows, budget.used, strict=True))
        left = "" if seconds is None or self._done == self._total else str(timedelta(seconds=round(seconds)))
        rate = f"{60 * self._done / max(now - self._started, 1e-3):.0f}/min"
        failures = f"{self._failed} failed" if self._failed else ""
        limit = self._limited.format(budget.next_slot) if waits else ""
        if (waits_for := self._waiting()) is not None:
            limit = f"waiting: {waits_for}"
        if self._progress.disable and waits_for not in (None, self._waits_for):
            note(limit)
        self._waits_for = waits_for
        if self._progress.disable:
            if now - self._said >= LINE_EVERY:
                self._said = now
                parts = [f"{self._done} of {self._total} done", rate, failures, f"{left} left" if left else "", limit]
                note(", ".join(part for part in parts if part))
            return
        self._progress.update(self._task, rate=rate, left=left, failures=failures, limit=limit)
        self._progress.refresh()
