"""Follow bulk runs: print their outcomes, show how far they are, and stop them on a signal."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from attrs import define, field

from ..._bulk.outcomes import Failed
from ...errors import DatabaseClientError, InvalidArgumentError, NameTakenError
from ...tenants.errors import StoreError
from .failures import Exit, code_of, is_down, message_of
from .files import written
from .options import TIMEOUT_GRACE
from .output import Output
from .printing import note, printable, some, span, write
from .running import on_signals, on_timeout

if TYPE_CHECKING:
    from ... import RateLimiter
    from ...bulk import Action, Run

LINE_EVERY = 30.0  # s between two lines where there is no terminal
_SILENT = 10.0  # s without an outcome, after which the time left is no estimate
_TICK = 0.2  # s between two drawings of the bar
_WORTH_SAYING = 1.0  # s until the rate limit allows a request
_LOOKING = 5.0  # s that the store may take to say what is unfinished
_PERIOD = 300.0  # s over which the pace is measured: the rate limit allows bursts
_SIGNAL = "the names in progress are finished first. Press Ctrl-C again, or send the signal again, to stop at once"
_LATE = f"--timeout is over, and the names in progress get up to {TIMEOUT_GRACE:.0f}s to finish"


@define
class Report:
    """Prints the outcomes of a run. Each ``role`` is that of its logins, or empty for users and databases."""

    output: Output
    verbose: bool = False
    # What to do after a stop; empty: what is done must not be done twice, so only the names that are left.
    again: str = field(default="run the same command again", kw_only=True)
    # Whether a program runs for each name. It prints on the standard output, so the summary is on the standard error. A
    # signal and --timeout end it at once, and if it fails, the runs after its own do not begin.
    runs_programs: ClassVar[bool] = False

    def row(self, outcome: Any, role: str) -> dict[str, Any]:
        """Return the JSON members of a success, besides its name and action."""
        return {}

    def text(self, outcome: Any, role: str) -> str:
        """Return the lines of a success, if any."""
        return ""

    def failed_row(self, error: Exception) -> dict[str, Any]:
        return {"error": self.reason(error), "type": type(error).__name__}

    def reason(self, error: Exception) -> str:
        return message_of(error, verbose=self.verbose)

    def summary(self, counts: Mapping[Action, int]) -> str:
        """Return the last line."""
        return ", ".join(f"{count} {action}" for action, count in sorted(counts.items())) or "nothing to do"

    def hints(self, failed: Sequence[tuple[Failed, str]]) -> list[str]:
        """Say what helps the names that failed."""
        return []

    def next_step(self, left: Sequence[str]) -> str:
        """Say what to do after a stop, with the names that are ``left``."""
        return self.again or f"run the same command with --from {written(left)} in place of the names"

    def where(self, left: Sequence[str]) -> str:
        """Name what the names that are ``left`` wait for."""
        return "the API"

    async def settled(self, outcome: Any, role: str) -> Any:
        """Check an outcome once more."""
        return outcome

    async def unfinished(self, run: Run[Any] | None) -> Sequence[str]:
        """List the names that are begun and not finished, when ``run`` has ended."""
        begun = () if run is None else run._begun.values()  # pyright: ignore[reportPrivateUsage]  # of this package
        return [getattr(given, "name", given) for given, stats in begun if stats.writes]


def called(name: str, role: str) -> str:
    """A tenant's name, with the role unless that is its owner."""
    return name if role in ("", "owner") else f"{name} ({role})"


async def follow(
    runs: Iterable[tuple[str, Run[Any]]],
    report: Report,
    *,
    names: Sequence[str],
    limiter: RateLimiter,
    missing: Mapping[str, str] = {},
) -> int:
    """Do runs one after the other, each for a role, over ``names`` with their roles."""
    bar = Bar(len(missing) + len(names), limiter)
    work = _Work([*missing, *names], report, bar)
    bar.where = lambda: report.where(work.left)
    unfinished: Sequence[str] = ()
    try:
        with bar, nullcontext() if report.runs_programs else on_timeout(partial(work.stop, _LATE)):
            on_signals(partial(work.on_signal, asyncio.current_task()))
            for name, why in missing.items():
                work.add(Failed(name=name, error=InvalidArgumentError(why)), "")
            for role, run in runs:
                if work.stopped or work.error is not None or (report.runs_programs and work.failed):
                    run.stop()  # it does not begin
                    break
                work.run, work.role = run, role
                async with aclosing(run):
                    try:
                        async for outcome in run:
                            work.add(await report.settled(outcome, role), role)
                    except DatabaseClientError as error:
                        work.error = error
    except asyncio.CancelledError:
        work.stopped = True
        for outcome in () if work.run is None else work.run.outcomes:  # the last of them may not be printed yet
            if called(outcome.name, work.role) not in work.ended:
                work.add(outcome, work.role)
    if work.left:
        with suppress(StoreError, TimeoutError, asyncio.CancelledError):  # a signal ends the look, and not the report
            async with asyncio.timeout(_LOOKING):
                unfinished = await report.unfinished(work.run)
    return work.end([name for name in work.left if name in unfinished], limiter)


@define
class FailureGroups:
    """The names that failed, by reason: each reason is printed once, for its first name."""

    names: dict[str, list[str]] = field(factory=dict[str, list[str]])

    def add(self, name: str, reason: str) -> bool:
        """Add a name, and return whether it is the first one with that reason."""
        names = self.names.setdefault(reason, [])
        names.append(name)
        return len(names) == 1

    def say(self) -> None:
        """Print which others failed."""
        for first, *others in self.names.values():
            if others:
                note(f"{len(others)} more failed as {first} did: {some(others)}")


@define
class _Work:
    names: Sequence[str]  # of all, with their roles
    report: Report
    bar: Bar
    counts: Counter[Action] = field(factory=Counter[Any])
    ended: set[str] = field(factory=set[str])  # have an outcome; with their roles
    failed: list[tuple[Failed, str]] = field(factory=list[Any])  # with their roles
    groups: FailureGroups = field(factory=FailureGroups)
    error: DatabaseClientError | None = None  # ended the whole run
    run: Run[Any] | None = None
    role: str = ""  # of the run
    stopped: bool = False

    @property
    def left(self) -> list[str]:
        """The names without an outcome."""
        return [name for name in self.names if name not in self.ended]

    def on_signal(self, task: asyncio.Task[Any] | None) -> None:
        """Handle a signal: the first lets the names in progress finish, the second cancels them."""
        if task is not None and (self.stopped or self.report.runs_programs):
            task.cancel()
        else:
            self.stop(_SIGNAL)

    def stop(self, why: str) -> None:
        """Begin no more names."""
        self.stopped = True
        if self.run is not None:
            self.run.stop()
        self.bar.say(f"aiodbclient: stopping: {why}")

    def add(self, outcome: Any, role: str) -> None:
        """Count an outcome and print it."""
        name, report = called(outcome.name, role), self.report
        self.counts[outcome.action] += 1
        self.ended.add(name)
        self.bar.advance(is_failed=outcome.error is not None)
        if outcome.error is not None:
            self.failed.append((outcome, role))
            reason = report.reason(outcome.error)
            if self.groups.add(name, reason.replace(outcome.name, "")) and not report.output.as_json:
                self.bar.say("\n".join(f"{name}: {printable(line)}" for line in reason.splitlines()))
        with self.bar.away():
            if report.output.as_json:
                row = report.row(outcome, role) if outcome.error is None else report.failed_row(outcome.error)
                row = {"name": outcome.name, "action": outcome.action} | ({"role": role} if role else {}) | row
                write(f"{json.dumps(row)}\n")
            elif outcome.error is None and (text := report.text(outcome, role)):
                write(f"{text}\n")

    def end(self, unfinished: Sequence[str], limiter: RateLimiter) -> int:
        """Say how the run ended and what helps, and return the exit code."""
        if not self.report.output.as_json:
            self.groups.say()
            if self.counts or (self.error is None and not self.stopped):
                summary = self.report.summary(self.counts)
                note(summary) if self.report.runs_programs else write(f"{summary}\n")
        failed = self.failed
        if self.error is not None:
            note(self.report.reason(self.error) + (f"; {self._how_far(unfinished)}" if self.ended else ""))
            if isinstance(self.error, NameTakenError):  # the store is empty, and others have these names
                failed = [(Failed(name=name, error=self.error), "") for name in self.names]
        for hint in self.report.hints(failed):
            note(hint)
        if self.error is not None:
            code = code_of(self.error)
            is_answer = code is not Exit.SOME_FAILED or isinstance(self.error, NameTakenError)
            return code if is_answer else Exit.UNUSABLE
        if self.left and self.stopped:
            if (wait := limiter.snapshot().next_slot) > _WORTH_SAYING:
                note(f"the rate limit allows the next request in {span(wait)}")
            note(f"stopped early: {self._how_far(unfinished)}")
            return Exit.STOPPED
        if self.left:  # after a program that failed
            note(self._how_far(unfinished))
        if self.failed and len(self.failed) == len(self.ended) and all(is_down(each.error) for each, _ in self.failed):
            return Exit.UNUSABLE
        return Exit.SOME_FAILED if self.failed else Exit.DONE

    def _how_far(self, unfinished: Sequence[str]) -> str:
        counts = {
            "done": len(self.ended) - len(self.failed),
            "failed": len(self.failed),
            f"begun and not finished ({some(unfinished)})": len(unfinished),
            "left": len(self.left) - len(unfinished),
        }
        parts = [f"{count} {what}" for what, count in counts.items() if count or what in ("done", "left")]
        return f"{', '.join(parts)}. To go on: {self.report.next_step(self.left)}"


class Bar:
    """Shows on the standard error how far a run is: a bar on a terminal, elsewhere a line every 30 s."""

    def __init__(self, total: int, limiter: RateLimiter) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn

        self._limiter = limiter
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._progress = Progress(
            TaskProgressColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal or not total,
            redirect_stdout=False,  # it would print on the standard error, and fold lines
            redirect_stderr=False,
            speed_estimate_period=_PERIOD,
        )
        self._task = self._progress.add_task("", total=total, state="")
        self._failed = 0
        self._ticking: asyncio.TimerHandle | None = None
        self._said_at = self._advanced_at = 0.0
        self.where: Callable[[], str] = lambda: "the API"

    def __enter__(self) -> Self:
        self._said_at = self._advanced_at = asyncio.get_running_loop().time()
        self._progress.start()
        self._tick()
        return self

    def __exit__(self, *error: object) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        self._draw()
        self._progress.stop()

    def advance(self, *, is_failed: bool) -> None:
        """Count a name, also beyond the expected number."""
        task = self._progress.tasks[0]
        self._failed += is_failed
        self._advanced_at = asyncio.get_running_loop().time()
        self._progress.update(self._task, advance=1, total=max(task.total or 0, task.completed + 1))

    @contextmanager
    def away(self) -> Generator[None]:
        """Print above the bar."""
        if not self._progress.disable:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
        yield
        if not self._progress.disable:
            self._progress.refresh()

    def say(self, text: str) -> None:
        """Print ``text`` above the bar, unless the terminal was closed."""
        with suppress(OSError), self.away():
            print(text, file=sys.stderr, flush=True)

    def state(self) -> str:
        """Describe the failures, the time left, and the wait for the rate limit."""
        task, wait = self._progress.tasks[0], self._limiter.estimate_wait(0, bulk=True)
        left, silence = None if task.finished else task.time_remaining, self._silence()
        parts = [f"{self._failed} failed"] if self._failed else []
        if silence > _SILENT:
            parts.append(f"no answer for {span(silence)} from {self.where()}")
        elif left is not None:
            parts.append(f"{span(max(left, wait))} left")
        parts += [f"rate limit: {span(wait)}"] if wait > _WORTH_SAYING else []
        return ", ".join(parts)

    def _silence(self) -> float:
        """Return the seconds without an outcome, unless all are there or the rate limit is waited for."""
        waits = self._progress.tasks[0].finished or self._limiter.estimate_wait(0, bulk=True) > _WORTH_SAYING
        return 0.0 if waits else asyncio.get_running_loop().time() - self._advanced_at

    def _tick(self) -> None:
        self._draw()
        # No thread: a rate limiter is for one thread.
        self._ticking = asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _draw(self) -> None:
        task, now = self._progress.tasks[0], asyncio.get_running_loop().time()
        if not self._progress.disable:
            self._progress.update(self._task, state=self.state())
            self._progress.refresh()
        elif now - self._said_at >= (_SILENT if self._silence() > _SILENT else LINE_EVERY):
            self._said_at = now
            done = f"{task.completed:.0f} of {task.total:.0f} done"
            note(", ".join(filter(None, [done, self.state()])))
