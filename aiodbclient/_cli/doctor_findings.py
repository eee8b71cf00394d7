"""What ``doctor`` found: a line for each check, and the report, which says which assumptions of this package held."""

from __future__ import annotations

import json
import platform
import sys
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import NoReturn

from attrs import Factory, define, field, frozen

from .. import Cluster, DatabaseClient, RequestEvent
from .._version import __version__
from ..engines import MYSQL, POSTGRESQL, Engine
from ..errors import APIError
from .failures import message_of, said_by
from .output import printable, wrapped, write, write_styled

_BY_SQL = POSTGRESQL | MYSQL
_MONGODB = frozenset({Engine.MONGODB})
_BY_SETTINGS = frozenset({Engine.KAFKA, Engine.OPENSEARCH})
_ADVANCED = frozenset({Engine.ADVANCED_PG, Engine.ADVANCED_MYSQL})


@frozen
class Assumption:
    """One assumption."""

    id: str  # in the report and on the page
    sentence: str
    check: str = ""  # the line of ``doctor`` that shows it; empty if none does
    trial: bool = False  # whether only ``--try`` prints that line
    engines: frozenset[str] = frozenset()  # empty for all


ASSUMPTIONS = (
    # The API
    Assumption("scopes", "A call without its scope is a 403, and changes nothing."),
    Assumption("hourly-limit", "Answers report the token's hourly limit in ratelimit-limit.", "rate limit"),
    Assumption("windows", "Each token has 250 requests in any minute and 5,000 in any hour."),
    Assumption("pages", "Lists link to the next page at links.pages.next, and take per_page=200."),
    Assumption(
        "dbs-key", "Databases are listed under dbs, or under databases.", "databases", engines=_BY_SQL | _MONGODB
    ),
    Assumption("lost-answers", "After a 5xx or a broken connection, a write may be applied, also later."),
    Assumption("names", "Names keep their case, digits, _ and -.", "names", True),
    Assumption("taken-names", "A create of a taken name is a 409 or 422.", "taken name", True),
    Assumption("deletes", "Within 10 s, reading or deleting a deleted login is a 404.", "deletion", True),
    Assumption("read-lag", "Reads show a new login within 10 s.", "reads", True),
    Assumption("writes-at-once", "Logins can be created at once.", "writes at a time", True, _BY_SQL | _BY_SETTINGS),
    Assumption("one-write", "On MongoDB, user writes that overlap are a 500.", engines=_MONGODB),
    # Clusters
    Assumption("statuses", "A cluster accepts changes while its status is online.", "cluster"),
    Assumption("not-yet-404", "Reads and creates on a new cluster may be a 404 for up to a minute."),
    Assumption("refused-412", "A write to a cluster that is being changed is a 412, and not applied."),
    Assumption("replicas", "Calls on users accept a replica's UUID."),
    Assumption("ca", "The cluster's CA signs its servers' certificates, for their host names.", "TLS", engines=_BY_SQL),
    Assumption("advanced", "The advanced engines behave as pg and mysql.", "still works", True, _ADVANCED),
    # Passwords and settings
    Assumption("password-on-create", "The answer to a create has the password.", "login", True),
    Assumption("reset", "reset_auth replaces the password, and returns another one.", "reset", True),
    Assumption(
        "password-on-reads",
        "Reads return passwords to a token with database:view_credentials.",
        "passwords on reads",
        True,
        _BY_SQL | _BY_SETTINGS,
    ),
    Assumption("password-once", "MongoDB's passwords are not returned on reads.", "passwords on reads", True, _MONGODB),
    Assumption(
        "settings-on-reads",
        "Reads return a login's settings as sent, or leave them out.",
        "settings on reads",
        True,
        _MONGODB | _BY_SETTINGS,
    ),
    # Tenants
    Assumption(
        "doadmin",
        "doadmin has CREATEROLE and CREATEDB, and may end sessions.",
        "administrator",
        engines=POSTGRESQL,
    ),
    Assumption(
        "doadmin-mysql", "doadmin may create users, and grant rights on schemas.", "administrator", engines=MYSQL
    ),
    Assumption(
        "by-sql", "The provider leaves logins and databases alone that were made by SQL.", "still works", True, _BY_SQL
    ),
)


_STYLES = {"ok": "", "note": "", "FAIL": "red", "skip": "yellow"}


class StepFailedError(Exception):
    """A check failed, and those after it make no sense."""


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

    def stop(self, check: str, found: object, advice: str) -> NoReturn:
        """The same, where the checks after it make no sense. Raises StepFailedError."""
        self.fail(check, found, advice)
        raise StepFailedError

    @contextmanager
    def needed(self, check: str, advice: Mapping[type[Exception], str]) -> Generator[None]:
        """``stop`` if this block raises one of the errors for which there is ``advice``."""
        try:
            yield
        except tuple(advice) as error:
            self.stop(check, error, next(each for kind, each in advice.items() if isinstance(error, kind)))

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
        lines.append(f"{info.engine} {info.semantic_version or info.version}, server {server or 'not known'}")
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
