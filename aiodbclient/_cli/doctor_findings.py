"""What ``doctor`` found: a line for each check, and the report that can be pasted into an issue."""

from __future__ import annotations

import json
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from statistics import median

from attrs import Factory, define, field

from .. import Cluster, DatabaseClient, RequestEvent
from .._version import __version__
from ..errors import APIError
from .assumptions import ASSUMPTIONS
from .failures import message_of, said_by
from .output import printable, wrapped, write, write_styled

_STYLES = {"ok": "", "note": "", "FAIL": "red", "skip": "yellow"}


@define
class Findings:
    """Prints a line for each check as soon as it is done."""

    as_json: bool
    failed: int = 0
    # By the name of the check: ``held`` or ``failed``, and the type of the error.
    results: dict[str, tuple[str, str]] = field(factory=dict[str, tuple[str, str]])
    notes: list[tuple[str, str]] = field(factory=list[tuple[str, str]])  # for the report: without names and secrets

    def ok(self, check: str, found: str) -> None:
        """Print that a check found nothing wrong."""
        self.results.setdefault(check, ("held", ""))
        self._print("ok", check, found, "")

    def fail(self, check: str, found: object, advice: str) -> None:
        """Print what is wrong, and what to do about it."""
        self.failed += 1
        kind = type(found).__name__ if isinstance(found, Exception) else ""
        self.results[check] = "failed", f"{kind} {found.status}" if isinstance(found, APIError) else kind
        said = str(found)
        if isinstance(found, Exception):
            said = said_by(found) if advice else message_of(found, retried=True)
        self._print("FAIL", check, said, advice)

    def note(self, check: str, found: str) -> None:
        """Print what is worth knowing and no failure: an answer, or a matter of taste."""
        self.notes.append((check, found))
        self._print("note", check, found, "")

    def skip(self, check: str, why: str) -> None:
        """Print that a check was not made."""
        self._print("skip", check, why, "")

    def _print(self, result: str, check: str, found: str, advice: str) -> None:
        if self.as_json:
            members = {"check": check, "result": result.lower(), "found": found} | ({"do": advice} if advice else {})
            write(f"{json.dumps(members)}\n")
        else:
            text = f"{result:<4}  {check}: {printable(found)}{f'. {advice}' if advice else ''}"
            write_styled([(wrapped(text, sys.stdout), _STYLES[result])])


@define
class Figures:
    """Counts the requests of a client, as its ``on_event``."""

    statuses: Counter[str] = Factory(Counter[str])
    reads: list[float] = Factory(list[float])
    writes: list[float] = Factory(list[float])

    def count(self, event: RequestEvent) -> None:
        """Count a request."""
        self.statuses[str(event.status or event.error)] += 1
        (self.reads if event.method == "GET" else self.writes).append(event.duration)

    def lines(self, client: DatabaseClient) -> list[str]:
        """The figures as text."""
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        limit = client.rate_limit
        return [
            f"requests    {self.statuses.total()}: {statuses}",
            f"latency     {_latency('reads', self.reads)}; {_latency('writes', self.writes)}",
            f"rate limit  {'no headers' if limit is None else f'{limit.limit} an hour, {limit.remaining} left'}",
        ]


def _latency(what: str, seconds: Sequence[float]) -> str:
    if not seconds:
        return f"no {what}"
    return f"{what} {median(seconds):.3f} s in the middle, {max(seconds):.3f} s at most"


def print_report(
    findings: Findings, figures: Figures, client: DatabaseClient, info: Cluster | None, server: str | None
) -> None:
    """Print versions, assumptions and figures, without secrets, names and host names."""
    lines = [f"aiodbclient {__version__}, Python {platform.python_version()}, {platform.system()}"]
    if info is not None:
        nodes = f"{info.num_nodes} nodes, " if info.num_nodes else ""
        lines.append(f"{info.engine} {info.semantic_version or info.version}, {nodes}server {server or 'not known'}")
    for each in ASSUMPTIONS:
        if info is None or (each.engines and info.engine not in each.engines):
            continue
        result, error = findings.results.get(each.check, ("not tried", ""))
        lines.append(f"{result:<10}  {each.id}: {each.sentence}{f' ({error})' if error else ''}")
    lines += [f"note        {check}: {found}" for check, found in findings.notes]
    lines += figures.lines(client)
    if findings.as_json:
        write(f"{json.dumps({'report': lines})}\n")
    else:
        write("\n".join(["```", *lines, "```"]) + "\n")
