"""Follow a bulk run: print its outcomes, show its progress, and stop it on a signal."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define, field, frozen

from .. import Action, Failed, Outcome, Run
from ..errors import (
    ConflictError,
    DatabaseClientError,
    InvalidArgumentError,
    RotationPendingError,
    SettingsDifferError,
    UnsupportedOperationError,
)
from .opening import AnyBudget
from .output import Lines, complain, note, this_command
from .running import DONE, SOME_FAILED, STOPPED, UNUSABLE, code_of, message_of, on_signals

if TYPE_CHECKING:
    from .progress import Bar

# Running the same command again does not help against these.
_FINAL = (ConflictError, InvalidArgumentError, RotationPendingError, SettingsDifferError, UnsupportedOperationError)
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
    """What signals do to a run: the first lets it finish what is in flight, the second cancels it."""

    def __init__(self, run: Run[Any], bar: Bar, tally: Tally) -> None:
        self._run = run
        self._bar = bar
        self._tally = tally
        self._task = asyncio.current_task()

    def stop(self) -> None:
        """Handle a signal."""
        if not self._tally.stopped:
            self._bar.say(
                "stopping: what is in flight is finished, which may wait for the rate limit. Press Ctrl-C again, or "
                "send the signal again, to end at once"
            )
            self._tally.stopped = True
            self._run.stop()
        elif self._task is not None:
            self._task.cancel()


@define
class Tally:
    """What became of a run so far.

    Attributes:
        total: The number of its names.
        counts: How many outcomes there are of each action.
        again: How many of those that failed may succeed if the same command is run again.
        error: What ended the whole run, if anything did.
        stopped: Whether a signal stopped it.
        at_once: Whether a second signal ended it.
        once: Whether the work must not be done twice, so that running the command again must skip what is done.
        started: When it began.
    """

    total: int
    once: bool = False
    started: float = field(factory=monotonic)
    counts: Counter[Action] = field(factory=Counter[Action])
    again: int = 0
    error: DatabaseClientError | None = None
    stopped: bool = False
    at_once: bool = False

    def count(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.counts[outcome.action] += 1
        if isinstance(outcome, Failed):
            self.again += not isinstance(outcome.error, _FINAL)


async def follow(
    run: Run[OutcomeT], *, total: int, budget: AnyBudget, shown: Shown, work: int | None = None, once: bool = False
) -> int:
    """Do a run to its end, and print its progress and its outcomes.

    Args:
        run: The run.
        total: The number of its names.
        budget: The budget that paces it.
        shown: What to print of each outcome.
        work: The number of names that will take requests; None: all.
        once: Whether the work must not be done twice. Then the command takes ``--older-than``.

    Returns:
        The exit code.
    """
    from .progress import Bar  # slow to import, and not needed for help

    tally, lines = Tally(total, once), Lines()
    try:
        with Bar(total, total if work is None else work, budget, waiting=lambda: run.waiting) as bar:
            on_signals(Stopping(run, bar, tally).stop)
            async with run:
                try:
                    async for outcome in run:
                        tally.count(outcome)
                        bar.advance(outcome.tries)
                        if isinstance(outcome, Failed):
                            bar.fail(outcome.name, message_of(outcome.error, retried=True))
                        _print(outcome, shown, lines)
                        if lines.failure is not None:  # nobody can read the outcomes any more
                            run.stop()
                except DatabaseClientError as error:
                    tally.error = error
    except asyncio.CancelledError:
        tally.at_once = True
    finally:
        if not shown.as_json and (tally.counts or not total):
            done = ", ".join(f"{count} {action}" for action, count in sorted(tally.counts.items()))
            lines.write(done or "nothing to do")
    return _end(tally, lines)


def _print(outcome: Any, shown: Shown, lines: Lines) -> None:
    failed = isinstance(outcome, Failed)
    if shown.as_json:
        members = _failure(outcome.error) if failed else shown.row(outcome)
        lines.write(json.dumps({"name": outcome.name, "action": outcome.action, **members}))
    elif not failed and (details := shown.details(outcome)):
        lines.write(details)


def _end(tally: Tally, lines: Lines) -> int:
    """Say how the run ended, and how to go on. Returns the exit code."""
    done, failed = tally.counts.total(), tally.counts[Action.FAILED]
    left = tally.total - done
    progress = f"{done - failed} are done, {f'{failed} failed, ' if failed else ''}{left} are left. "
    progress += (
        "Do not run it again" if tally.once and not left + failed else f"To go on, run it again: {_again(tally)}"
    )
    if tally.error is not None:
        code = code_of(tally.error)
        code = UNUSABLE if code == SOME_FAILED else code
        complain(message_of(tally.error, retried=True) + (f"; {progress}" if done else ""), code)
        return code
    if lines.failure is not None and not lines.failure.gone:
        complain(f"{lines.failure}; {progress}", UNUSABLE)
        return UNUSABLE
    if tally.at_once or (left > 0 and (tally.stopped or lines.failure is not None)):
        complain(f"stopped early: {progress}", STOPPED)
        return STOPPED
    if not tally.counts[Action.FAILED]:
        return DONE
    if tally.again:
        note(f"{tally.again} failed. To try again, run it again: {_again(tally)}")
    return SOME_FAILED


def _again(tally: Tally) -> str:
    """The command that goes on: this one, which skips what is done."""
    if not tally.once or not tally.counts.total():
        return this_command()
    hours = int((monotonic() - tally.started) / 3600) + 2  # it may be run again some time later
    return f"{this_command()} --older-than {hours}h"


def _failure(error: Exception) -> dict[str, Any]:
    return {
        "error": message_of(error, retried=True),
        "type": type(error).__name__,
        "may_have_applied": getattr(error, "may_have_applied", True),
    }
