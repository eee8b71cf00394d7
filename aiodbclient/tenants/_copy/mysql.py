"""Copy a MySQL database with ``mysqldump`` and ``mysql``."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from itertools import groupby
from math import inf
from operator import itemgetter
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO, Any, TypeAlias

from ..._masking import Secret
from .._credential import Credential
from .._naming import Names
from .._servers import LoginRefusedError, ServerAwayError
from .._servers.mysql.session import LOCK_SECONDS, identifier, opened, options_of
from ..errors import GrantError
from . import Copier, Survey, installed, missing, run

_OLDEST = (8, 0)
# s for which a server may take or give nothing. MySQL waits for ever on a full disk, or for a lock that a tenant holds.
_PATIENCE = 60.0
_FIRST = ("--no-login-paths", "--protocol=tcp", "--default-character-set=utf8mb4", "--max-allowed-packet=1G")
_DUMP = (
    *("--single-transaction", "--quick", "--hex-blob", "--no-tablespaces", "--skip-comments", "--skip-add-drop-table"),
    *("--skip-triggers", "--set-gtid-purged=OFF", "--column-statistics=0"),
)
# What a file says runs as SQL alone: no command of the client, and no file of this machine. --comments: of routines.
_RESTORE = ("--binary-mode", "--batch", "--local-infile=0", "--comments")
_TABLES = """
SELECT table_name, coalesce(data_length + index_length, 0) FROM information_schema.tables
WHERE table_schema = database() AND table_type = 'BASE TABLE' ORDER BY 1
"""
_VIEWS = "SELECT table_name FROM information_schema.views WHERE table_schema = database()"
_SCHEMA = """
SELECT default_character_set_name, default_collation_name FROM information_schema.schemata
WHERE schema_name = database()
"""
_COLUMNS = """
SELECT table_name, column_name, data_type FROM information_schema.columns JOIN information_schema.tables
USING (table_schema, table_name) WHERE table_schema = database() AND table_type = 'BASE TABLE'
AND generation_expression = ''
AND data_type IN ('float', 'double', 'json', 'mediumtext', 'longtext', 'mediumblob', 'longblob') ORDER BY 1, 2
"""
# Values of a column that are others in a dump, which is text. Compared as JSON, a date is no string.
_MINUS_ZERO = "({0} = 0 AND left(cast({0} AS char), 1) = '-')"
_CHANGED = {
    "float": (
        "a FLOAT of more than six digits (ALTER it to DOUBLE)",
        f"{_MINUS_ZERO} OR {{0}} <> cast(cast({{0}} AS char) AS float)",
    ),
    "double": ("-0", _MINUS_ZERO),
    "json": ("a date, a binary string or a long number inside JSON", "{0} <> cast(cast({0} AS char) AS json)"),
}
# What no dump has: the tables of MySQL 9 that list it, and how their columns begin.
_NOT_COPIED = {"JSON_DUALITY_VIEWS": ("JSON duality view", "TABLE"), "LIBRARIES": ("library", "LIBRARY")}
_NO_SUCH_TABLE = (1109,)  # of ``information_schema``
Rows: TypeAlias = Callable[..., Awaitable[list[Any]]]  # as ``Session.rows``


class MySQLCopier(Copier):
    """Copies a MySQL database."""

    without_rows = "--no-data"

    @staticmethod
    def refusal(source: str, target: str) -> str:
        return f"MySQL {target} is older than {source}" if _version(target) < _version(source) else ""

    @classmethod
    async def with_tools(cls, names: Names, source: str, target: str, *, has_tls: bool) -> MySQLCopier:
        found = await installed("mysqldump", "mysql")
        if fitting := [each for each in found if "mariadb" not in each.text.lower() and each.version >= _OLDEST]:
            return cls(names, max(fitting, key=lambda each: each.version))
        there = ", ".join(sorted({" ".join(each.text.split()) for each in found})) or "none"
        raise missing(
            f"mysqldump and mysql of MySQL are required, and found were: {there}",
            "mysql-client 8.0 or newer, of MySQL and not of MariaDB",
        )

    async def survey(self, source: Credential, login: str) -> Survey:
        async with _session(source) as rows:
            await rows("SET SESSION information_schema_stats_expiry = 0")  # otherwise up to a day old
            tables, case = await rows(_TABLES), await rows("SELECT @@lower_case_table_names")
            refusals, longest = await _refusals(rows), (0, "")
            for table, columns in groupby(await rows(_COLUMNS), itemgetter(0)):
                length, changed = await _values(rows, table, [each[1:] for each in columns])
                refusals += changed
                longest = max(longest, (length, table))
        if refusals:
            raise GrantError("; ".join(refusals))
        size = sum(int(each) for _, each in tables)
        return Survey(bytes=size, tables=len(tables), facts={"case": case, "longest": longest})

    async def try_copy(self, survey: Survey, source: Credential, stored_programs: str, target: Credential) -> None:
        length, table = survey.facts["longest"]
        async with _session(target) as rows:
            ((packet,),) = await rows("SELECT @@max_allowed_packet")
            if survey.facts["case"] != await rows("SELECT @@lower_case_table_names"):
                raise GrantError("lower_case_table_names differs")
        if length > packet:
            raise GrantError(f"a row of {table!r} may need {length:,} bytes, and its max_allowed_packet is {packet:,}")
        await super().try_copy(survey, source, stored_programs, target)

    async def dump(self, source: Credential, stored_programs: str, file: IO[bytes], *more: str) -> None:
        async with _session(source) as rows:
            views = [f"--ignore-table={source.database}.{name}" for (name,) in await rows(_VIEWS)]
            ((character_set, collation),) = await rows(_SCHEMA)
        await _run(self.tools.dump, source, *_DUMP, *more, *views, source.database, stdout=file)
        file.seek(0, os.SEEK_END)
        # Of the database: the parameters and variables of a routine get them when it is made.
        file.write(f"ALTER DATABASE CHARACTER SET {character_set} COLLATE {collation};\n{stored_programs}".encode())
        file.flush()

    async def restore(self, target: Credential, file: IO[bytes]) -> None:
        file.seek(0)
        await _run(self.tools.restore, target, *_RESTORE, target.database, stdin=file)

    async def count(self, credential: Credential) -> Mapping[str, str]:
        found = dict[str, str]()
        async with _session(credential) as rows:
            for name, _ in await rows(_TABLES):
                ((number,),) = await rows(f"SELECT count(*) FROM {identifier(name)}")
                found[name] = str(number)
        return found

    async def finish(self, survey: Survey, target: Credential, events: str) -> None:
        if events:
            with TemporaryFile() as file:
                file.write(events.encode())
                file.flush()
                await self.restore(target, file)


async def _refusals(rows: Rows) -> list[str]:
    """Name what no copy would have."""
    found = list[str]()
    for table, (kind, column) in _NOT_COPIED.items():
        query = f"SELECT {column}_NAME FROM information_schema.{table} WHERE {column}_SCHEMA = database() ORDER BY 1"
        if names := [repr(name) for (name,) in await rows(query, fine=_NO_SUCH_TABLE)]:
            found.append(f"no dump has a {kind}: drop {', '.join(names)}, and make it again afterwards")
    return found


async def _values(rows: Rows, table: str, columns: Sequence[tuple[str, str]]) -> tuple[int, list[str]]:
    """Read a table. Return the most bytes that a dump needs for a row, and what a dump would change."""
    length = " + ".join(f"2 * coalesce(length({identifier(name)}), 0)" for name, _ in columns)
    checked = [(name, *_CHANGED[kind]) for name, kind in columns if kind in _CHANGED]
    wanted = ", ".join(
        f"max({each})" for each in [length, *(test.format(identifier(name)) for name, _, test in checked)]
    )
    [(longest, *are_there)] = await rows(f"SELECT {wanted} FROM {identifier(table)}")
    changed = [
        f"a dump changes {what}, such as in the column {f'{table}.{name}'!r}"
        for (name, what, _), is_there in zip(checked, are_there, strict=True)
        if is_there
    ]
    return int(longest or 0), changed


@asynccontextmanager
async def _session(credential: Credential) -> AsyncGenerator[Rows]:
    """Run statements as a login of the tenant, without a bound of time."""
    options = options_of(credential.uri) | {"db": credential.database}
    try:
        session = await opened(options, credential.ssl_context(), prepared=False)
    except (LoginRefusedError, ServerAwayError) as refused:
        raise GrantError(f"MySQL refused a login to copy the database: {refused}") from None
    async with aclosing(session):
        await session.rows(f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}")  # a tenant can hold one for ever
        yield partial(session.rows, seconds=inf)


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:2]))


async def _run(
    program: str, credential: Credential, *options: str, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
) -> None:
    """Run a program of MySQL, which reads where and as whom to connect in a file that it inherits."""
    with NamedTemporaryFile("w", encoding="ascii") as authority, TemporaryFile("w+", encoding="utf-8") as settings:
        authority.write(credential.ca or "")
        authority.flush()
        settings.write(_settings(credential, authority.name))
        settings.flush()
        settings.seek(0)
        handle = settings.fileno()
        command = [program, f"--defaults-file=/dev/fd/{handle}", *_FIRST, *options]
        await run(command, {}, stdin=stdin, stdout=stdout, pass_fds=[handle], patience=_PATIENCE)


def _settings(credential: Credential, authority: str) -> Secret:
    values = options_of(credential.uri)
    if credential.ca is not None:
        values |= {"ssl-ca": authority, "ssl-mode": "VERIFY_IDENTITY"}
    escaped = {name: str(value).replace("\\", "\\\\").replace('"', '\\"') for name, value in values.items()}
    return Secret("[client]\n" + "".join(f'{name}="{value}"\n' for name, value in escaped.items()))
