"""Follow bulk runs: print their outcomes, show their progress, and stop them on a signal."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from .. import Failed
from ..errors import (
    ConflictError,
    DatabaseClientError,
    InvalidArgumentError,
    UnsupportedOperationError,
)
from ..tenants.errors import StoreError
from .arguments import TIMEOUT_GRACE
from .asking import some
from .failures import Exit, code_of_run, has_way_out, message_of
from .output import OutputError, as_json, complain, note, safe, span, this_command, write
from .running import on_signals, on_timeout

if TYPE_CHECKING:
    from enum import StrEnum

    from .. import Outcome, RateLimiter, RequestEvent, Run
    from ..tenants import TenantEvent
    from .progress import Bar

_WORTH_SAYING = 1.0  # s until the rate limit allows a request
_LATE = f"--timeout is over, and what is in flight gets up to {TIMEOUT_GRACE:.0f}s to finish"
_LOOKING = 5.0  # s that the store may take to say what is unfinished


class ReportedError(Exception):
    """A failure of one name that says itself what is printed of it, also where others failed in the same way."""

    def lines(self) -> list[str]:
        """What is printed for people."""
        raise NotImplementedError

    def as_object(self) -> dict[str, Any]:
        """What ``-o json`` prints."""
        raise NotImplementedError


@define
class Heard:
    """Keeps the last request that the API did not serve: why a run that is stopped got no further."""

    last: RequestEvent | None = None

    def __call__(self, event: RequestEvent) -> None:
        is_cause = event.status is None or event.status >= 500
        if is_cause or (event.status == 429 and self.last is None):  # many failures lead to a 429, which hides them
            self.last = event


@frozen(kw_only=True)
class Report:
    """What is printed of each outcome. Its functions get the role that the run is for, or an empty text."""

    as_objects: bool
    changes: bool = False  # whether a name may be left unfinished
    row: Callable[[Any, str], dict[str, Any]] = lambda outcome, role: {}  # of a success, beside its name and action
    details: Callable[[Any, str], str] = lambda outcome, role: ""  # lines about a success, if any
    # A line about a success. With it, the standard output has the details alone, and all else is on the standard error.
    remark: Callable[[Any], str] | None = None
    summary: Callable[[bool], str] = lambda failed: ""  # behind the numbers at the end, and whether all is not well
    settle: Callable[[Any, str], Awaitable[Any]] | None = None  # looks at a success once more before it is counted
    # The commands that help those that failed, where running this one again does not.
    ways: Callable[[Sequence[tuple[Failed, str]]], Iterable[str]] = lambda failed: ()
    events: dict[str, TenantEvent] = field(factory=dict[str, Any])
    heard: Heard = field(factory=Heard)


@define
class _Tally:
    """What became of a command so far."""

    names: Sequence[str]  # of all, with their roles
    report: Report
    budget: RateLimiter
    bar: Bar
    again: Callable[[Collection[str]], str] | None  # the command that goes on after these; None: this one
    hurries: bool  # whether the first signal ends it at once
    counts: Counter[StrEnum] = field(factory=Counter[Any])
    finished: set[str] = field(factory=set[str])
    ended: set[str] = field(factory=set[str])  # have an outcome; with their roles
    failed: list[tuple[Failed, str]] = field(factory=list[tuple[Failed, str]])  # with their roles
    alike: dict[tuple[str, ...], list[str]] = field(factory=dict[tuple[str, ...], list[str]])  # by their reasons
    error: DatabaseClientError | None = None  # ended the whole run
    stopped: bool = False
    at_once: bool = False  # ended by a second signal, or because --timeout was over for too long
    begun: Sequence[str] = ()  # have no outcome, and are unfinished on record
    unwritable: OutputError | None = None  # why the standard output failed

    @property
    def total(self) -> int:
        """How many names there are."""
        return len(self.names)

    def unended(self) -> dict[str, list[str]]:
        """The names without an outcome: those that are begun, and the others."""
        left = [name for name in self.names if name not in self.ended]
        return {"begun": list(self.begun), "left": [name for name in left if name not in self.begun]}

    def write(self, line: str) -> None:
        """Print ``line`` on the standard output at once. Does nothing once that has failed."""
        if self.unwritable is None:
            try:
                write(f"{line}\n")
            except OutputError as error:
                self.unwritable = error

    def on_signal(self, task: asyncio.Task[Any] | None) -> None:
        """Handle a signal: the first lets the run finish what is in flight, the second cancels it."""
        if task is not None and (self.stopped or self.hurries):
            task.cancel()
            return
        self.stop("what is in flight is finished. Press Ctrl-C again, or send the signal again, to end at once")

    def stop(self, why: str) -> None:
        """Begin no more names."""
        self.bar.say(f"stopping: {why}")
        self.stopped = True
        if self.bar.run is not None:
            self.bar.run.stop()

    def take(self, outcome: Outcome, role: str) -> None:
        """Count an outcome and print it."""
        self.counts[outcome.action] += 1
        self.bar.advance(outcome.action)
        name = called(outcome.name, role)
        self.ended.add(name)
        if isinstance(outcome, Failed):
            self.failed.append((outcome, role))
            error = outcome.error
            reasons = error.lines() if isinstance(error, ReportedError) else [message_of(error, retried=True)]
            alike = self.alike.setdefault(tuple(each.replace(outcome.name, "") for each in reasons), [])
            if not isinstance(error, ReportedError):
                alike.append(name)
            self.bar.fail(safe(name), reasons if len(alike) <= 1 else ())
        else:
            self.finished.add(outcome.name)
        event = self.report.events.pop(outcome.name, None)
        if self.report.as_objects:
            members = _failure(outcome.error) if isinstance(outcome, Failed) else self.report.row(outcome, role)
            members = {"role": role} | members if role else members
            seconds = {} if event is None else {"seconds": round(event.duration, 3)}
            self.write(as_json({"name": outcome.name, "action": outcome.action, **members, **seconds}))
            return
        if outcome.error is None and (details := self.report.details(outcome, role)):
            self.write(details)
        if outcome.error is None and self.report.remark is not None:
            self.bar.say(f"{safe(name)}: {self.report.remark(outcome)}")
        if event is not None:
            self.bar.say(f"{safe(name)}: {event.duration:.2f} s, {event.requests} requests")

    def end(self) -> int:
        """Say how the run ended, and how to go on. Returns the exit code."""
        done = self.counts.total()
        for first, *others in () if self.report.as_objects else filter(None, self.alike.values()):
            if others:
                note(f"{len(others)} more failed as {safe(first)} did: {some(others)}")
        if self.error is not None:
            code = code_of_run(self.error)
            complain(
                message_of(self.error, retried=True) + (f"; {self._progress()}" if done else ""), code, **self.unended()
            )
            return code
        if self.unwritable is not None and not self.unwritable.gone:
            complain(f"{self.unwritable}; {self._progress()}", Exit.UNUSABLE, **self.unended())
            return Exit.UNUSABLE
        if self.at_once or (done < self.total and (self.stopped or self.unwritable is not None)):
            if self.report.heard.last is not None:
                note(f"the last request that failed: {_failed(self.report.heard.last)}")
            if self.counts.total() < self.total and (wait := self.budget.snapshot().next_slot) > _WORTH_SAYING:
                note(f"the rate limit allows the next request in {span(wait)}")
            complain(f"stopped early: {self._progress()}", Exit.STOPPED, **self.unended())
            return Exit.STOPPED
        if not self.failed:
            return Exit.DONE
        if hopeful := sum(not _is_final(each.error) for each, _ in self.failed):
            note(f"{hopeful} failed. To try again, run it again: {self._again()}")
        for way in self.report.ways(self.failed):
            note(way)
        return Exit.SOME_FAILED

    def _progress(self) -> str:
        """How far a run came that did not end, and how to go on."""
        failed, begun = len(self.failed), len(self.begun)
        left = self.total - self.counts.total()
        parts = [
            f"{self.counts.total() - failed} are done",
            *([f"{failed} failed"] if failed else []),
            *([f"{begun} are begun and not finished ({some(self.begun)})"] if begun else []),
            f"{left - begun} are left",
        ]
        return f"{', '.join(parts)}. " + (
            f"To go on, run it again: {self._again()}" if left + failed else "All are done"
        )

    def _again(self) -> str:
        """The command that goes on: this one, unless it would do again what is done."""
        return this_command() if self.again is None else self.again(self.finished)


async def follow(
    runs: Mapping[str, Run[Any]],
    *,
    names: Sequence[str],
    budget: RateLimiter,
    report: Report,
    work: int | None = None,
    again: Callable[[Collection[str]], str] | None = None,
    missing: Mapping[str, str] = {},
    at_once: bool = False,
    unfinished: Callable[[], Awaitable[Collection[str]]] | None = None,
) -> int:
    """Do runs one after the other, and print their progress and their outcomes. ``names`` are those that they are for.

    ``at_once``: a signal and ``--timeout`` cancel them. ``unfinished`` reads which names are begun and not finished.
    """
    from .progress import Bar  # slow to import, and not needed for help

    every = [*missing, *names]
    bar = Bar(len(every), len(names) if work is None else work, budget)
    tally = _Tally(every, report, budget, bar, again, hurries=at_once)
    try:
        with bar, nullcontext() if at_once else on_timeout(lambda: tally.stop(_LATE)):
            on_signals(partial(tally.on_signal, asyncio.current_task()))
            for name, why in missing.items():
                tally.take(Failed(name=name, error=InvalidArgumentError(why)), "")
            for role, run in runs.items():
                if tally.stopped or tally.error is not None or tally.unwritable is not None:
                    break
                bar.run = run
                async with run:
                    try:
                        async for outcome in run:
                            if report.settle is not None and outcome.error is None:
                                outcome = await report.settle(outcome, role)
                            tally.take(outcome, role)
                            if tally.unwritable is not None:  # the outcomes have no reader
                                run.stop()
                    except DatabaseClientError as error:
                        tally.error = error
    except asyncio.CancelledError:
        tally.at_once = True
    finally:
        if not report.as_objects and (tally.counts or not tally.total):
            done = ", ".join(f"{count} {action}" for action, count in sorted(tally.counts.items()))
            line = (done or "nothing to do") + ("" if tally.error else report.summary(bool(tally.failed)))
            if report.remark is None:
                tally.write(line)
            else:
                note(line)
    if unfinished is not None and tally.counts.total() < tally.total:
        with suppress(StoreError, TimeoutError, asyncio.CancelledError):  # a signal ends the look, and not the report
            async with asyncio.timeout(_LOOKING):
                failed = {called(each.name, role) for each, role in tally.failed}
                tally.begun = [name for name in await unfinished() if name not in failed]
    return tally.end()


def called(name: str, role: str) -> str:
    """A tenant's name, with the role unless that is its owner."""
    return name if role in ("", "owner") else f"{name} ({role})"


def _failed(event: RequestEvent) -> str:
    answer = event.error if event.status is None else f"the API answered {event.status}"
    return f"{event.operation}: {answer}" + (f" (request {event.request_id})" if event.request_id else "")


def _is_final(error: Exception) -> bool:
    """Whether running the same command again does not help."""
    return has_way_out(error) or isinstance(error, ConflictError | InvalidArgumentError | UnsupportedOperationError)


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, ReportedError):
        return error.as_object()
    return {
        "error": message_of(error, retried=True),
        "type": type(error).__name__,
        "may_have_applied": getattr(error, "may_have_applied", True),
    }
