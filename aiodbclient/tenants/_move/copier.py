"""Copy a PostgreSQL database with ``pg_dump`` and ``pg_restore``.

Nothing here runs as the administrator: what a tenant wrote may run in each of these sessions.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from tempfile import TemporaryFile
from typing import IO, Any, TypeAlias

import psycopg
from attrs import frozen
from psycopg.sql import SQL, Composed, Identifier, Literal

from ..._masking import Secret
from .._credential import Credential
from .._libpq import one_line
from .._naming import Names
from .._servers.postgres.connection import CAFile, connect, options_from, rows, verbatim
from .._servers.postgres.rights import set_value
from ..errors import GrantError
from .programs import NEW_SETTING, Tools, run, text_of

_ENTRY = re.compile(r"\d+; \d+ \d+ (.*)")
_PART_OF_LOCKS = 0.8  # that a dump may take: the others are for other tenants
_AT_ONCE = 50  # tables that one statement counts
# The text of a value depends on these settings, and ``count`` compares texts.
_SETTINGS_OF_A_SESSION = SQL("""
SET statement_timeout = 0; SET idle_session_timeout = 0; SET search_path = '';
SET DateStyle = ISO; SET TimeZone = 'UTC'; SET extra_float_digits = 1; SET bytea_output = hex
""")

_DATABASE = SQL("""
SELECT pg_database_size(d.oid), d.datconnlimit, pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
  coalesce(to_jsonb(d)->>'datlocprovider', 'c'), coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', '')
FROM pg_database d WHERE d.datname = current_database()
""")
# Those that the administrator made.
_EXTENSIONS = SQL("""
SELECT e.extname, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname <> 'plpgsql' AND pg_get_userbyid(e.extowner) <> %(owner)s AND pg_get_userbyid(e.extowner) !~ %(form)s
ORDER BY e.oid  -- one may require an earlier one
""")
_LOCKS = SQL("""
SELECT count(*), current_setting('max_locks_per_transaction')::bigint
  * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint)
FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
""")
_SETTINGS = SQL("""
SELECT s.setrole <> 0, s.setdatabase <> 0, split_part(each, '=', 1), substr(each, strpos(each, '=') + 1)
FROM pg_db_role_setting s, unnest(s.setconfig) each
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
AND (s.setrole = to_regrole(quote_ident(%(login)s))::oid OR s.setrole = 0 AND s.setdatabase <> 0)
AND split_part(each, '=', 1) <> 'role'
""")
# What is counted: each table, the columns whose values are compared, and the condition that the rows have which a dump
# takes of an extension's table; and each sequence. ``_count`` has the statement. It calls no function, cast or operator
# of a tenant: the columns are of PostgreSQL's own types, and are not generated.
_COUNTED = SQL("""
SELECT format('%%I.%%I', nspname, relname), relkind = 'S',
  ARRAY(
    SELECT quote_ident(attname) || CASE atttypid WHEN 'money'::regtype THEN '::numeric' ELSE '' END
    FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    AND atttypid = ANY (%(types)s::regtype[]) ORDER BY attnum),
  CASE relkind WHEN 'r' THEN extcondition[array_position(extconfig, c.oid)] END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
LEFT JOIN pg_extension e ON e.oid = d.refobjid
WHERE c.relkind IN ('r', 'S') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
AND n.nspname !~ '^pg_toast' AND (NOT %(members)s OR e.oid IS NOT NULL AND c.oid <> ALL (coalesce(extconfig, '{}')))
ORDER BY c.oid
""")
_NUMBERS, _TEXTS = "bool int2 int4 int8 numeric float4 float8", "text varchar bpchar uuid jsonb bytea"
_HASHED = f"{_NUMBERS} {_TEXTS} money date time timestamp timestamptz".split()
# The members of extensions, and whether they are the owner's: ALTER EXTENSION may have added these, and a dump leaves
# them out. A cast has no owner, but its types have.
_MEMBERS = SQL("""
SELECT extname, upper(i.type), i.identity, EXISTS (
    SELECT FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid
    WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.classid = d.classid
    AND s.objid = d.objid AND s.refclassid = 'pg_authid'::regclass AND s.deptype = 'o' AND rolname = %(owner)s)
  OR d.classid = 'pg_cast'::regclass AND EXISTS (
    SELECT FROM pg_cast c JOIN pg_type t ON t.oid IN (castsource, casttarget)
    WHERE c.oid = d.objid AND pg_get_userbyid(typowner) = %(owner)s)
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid, pg_identify_object(d.classid, d.objid, 0) i
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' ORDER BY 1, 2, 3
""")
# What no other server has: objects of other roles than the owner, and rights of the tenant's logins.
_OBSTACLES = SQL("""
SELECT pg_describe_object(classid, objid, objsubid), rolname, deptype = 'o' FROM pg_shdepend s
JOIN pg_roles r ON r.oid = refobjid
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND refclassid = 'pg_authid'::regclass
AND (deptype = 'o' AND rolname <> %(owner)s AND classid NOT IN ('pg_default_acl'::regclass, 'pg_extension'::regclass)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = s.classid AND d.objid = s.objid AND d.deptype = 'e')
  OR deptype IN ('a', 'r') AND rolname ~ %(form)s) ORDER BY 3 DESC, 1 LIMIT 1
""")
_COUNT_LARGE_OBJECTS = SQL("SELECT 'large objects', count(*)::text FROM pg_largeobject_metadata")
# The entries that are left out, without the role at their end.
_EXISTING = SQL("""
SELECT kind || extname FROM pg_extension, (VALUES ('EXTENSION - '), ('COMMENT - EXTENSION ')) AS of (kind)
UNION ALL SELECT 'SCHEMA - ' || nspname FROM pg_namespace
""")

_Ask: TypeAlias = Callable[..., Awaitable[list[Any]]]


@frozen(kw_only=True)
class DatabaseInfo:
    """What is known of a database that can be copied."""

    bytes: int
    tables: int
    extensions: tuple[tuple[str, str], ...]  # that the administrator makes, with their schemas
    connection_limit: int
    locale: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]  # of the database
    login_settings: tuple[tuple[bool, str, str], ...]  # and whether each is of this database alone


@frozen
class Copier:
    """Copies one tenant's database."""

    names: Names
    tools: Tools
    version: int  # of the source

    @property
    def options(self) -> str:
        """For libpq. They override settings of the database, the login and the server."""
        timeouts = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"]
        if self.version >= NEW_SETTING:
            timeouts.append("transaction_timeout")
        return " ".join(f"-c {timeout}=0" for timeout in timeouts)

    async def inspect(self, source: Credential, login: str) -> DatabaseInfo:
        """Read what is to be copied, and raise GrantError if no server could have a copy of it."""
        # ``source`` may read all of it, ``login`` is the tenant's.
        async with self._session(source) as ask:
            ((size, limit, *locale),) = await ask(_DATABASE)
            extensions = await ask(_EXTENSIONS, {"owner": self.names.owner, "form": self.names.login_pattern})
            ((tables, locks),) = await ask(_LOCKS)
            settings = await ask(_SETTINGS, {"login": login})
            obstacles = await ask(_OBSTACLES, {"owner": self.names.owner, "form": self.names.login_pattern})
        if tables > locks * _PART_OF_LOCKS:
            raise GrantError(
                f"it has {tables:,} tables, and pg_dump would take most of the {locks:,} locks of the server"
            )
        for what, role, is_owned in obstacles:
            if is_owned:
                raise GrantError(f"{what} belongs to {role!r}: make {self.names.owner!r} its owner, or drop it")
            raise GrantError(
                f"{what} names the login {role!r}, which ends with the move: grant to {self.names.owner!r} instead"
            )
        return DatabaseInfo(
            bytes=size,
            tables=tables,
            extensions=tuple(extensions),
            connection_limit=limit,
            locale=tuple(locale),
            settings=tuple((name, value) for of_login, _, name, value in settings if not of_login),
            login_settings=tuple((where, name, value) for of_login, where, name, value in settings if of_login),
        )

    async def try_copy(self, info: DatabaseInfo, source: Credential, target: Credential) -> None:
        """Copy all but the rows, or raise GrantError if the database of ``target`` cannot have a copy."""
        async with self._session(target) as ask:
            ((_, _, *locale),) = await ask(_DATABASE)
        if tuple(locale) != info.locale:
            ours, theirs = (" ".join(filter(None, each)) for each in (info.locale, locale))
            raise GrantError(f"encoding and locale differ: {ours} and {theirs}")
        with TemporaryFile() as file:
            await self.dump(source, file, "--schema-only")
            await self.restore(target, file)
        await self.copy_settings(info, target)
        await self.check_members(source, target)
        async with self._session(target) as ask:
            await ask(SQL("SET ROLE NONE; ALTER ROLE CURRENT_USER RESET ALL"))

    async def check_members(self, source: Credential, target: Credential) -> None:
        """Raise GrantError for what a dump leaves out because it is a member of an extension."""
        async with self._session(source) as ask, self._session(target) as ask_target:
            members, of_target = [await each(_MEMBERS, {"owner": self.names.owner}) for each in (ask, ask_target)]
        counted, copied = [await self.count(each, members=True) for each in (source, target)]
        brought = {(extension, kind, name) for extension, kind, name, _ in of_target}
        for extension, kind, name, is_owners in members:
            is_brought = not is_owners or (extension, kind, name) in brought
            if not is_brought or counted.get(name) != copied.get(name):
                what, instead = ("what is in it", ", or empty it") if is_brought else ("it", "")
                raise GrantError(
                    f"the {kind.lower()} {name} is a member of the extension {extension!r}, so a dump leaves {what} "
                    f"out: run ALTER EXTENSION {Identifier(extension).as_string(None)} DROP {kind} {name}{instead}"
                )

    async def dump(self, source: Credential, file: IO[bytes], *more: str) -> None:
        """Dump the database, with ``more`` options."""
        await self._run(self.tools.dump, source, "--format=custom", "--compress=1", *more, stdout=file)

    async def restore(self, target: Credential, file: IO[bytes]) -> None:
        """Restore a dump, which may be hostile."""
        entries = await self._entries(target, file)
        file.seek(0)
        with TemporaryFile() as listed:  # without a name, so a process that dies leaves nothing
            listed.writelines(f"{each}\n".encode(errors="surrogateescape") for each in entries)
            listed.seek(0)
            options = "--no-owner", "--exit-on-error", f"--use-list=/dev/fd/{listed.fileno()}"
            await self._run(self.tools.restore, target, *options, stdin=file, inherited=listed)
        async with self._session(target) as ask:
            await ask(SQL("ANALYZE"))

    async def _run(self, program: str, credential: Credential, *options: str, **files: IO[bytes]) -> None:
        """Run a program on a database as the owner of the tenant's objects, whatever this machine has set for libpq."""
        # The connection ends soon after the server has vanished.
        alive = "keepalives_idle=5 keepalives_interval=5 keepalives_count=6 tcp_user_timeout=35000"
        place = f"--dbname=dbname='{credential.database}' {alive}"
        environment = {name: Secret(value) for name, value in credential.env().items() if name.startswith("PG")} | {
            "PGSSLMODE": "prefer",  # as our sessions, if the cluster has no CA
            "PGPASSFILE": os.devnull,
            "PGCONNECT_TIMEOUT": "15",
            "PGAPPNAME": "aiodbclient",
            "PGOPTIONS": f"{self.options} -c lc_monetary=C",  # the text of ``money`` depends on it
        }
        authority = CAFile(credential.ca or "")  # its file is there as long as this runs
        if credential.ca is not None:
            environment |= {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": authority.path()}
        await run([program, "--no-password", f"--role={self.names.owner}", *options, place], environment, **files)

    async def _entries(self, target: Credential, file: IO[bytes]) -> list[str]:
        """List the entries of a dump that are restored: all but the extensions and schemas that are already there."""
        # The tenant may neither comment on these extensions nor change what other roles than its owner give by default.
        file.seek(0)
        listing = await text_of([self.tools.restore, "--list"], file)
        async with self._session(target) as ask:
            existing = {entry for (entry,) in await ask(_EXISTING)}
        entries = [(line, match[1]) for line in listing.split("\n") if (match := _ENTRY.match(line))]
        return [
            line
            for line, entry in entries
            if entry.rpartition(" ")[0] not in existing
            and (entry.endswith(f" {self.names.owner}") or not entry.startswith("DEFAULT ACL "))
        ]

    async def count(self, credential: Credential, *, members: bool = False) -> Mapping[str, str]:
        """Of each table, or of those of extensions, its rows and sums of hashes of its values; where sequences are."""
        async with self._session(credential) as ask:
            found = {} if members else dict(await ask(_COUNT_LARGE_OBJECTS))
            counts = [_count(*each) for each in await ask(_COUNTED, {"types": _HASHED, "members": members})]
            for at in range(0, len(counts), _AT_ONCE):
                found |= dict(await ask(SQL(" UNION ALL ").join(counts[at : at + _AT_ONCE])))
        return found

    async def copy_settings(self, info: DatabaseInfo, target: Credential) -> None:
        """Copy the settings of the login. The administrator copies those of the database."""
        async with self._session(target) as ask:
            await ask(SQL("SET ROLE NONE"))
            for in_database, name, value in info.login_settings:
                where = SQL(" IN DATABASE {}").format(Identifier(target.database)) if in_database else SQL("")
                try:
                    await ask(set_value(SQL("ROLE {}{}").format(Identifier(target.username), where), name, value))
                except GrantError as error:
                    what = Identifier(*name.split("."))
                    reset = SQL("ALTER ROLE SESSION_USER{} RESET {}").format(where, what).as_string(None)
                    raise GrantError(f"{error}: as the tenant's login, run {reset}") from None

    @asynccontextmanager
    async def _session(self, credential: Credential) -> AsyncGenerator[_Ask]:
        """A session as the owner of the tenant's objects, without a bound of time for its statements."""
        options = options_from(credential.uri.partition("?")[0]) | {"options": self.options}
        ca = None if credential.ca is None else CAFile(credential.ca)
        try:
            server = await connect(options, ca, "aiodbclient")
        except psycopg.Error as error:
            reason = one_line(error)
            advice = ": close sessions of the tenant, or raise the limit" if "too many connections" in reason else ""
            raise GrantError(f"PostgreSQL refused a login to copy the database: {reason}{advice}") from None
        async with server:
            ask = partial(rows, server)
            await ask(_SETTINGS_OF_A_SESSION)
            await ask(SQL("SET ROLE {}").format(Identifier(self.names.owner)))
            yield ask


def _count(table: str, is_sequence: bool, columns: Sequence[str], condition: str | None) -> Composed:
    """The statement that counts rows and sums up a hash of each column of a table, or reads where a sequence is."""
    hashes = [f'coalesce(sum(hashtextextended({each}::text COLLATE "C", 0)), 0)' for each in columns]
    counted = f"array_to_string(ARRAY[{', '.join(['count(*)', *hashes])}], ' ')"
    what = "last_value::text || ' ' || is_called" if is_sequence else counted
    return SQL("SELECT {}, {}").format(Literal(table), verbatim(f"{what} FROM {table} {condition or ''}"))
