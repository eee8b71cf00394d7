"""A journal of credentials that survives ``kill -9``, and the loop that fills it. Copy it beside your own script.

One JSON object a line. The first names the job and the cluster; the others are intents (names about to be created that
were not there before) and outcomes. A line counts once it is written, flushed and fsynced. What a crash tears off the
end is cut off on the next start. Only its owner may read the file, and only one process at a time may use it.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import fcntl
import json
import os
import signal
import stat
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aiodbclient import Action, Run, UserOutcome
from aiodbclient.errors import ConfigurationError, DatabaseClientError

EXIT_CODES = """\
exit codes: 0 every name is on record; 1 at least one name failed (run again to try those); 2 bad arguments, names or
journal; 3 stopped early (run again to go on); 4 the cluster could not be reached or read"""


class JournalError(Exception):
    """The journal cannot be used; the message says why and what to do."""


class Journal:
    """The journal at ``path`` of one ``job`` on one ``cluster``, made if it is not there. A context manager.

    ``done``: the names on record. ``open_intents``: the names that an earlier process may have created without living
    to record it. Raises JournalError.
    """

    def __init__(self, path: Path, *, job: str, cluster: str) -> None:
        self.path = path
        self.done: set[str] = set()
        self.open_intents: set[str] = set()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise JournalError(f"{path} cannot be opened: {error.strerror}") from None
        try:
            self._check_and_lock()
            self._read({"job": job, "cluster": cluster})
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)

    def intend(self, names: Iterable[str]) -> None:
        """Record that ``names``, which are not there, are about to be created. Call it before anything is sent."""
        names = list(names)
        self._append(*({"intent": name} for name in names))
        self.open_intents.update(names)

    def record(self, outcome: UserOutcome) -> None:
        """Record an outcome. Once this has returned, no crash loses it."""
        line: dict[str, Any] = {"name": outcome.name, "action": outcome.action.value}
        if outcome.user is not None:
            secrets = ("password", "access_cert", "access_key")
            line |= {key: value for key in secrets if (value := getattr(outcome.user, key)) is not None}
        if outcome.error is not None:
            line["error"] = str(outcome.error)
            line["may_have_applied"] = getattr(outcome.error, "may_have_applied", True)
        self._append(line)
        self._apply(line)

    def _check_and_lock(self) -> None:
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise JournalError(f"{self.path} must be a regular file of yours")
        if status.st_mode & 0o077:
            raise JournalError(f"{self.path} can be read by others: chmod 600 it, if no other has read it yet")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(f"{self.path} is in use by another process: wait until that has ended") from None

    def _read(self, header: dict[str, Any]) -> None:
        with open(self._file, "rb", closefd=False) as file:
            *lines, tail = file.read().split(b"\n")
        if tail:
            # A part of a JSON object is never JSON. So this line is whole but for its end, or torn and to be cut off.
            if _json(tail) is None:
                os.ftruncate(self._file, sum(len(line) + 1 for line in lines))
            else:
                os.write(self._file, b"\n")
                lines.append(tail)
            os.fsync(self._file)
        if not lines:
            self._append(header)
            _fsync_folder(self.path)
            return
        entries = [_json(line) for line in lines]
        if entries[0] != header:
            job, cluster = header.values()
            raise JournalError(f"{self.path} is not the journal of {job} on the cluster {cluster}: use another file")
        for number, entry in enumerate(entries[1:], start=2):
            if entry is None or not isinstance(entry.get("intent", entry.get("name")), str):
                raise JournalError(f"{self.path}, line {number} is damaged: repair it by hand, nothing was sent")
            self._apply(entry)

    def _apply(self, entry: dict[str, Any]) -> None:
        if "intent" in entry:
            self.open_intents.add(entry["intent"])
        elif "error" not in entry:
            self.done.add(entry["name"])
            self.open_intents.discard(entry["name"])
        elif not entry["may_have_applied"]:
            self.open_intents.discard(entry["name"])

    def _append(self, *entries: dict[str, Any]) -> None:
        data = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written: {error.strerror}; run again once it can") from None


def _json(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _fsync_folder(path: Path) -> None:
    """So that the file's own name survives a power cut."""
    folder = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_names(path: Path) -> list[str]:
    """The names in a CSV file, each once: of its column ``name``, or the first one if no column says so.

    Raises JournalError.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, ValueError, csv.Error) as error:
        raise JournalError(f"{path} cannot be read as CSV: {error}") from None
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = head.index("name") if "name" in head else None
    cells = (row[column or 0].strip() if len(row) > (column or 0) else "" for row in rows[column is not None :])
    names = list(dict.fromkeys(cells))
    if "" in names:
        raise JournalError(f"{path} has a row without a name")
    return names


class Ledger:
    """Takes the outcomes of runs: each into the journal, then onto the progress bar. Stops on SIGINT and SIGTERM.

    Of ``total`` names ``todo`` are left. The first signal stops gracefully: nothing more is started, and what is in
    flight is still recorded. A second one cancels.
    """

    def __init__(self, journal: Journal, *, total: int, todo: int) -> None:
        self.journal = journal
        self.stopped = False
        self.counts = Counter[str]()
        self.console = Console(stderr=True)
        self._run: Run[UserOutcome] | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failures]}"),
            console=self.console,
        )
        self._bar = self._progress.add_task("names", total=total, completed=total - todo, rate="", failures="")

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stop, task)
        self._progress.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)

    async def take(self, run: Run[UserOutcome]) -> None:
        """Record the outcomes of ``run``, unless a signal came before."""
        if self.stopped:
            return
        self._run = run
        async with aclosing(run):
            async for outcome in run:
                self.record(outcome)

    def record(self, outcome: UserOutcome) -> None:
        """Record one outcome, and only then count it."""
        self.journal.record(outcome)
        self.counts[outcome.action.value] += 1
        if outcome.error is not None:
            self.console.print(f"{outcome.name}: {outcome.error}", style="red", markup=False, highlight=False)
        failed = self.counts[Action.FAILED]
        speed = self._progress.tasks[self._bar].speed or 0.0
        failures = f"[red]{failed} failed" if failed else ""
        self._progress.update(self._bar, advance=1, rate=f"{60 * speed:.0f}/min", failures=failures)

    def summary(self) -> int:
        """Tell what happened, and return the exit code."""
        told = ", ".join(f"{count} {action}" for action, count in sorted(self.counts.items())) or "nothing to do"
        self.console.print(f"{told}; {len(self.journal.done)} on record in {self.journal.path}", markup=False)
        if self.stopped:
            self.console.print("Stopped early: run it again to go on.")
            return 3
        return 1 if self.counts[Action.FAILED] else 0

    def _stop(self, task: asyncio.Task[Any]) -> None:
        if self.stopped:
            task.cancel()
        self.stopped = True
        if self._run is not None:
            self._run.stop()


def command(
    do: Callable[[list[str], str, Journal], Coroutine[Any, Any, int]], *, job: str, description: str, records: str
) -> int:
    """The command line of a job, which is ``do`` with the names, the cluster's id and the journal of its ``records``.
    Returns one of EXIT_CODES.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=EXIT_CODES
        + ". The token comes from DIGITALOCEAN_TOKEN; DIGITALOCEAN_API_URL is where the API is, if elsewhere.",
    )
    parser.add_argument("names", type=Path, metavar="NAMES.csv", help="its column `name`, or else its first column")
    parser.add_argument("--cluster", required=True, type=UUID, metavar="ID", help="the id of the database cluster")
    parser.add_argument("--journal", required=True, type=Path, metavar="FILE", help=f"where {records} are recorded")
    options = parser.parse_args()
    cluster = str(options.cluster)
    program = Path(sys.argv[0]).stem
    try:
        names = read_names(options.names)
        with Journal(options.journal, job=job, cluster=cluster) as journal:
            return asyncio.run(do(names, cluster, journal))
    except (JournalError, ConfigurationError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 3
    except DatabaseClientError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 4
