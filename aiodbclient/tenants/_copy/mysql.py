"""Dump and restore a MySQL database with ``mysqldump`` and ``mysql``, as a login of the tenant."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO

from .._credential import Credential
from .definers import Definers
from .programs import Copied, Programs, installed, missing, run

ENDING = ".sql"
_DUMP = (
    *("--single-transaction", "--quick", "--hex-blob", "--no-tablespaces", "--skip-comments", "--skip-add-drop-table"),
    *("--default-character-set=utf8mb4", "--routines", "--events", "--triggers", "--max-allowed-packet=1G"),
)
_OF_ORACLE = ("--set-gtid-purged=OFF", "--column-statistics=0")
# What a file says runs as SQL alone: no command of the client, and no file of this machine.
_RESTORE = (
    "--binary-mode",
    "--batch",
    "--comments",  # of routines
    "--local-infile=0",
    "--default-character-set=utf8mb4",
    "--max-allowed-packet=1G",
)


async def programs(source: str, target: str | None = None) -> Programs:
    """Find the programs to copy from a server of version ``source``. Raises ConfigurationError if there are none.

    Those of MySQL and of MariaDB are not interchangeable: each writes what the other's server refuses.
    """
    is_mariadb = "mariadb" in source.lower()
    names = [("mysqldump", "mysql")] + ([("mariadb-dump", "mariadb")] if is_mariadb else [])
    found = [each for pair in names for each in await installed(*pair)]
    fitting = [each for each in found if ("mariadb" in each.text.lower()) == is_mariadb]
    if not is_mariadb:
        fitting = [each for each in fitting if each.version >= (8, 0)]
    if fitting:
        return max(fitting, key=lambda each: each.version)
    there = ", ".join(sorted({" ".join(each.text.split()) for each in found})) or "none"
    package = "mariadb-client" if is_mariadb else "mysql-client 8.0 or newer, of MySQL and not of MariaDB"
    maker = "MariaDB" if is_mariadb else "MySQL"
    raise missing(f"mysqldump and mysql of {maker} are required, and found were: {there}", package)


async def dump(tools: Programs, credential: Credential, target: IO[bytes], copied: Copied) -> None:
    """Dump the database to ``target``, without DEFINER."""
    options = _DUMP + (() if _is_mariadb(tools) else _OF_ORACLE)
    with _connection(tools, credential) as (connection, files):
        command = [tools.dump, *connection, *options, credential.database or ""]
        await run(command, {}, stdout=target, through=Definers().feed, pass_fds=files, copied=copied)


async def restore(tools: Programs, credential: Credential, source: IO[bytes], copied: Copied) -> None:
    """Restore a dump into the empty database. What is in it has the rights of the login alone."""
    source.seek(0)
    with _connection(tools, credential) as (connection, files):
        command = [tools.restore, *connection, *_RESTORE, credential.database or ""]
        await run(command, {}, stdin=source, pass_fds=files, copied=copied)


def _is_mariadb(tools: Programs) -> bool:
    return "mariadb" in tools.text.lower()


@contextmanager
def _connection(tools: Programs, credential: Credential) -> Generator[tuple[list[str], list[int]]]:
    """The first options of a program that connects with ``credential``, and the file that it inherits for them."""
    with ExitStack() as files:
        settings = files.enter_context(TemporaryFile("w+", encoding="utf-8"))
        lines = [
            "[client]",
            f"host={_quoted(credential.host)}",
            f"port={credential.port}",
            f"user={_quoted(credential.username)}",
            f"password={_quoted(credential.password or '')}",
        ]
        verify = "ssl-verify-server-cert" if _is_mariadb(tools) else "ssl-mode=VERIFY_IDENTITY"
        if credential.ca is not None:
            authority = files.enter_context(NamedTemporaryFile("w", encoding="ascii"))
            authority.write(credential.ca)
            authority.flush()
            lines += [f"ssl-ca={_quoted(authority.name)}", verify]
        elif _is_mariadb(tools):
            lines.append("skip-ssl-verify-server-cert")
        settings.write("\n".join(lines) + "\n")
        settings.flush()
        settings.seek(0)
        handle = settings.fileno()
        logins = [] if _is_mariadb(tools) else ["--no-login-paths"]
        yield [f"--defaults-file=/dev/fd/{handle}", *logins, "--protocol=tcp"], [handle]


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
