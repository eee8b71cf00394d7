"""Follow a bulk run: print its outcomes, show its progress on the terminal, and stop it on a signal."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .. import Action, Failed, Run, Window
from ..errors import DatabaseClientError
from ..tenants import TenantDone, TenantPlanOutcome, TenantRemoved
from .output import NAME, Lines, error_console, printable, tell
from .running import DONE, SOME_FAILED, STOPPED, UNUSABLE, AnyBudget, code_of, on_signals

_TICK = 0.2  # s between two drawings of the bar
_WORTH_SHOWING = 1.0  # s of waiting for the rate limit


def seconds_left(names: int, a_second: float, requests: float, windows: Iterable[tuple[Window, int]]) -> float:
    """Estimate how long the rest of a run takes: at its pace so far, but no less than the rate limit makes it take.

    The rate limit lets the first requests through at once, so at first the pace alone would give too short a time.

    Args:
        names: The number of names that are left.
        a_second: The number of names that were done in a second, on average; more than 0.
        requests: The number of requests for a name, on average.
        windows: Each window of the rate limit, with the number of its slots that are taken.

    Returns:
        Seconds.
    """
    paced = names / a_second
    for window, used in windows:
        must_wait = names * requests - max(window.limit - used, 0)
        paced = max(paced, must_wait / window.limit * window.seconds)
    return paced


class Bar:
    """A progress bar on the standard error; none if that is no terminal. A context manager, for within an event loop.

    A timer of the event loop draws it. A thread would not do, since a budget is for one thread.

    Args:
        total: The number of names in the run.
        budget: The budget that paces the run.
    """

    def __init__(self, total: int, budget: AnyBudget) -> None:
        self._budget = budget
        self._console = error_console()
        self._progress = Progress(
            TextColumn("{task.percentage:>3.0f}%"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}", style="cyan"),
            TextColumn("{task.fields[failures]}", style="red"),
            TextColumn("{task.fields[limit]}", style="yellow"),
            console=self._console,
            auto_refresh=False,
            disable=not self._console.is_terminal,
            expand=True,
        )
        self._task = self._progress.add_task("", total=total, rate="", left="", failures="", limit="")
        self._total = total
        self._started = monotonic()
        self._done = 0
        self._failed = 0
        self._requests = 0
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

    def advance(self, outcome: TenantPlanOutcome) -> None:
        """Count a name that is done. If it failed, print its error above the bar."""
        self._done += 1
        self._requests += outcome.tries
        self._progress.advance(self._task)
        if isinstance(outcome, Failed):
            self._failed += 1
            self._console.print(f"{printable(outcome.name)}: {printable(outcome.error)}", style="red", soft_wrap=True)

    def say(self, text: str) -> None:
        """Print ``text`` above the bar."""
        self._console.print(f"{NAME}: {text}", soft_wrap=True)

    def _tick(self) -> None:
        self._draw()
        self._ticking = asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _draw(self) -> None:
        budget = self._budget.snapshot()
        a_second = self._done / max(monotonic() - self._started, 1e-3)
        left = ""
        if self._done:
            windows = zip(self._budget.windows, budget.used, strict=True)
            requests = self._requests / self._done
            left = str(timedelta(seconds=round(seconds_left(self._total - self._done, a_second, requests, windows))))
        waits = budget.waiting > 0 and budget.next_slot > _WORTH_SHOWING
        self._progress.update(
            self._task,
            rate=f"{60 * a_second:.0f}/min",
            left=left,
            failures=f"{self._failed} failed" if self._failed else "",
            limit=f"rate limit: {budget.next_slot:.0f} s" if waits else "",
        )
        self._progress.refresh()


class Stopping:
    """What signals do to a run: the first lets it finish what is in flight, the second cancels it.

    Attributes:
        stopped: Whether a signal came.
    """

    def __init__(self, run: Run[TenantPlanOutcome], bar: Bar) -> None:
        self._run = run
        self._bar = bar
        self._task = asyncio.current_task()
        self.stopped = False

    def stop(self) -> None:
        """Handle a signal."""
        if not self.stopped:
            self._bar.say(
                "stopping: what is in flight is finished, which may wait for the rate limit; press Ctrl-C again, or "
                "send the signal again, to end at once"
            )
            self.stopped = True
            self._run.stop()
        elif self._task is not None:
            self._task.cancel()


async def follow(
    run: Run[TenantPlanOutcome],
    *,
    total: int,
    budget: AnyBudget,
    row: Callable[[TenantDone | TenantRemoved], dict[str, Any]],
    as_json: bool,
) -> int:
    """Do a run to its end, and print its progress and its outcomes.

    Args:
        run: The run.
        total: The number of its names.
        budget: The budget that paces it.
        row: Makes what is printed of a success besides its name and action.
        as_json: Whether to print each outcome as a JSON object; else the number of each kind is printed at the end.

    Returns:
        The exit code.
    """
    counts = Counter[Action]()
    lines = Lines()
    ended: DatabaseClientError | None = None
    try:
        with Bar(total, budget) as bar:
            stopping = Stopping(run, bar)
            on_signals(stopping.stop)
            async with run:
                try:
                    async for outcome in run:
                        counts[outcome.action] += 1
                        bar.advance(outcome)
                        if as_json:
                            told = _failure(outcome.error) if isinstance(outcome, Failed) else row(outcome)
                            lines.write(json.dumps({"name": outcome.name, "action": outcome.action, **told}))
                            if lines.failure is not None:  # nobody can read the outcomes any more
                                run.stop()
                except DatabaseClientError as error:
                    ended = error
    finally:
        if not as_json and (counts or not total):
            done = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
            lines.write(done or "nothing to do")
    if ended is not None:
        tell(str(ended))
        code = code_of(ended)
        return UNUSABLE if code == SOME_FAILED else code
    if lines.failure is not None and not lines.failure.gone:
        tell(f"{lines.failure}; {counts.total()} are done, {total - counts.total()} are left: run it again to go on")
        return UNUSABLE
    if counts.total() < total and (stopping.stopped or lines.failure is not None):
        tell(f"stopped early, {total - counts.total()} are left: run it again to go on")
        return STOPPED
    return SOME_FAILED if counts[Action.FAILED] else DONE


def _failure(error: Exception) -> dict[str, Any]:
    return {"error": str(error), "may_have_applied": getattr(error, "may_have_applied", True)}
