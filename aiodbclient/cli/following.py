"""Follow a bulk run: print its outcomes, show its progress, and stop it on a signal."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import frozen

from .. import Action, Failed, Outcome, Run
from ..errors import DatabaseClientError
from .opening import AnyBudget
from .output import Lines, complain, tell, this_command
from .progress import Bar
from .running import DONE, SOME_FAILED, STOPPED, UNUSABLE, code_of, message_of, on_signals

OutcomeT = TypeVar("OutcomeT", bound=Outcome)


@frozen(kw_only=True)
class Shown:
    """What is printed of each outcome.

    Attributes:
        as_json: Whether to print each outcome as a JSON object.
        row: Makes what is printed of a success besides its name and action.
        details: Makes what is printed of a success without ``as_json``, before the end of the line; empty for nothing.
    """

    as_json: bool
    row: Callable[[Any], dict[str, Any]] = lambda outcome: {}
    details: Callable[[Any], str] = lambda outcome: ""


class Stopping:
    """What signals do to a run: the first lets it finish what is in flight, the second cancels it.

    Attributes:
        stopped: Whether a signal came.
    """

    def __init__(self, run: Run[Any], bar: Bar) -> None:
        self._run = run
        self._bar = bar
        self._task = asyncio.current_task()
        self.stopped = False

    def stop(self) -> None:
        """Handle a signal."""
        if not self.stopped:
            self._bar.say(
                "stopping: what is in flight is finished, which may wait for the rate limit. Press Ctrl-C again, or "
                "send the signal again, to end at once"
            )
            self.stopped = True
            self._run.stop()
        elif self._task is not None:
            self._task.cancel()


async def follow(run: Run[OutcomeT], *, total: int, budget: AnyBudget, shown: Shown, work: int | None = None) -> int:
    """Do a run to its end, and print its progress and its outcomes.

    Args:
        run: The run.
        total: The number of its names.
        budget: The budget that paces it.
        shown: What to print of each outcome.
        work: The number of names that will take requests; None: all.

    Returns:
        The exit code.
    """
    counts = Counter[Action]()
    lines = Lines()
    ended: DatabaseClientError | None = None
    at_once = False
    stopping: Stopping | None = None
    try:
        with Bar(total, total if work is None else work, budget) as bar:
            stopping = Stopping(run, bar)
            on_signals(stopping.stop)
            async with run:
                try:
                    async for outcome in run:
                        counts[outcome.action] += 1
                        bar.advance(outcome.tries)
                        if isinstance(outcome, Failed):
                            bar.fail(outcome.name, message_of(outcome.error, retried=True))
                        _print(outcome, shown, lines)
                        if lines.failure is not None:  # nobody can read the outcomes any more
                            run.stop()
                except DatabaseClientError as error:
                    ended = error
    except asyncio.CancelledError:
        at_once = True
    finally:
        if not shown.as_json and (counts or not total):
            done = ", ".join(f"{count} {action}" for action, count in sorted(counts.items()))
            lines.write(done or "nothing to do")
    return _end(
        counts, total - counts.total(), lines, ended, at_once=at_once, stopped=stopping is not None and stopping.stopped
    )


def _print(outcome: Any, shown: Shown, lines: Lines) -> None:
    failed = isinstance(outcome, Failed)
    if shown.as_json:
        members = _failure(outcome.error) if failed else shown.row(outcome)
        lines.write(json.dumps({"name": outcome.name, "action": outcome.action, **members}))
    elif not failed and (details := shown.details(outcome)):
        lines.write(details)


def _end(
    counts: Counter[Action], left: int, lines: Lines, ended: DatabaseClientError | None, *, at_once: bool, stopped: bool
) -> int:
    """Say how the run ended, and how to go on. Returns the exit code."""
    go_on = f"To go on, run it again: {this_command()}"
    if ended is not None:
        code = code_of(ended)
        code = UNUSABLE if code == SOME_FAILED else code
        complain(message_of(ended, retried=True), code)
        return code
    if lines.failure is not None and not lines.failure.gone:
        complain(f"{lines.failure}; {counts.total()} are done, {left} are left. {go_on}", UNUSABLE)
        return UNUSABLE
    if at_once or (left > 0 and (stopped or lines.failure is not None)):
        complain(f"stopped early: {counts.total()} are done, {left} are left. {go_on}", STOPPED)
        return STOPPED
    if counts[Action.FAILED]:
        tell(f"{counts[Action.FAILED]} failed. To try them again, run it again: {this_command()}")
        return SOME_FAILED
    return DONE


def _failure(error: Exception) -> dict[str, Any]:
    return {
        "error": message_of(error, retried=True),
        "type": type(error).__name__,
        "may_have_applied": getattr(error, "may_have_applied", True),
    }
