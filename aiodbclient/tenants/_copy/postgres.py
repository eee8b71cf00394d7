"""Dump and restore a PostgreSQL database with ``pg_dump`` and ``pg_restore``, as a login of the tenant."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from tempfile import NamedTemporaryFile
from typing import IO

from .._credential import Credential
from .programs import Copied, Programs, installed, missing, run, text_of

ENDING = ".dump"
_NEW_SETTING = 17  # from which on pg_restore sets transaction_timeout, which older servers refuse
# What the server's administrator makes: a tenant has no right to it, not even to its comment.
_OF_OTHERS = re.compile(r"(?:COMMENT - )?EXTENSION ")
_ENTRY = re.compile(r"\d+; \d+ \d+ (.*)")


async def programs(source: str, target: str | None = None) -> Programs:
    """Find the programs to copy from a server of version ``source`` to one of ``target``, or to dump it.

    Raises ConfigurationError that names the package that is missing.
    """
    at_least = major(source)
    below = 999 if target is None or major(target) >= _NEW_SETTING else _NEW_SETTING
    found = await installed("pg_dump", "pg_restore")
    fitting = [each for each in found if at_least <= each.version[0] < below]
    if fitting:
        return min(fitting, key=lambda each: each.version[0])
    there = ", ".join(sorted({str(each.version[0]) for each in found})) or "none"
    upto = "" if below == 999 else f" to {below - 1}"
    raise missing(
        f"pg_dump and pg_restore of version {at_least}{upto} are required, and found were: {there}",
        f"postgresql-client-{at_least}",
    )


def major(version: str) -> int:
    """The major version of a server."""
    return int(version.split(".")[0].split()[0])


async def dump(
    tools: Programs, credential: Credential, owner: str, target: IO[bytes], *, small: bool, copied: Copied
) -> None:
    """Dump the database to ``target``, ``small`` or fast."""
    with _connection(credential) as environment:
        compression = ["--compress=0"] if not small else []
        command = [tools.dump, "--format=custom", "--no-password", f"--role={owner}", *compression]
        await run(command, environment, stdout=target, copied=copied)


async def restore(tools: Programs, credential: Credential, owner: str, source: IO[bytes], copied: Copied) -> None:
    """Restore a dump into the empty database. What is in it has the rights of the login alone."""
    source.seek(0)
    kept = _kept(await text_of([tools.restore, "--list"], source))
    source.seek(0)
    with _connection(credential) as environment, NamedTemporaryFile("w", encoding="utf-8") as entries:
        entries.write(kept)
        entries.flush()
        command = [
            *(tools.restore, "--no-owner", "--exit-on-error", "--no-password", f"--role={owner}"),
            *(f"--use-list={entries.name}", f"--dbname={environment['PGDATABASE']}"),
        ]
        await run(command, environment, stdin=source, copied=copied)


def extensions(listing: str) -> list[str]:
    """The extensions in what ``pg_restore --list`` prints."""
    entries = (match[1] for line in listing.splitlines() if (match := _ENTRY.match(line)))
    return [entry.split()[2] for entry in entries if entry.startswith("EXTENSION - ")]


def _kept(listing: str) -> str:
    """The entries to restore."""
    lines = listing.splitlines()
    entries = [(line, match[1]) for line in lines if (match := _ENTRY.match(line))]
    return "".join(f"{line}\n" for line, entry in entries if not _OF_OTHERS.match(entry))


@contextmanager
def _connection(credential: Credential) -> Generator[Mapping[str, str]]:
    """The environment in which libpq connects with ``credential``, and reads no other setting of this machine."""
    with NamedTemporaryFile("w", encoding="ascii") as authority:
        authority.write(credential.ca or "")
        authority.flush()
        tls = {"PGSSLMODE": "prefer"}
        if credential.ca is not None:
            tls = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": authority.name}
        yield {
            "PGHOST": credential.host,
            "PGPORT": str(credential.port),
            "PGUSER": credential.username,
            "PGPASSWORD": credential.password or "",
            "PGDATABASE": credential.database or "",
            "PGPASSFILE": os.devnull,
            "PGCONNECT_TIMEOUT": "15",
            "PGAPPNAME": "aiodbclient",
            **tls,
        }
