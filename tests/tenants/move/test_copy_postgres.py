"""Databases of PostgreSQL are dumped and restored by programs, with the rights of the tenant alone."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from attrs import evolve
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import RaiseException

from aiodbclient import Engine
from aiodbclient.errors import ConfigurationError
from aiodbclient.sandbox._embedded import SUPERUSER
from aiodbclient.tenants import Credential
from aiodbclient.tenants._move.copier import Copier
from aiodbclient.tenants._move.programs import check_free
from aiodbclient.tenants._move.programs import run as run_program
from aiodbclient.tenants._naming import Names, names_of
from aiodbclient.tenants._servers.postgres import connection
from aiodbclient.tenants.errors import GrantError

from ...proc import command_lines
from ..leaks import leaks
from ..managed import INSTALLED
from ..servers import PASSWORD as SUPERPASSWORD
from ..servers import RestartablePostgres

_used = iter(range(10**6))
PASSWORD = "it's a \\ secret"


def evil_code(role: str) -> str:
    """Functions that raise ``role``, if who runs them may do that."""
    return f"""
CREATE FUNCTION public.deed() RETURNS boolean LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
  PERFORM set_config('role', 'none', false);
  EXECUTE 'ALTER ROLE "{role}" CREATEROLE';
  RETURN true;
EXCEPTION WHEN insufficient_privilege THEN RETURN true;
END $$;
CREATE FUNCTION public.evil(x int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.deed()';
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RestartablePostgres]:
    with closing(RestartablePostgres()) as server:
        yield server


@pytest.fixture(scope="module", params=INSTALLED, ids=lambda found: found.parent.name)
def older(request: pytest.FixtureRequest) -> Iterator[RestartablePostgres]:
    with closing(RestartablePostgres(request.param)) as server:
        yield server


def run(dsn: str, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    with Connection.connect(make_conninfo(dsn, dbname=database), autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
            rows = [] if cursor.description is None else cursor.fetchall()
    return rows


def credential(dsn: str, names: Names, login: str) -> Credential:
    host, port = (str(conninfo_to_dict(dsn)[each]) for each in ("host", "port"))
    return Credential(
        name=names.tenant,
        username=login,
        password=PASSWORD,
        database=names.database,
        host=host,
        port=int(port),
        engine=Engine.PG,
        cluster="cluster",
        cluster_name="tenants",
        created=datetime(2026, 1, 2, tzinfo=UTC),
    )


def made(dsn: str, tenant: str) -> tuple[Names, Credential, Credential]:
    """A tenant's database. Returns its names, the login that reads and the one that writes."""
    names = names_of(tenant, Engine.PG)
    ((version,),) = run(dsn, "SELECT current_setting('server_version_num')::int")
    assert isinstance(version, int)
    may_set = " WITH INHERIT FALSE, SET TRUE" if version >= 160000 else ""
    password = PASSWORD.replace("'", "''")
    login, reader = names.new_login([]), names.new_login([names.new_login([])])
    run(
        dsn,
        f'CREATE ROLE "{names.owner}"',
        f"CREATE ROLE \"{login}\" LOGIN NOINHERIT PASSWORD '{password}'",
        f"CREATE ROLE \"{reader}\" LOGIN PASSWORD '{password}'",
        f'GRANT "{names.owner}" TO "{login}"{may_set}',
        f'GRANT "{names.owner}" TO "{reader}"',
        f'CREATE DATABASE "{names.database}" OWNER "{names.owner}" TEMPLATE template0',
        f'ALTER ROLE "{login}" SET role = "{names.owner}"',
    )
    return names, credential(dsn, names, reader), credential(dsn, names, login)


def owned(dsn: str, names: Names, *statements: str) -> None:
    run(dsn, f'SET ROLE "{names.owner}"', *statements, database=names.database)


EVERYTHING = """
CREATE SCHEMA tools; CREATE EXTENSION hstore SCHEMA tools; COMMENT ON EXTENSION hstore IS 'ours';
CREATE TABLE t (id serial PRIMARY KEY, text text, more tools.hstore);
INSERT INTO t (text, more) SELECT 'x' || n, 'a=>1' FROM generate_series(1, 1000) n;
CREATE TABLE parts (n int) PARTITION BY RANGE (n); CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (10);
INSERT INTO parts VALUES (1), (2); CREATE SEQUENCE alone; SELECT nextval('alone'), nextval('alone');
SELECT lo_from_bytea(0, 'large'); CREATE VIEW v AS SELECT id FROM t;
CREATE FUNCTION secret() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 7';
REVOKE EXECUTE ON FUNCTION secret() FROM PUBLIC
"""


async def copier_of(names: Names, *servers: RestartablePostgres) -> Copier:
    versions = [str(run(each.dsn, "SHOW server_version")[0][0]) for each in servers]
    return await Copier.with_tools(names, versions[0], versions[-1], has_tls=False)


async def test_copy_has_everything_on_newer_server(older: RestartablePostgres, server: RestartablePostgres) -> None:
    tenant = f"whole{next(_used)}"
    names, reader, owner = made(older.dsn, tenant)
    run(older.dsn, "CREATE EXTENSION pg_stat_statements", database=names.database)  # the administrator's
    owned(older.dsn, names, EVERYTHING)
    copier = await copier_of(names, older, server)
    survey = await copier.inspect(reader, owner.username)
    assert survey.extensions == (("pg_stat_statements", "public"),)
    there, _, writer = made(server.dsn, tenant)
    run(server.dsn, "CREATE EXTENSION pg_stat_statements", database=there.database)
    with TemporaryFile() as file:
        await copier.dump(reader, file)
        await copier.restore(writer, file)
    assert await copier.count(writer) == await copier.count(reader)
    await copier.copy_settings(survey, writer)
    grants = "SELECT has_function_privilege('public', oid, 'EXECUTE'), pg_get_userbyid(proowner) FROM pg_proc"
    rows = run(server.dsn, f"{grants} WHERE proname = 'secret'", database=there.database)
    assert rows == [(False, names.owner)]
    assert (await copier.count(writer))["public.alone"] == "2 true"


@pytest.mark.parametrize(
    "column",
    ["n int CHECK (public.evil(n))", "n int, b boolean GENERATED ALWAYS AS (public.evil(n)) STORED"],
    ids=["check", "generated"],
)
async def test_restore_runs_code_as_tenant(server: RestartablePostgres, column: str) -> None:
    """A restore runs what the tenant wrote with the rights of the tenant. The administrator's would be noticed."""
    names, reader, writer = made(server.dsn, f"evil{next(_used)}")
    owned(server.dsn, names, evil_code(writer.username), f"CREATE TABLE t ({column})", "INSERT INTO t VALUES (1)")
    run(server.dsn, f'ALTER ROLE "{writer.username}" NOCREATEROLE')
    copier, raised = await copier_of(names, server), list[object]()
    with TemporaryFile() as file:
        await copier.dump(reader, file)
        for restoring in (writer, evolve(writer, username=SUPERUSER, password=SUPERPASSWORD)):
            run(server.dsn, f'DROP DATABASE "{names.database}"')
            run(server.dsn, f'CREATE DATABASE "{names.database}" OWNER "{names.owner}" TEMPLATE template0')
            await copier.restore(restoring, file)
            raised += run(server.dsn, f"SELECT rolcreaterole FROM pg_roles WHERE rolname = '{writer.username}'")
    assert raised == [(False,), (True,)]


async def test_copy_needs_programs_and_newer_server() -> None:
    assert Copier.refusal("18.6", "17.2") == "PostgreSQL 17.2 is older than 18.6"
    assert Copier.refusal("15.1", "18.6") == ""
    names = names_of("alpha", Engine.PG)
    assert (await Copier.with_tools(names, "18.6", "18.6", has_tls=False)).tools.version[0] == 18
    with pytest.raises(ConfigurationError, match="pg_dump and pg_restore of version 99 are required") as missing:
        await Copier.with_tools(names, "99.1", "99.1", has_tls=False)
    assert missing.value.advice == "install postgresql-client-99, and put its programs on PATH"


OBSTACLES = {  # what an administrator did, and what another server says of it
    "nothing": ("SELECT 1", ""),
    "table": ("CREATE TABLE theirs (n int)", "permission denied for table theirs"),
    "role": ("CREATE ROLE reporting; GRANT INSERT ON ours TO reporting", 'role "reporting" does not exist'),
}


@pytest.mark.parametrize("what", OBSTACLES)
async def test_obstacles_are_found_before_freeze(
    older: RestartablePostgres, server: RestartablePostgres, what: str
) -> None:
    """All but the rows is copied while nobody is locked out."""
    tenant, (statement, reason) = f"before{next(_used)}", OBSTACLES[what]
    names, reader, owner = made(older.dsn, tenant)
    owned(older.dsn, names, "CREATE TABLE ours (n int)", "INSERT INTO ours VALUES (1)")
    run(older.dsn, statement, database=names.database)
    _, _, writer = made(server.dsn, tenant)
    copier = await copier_of(names, older, server)
    survey = await copier.inspect(reader, owner.username)
    assert survey.bytes > 1_000_000

    with pytest.raises(GrantError, match=re.escape(reason)) if reason else nullcontext():
        await copier.try_copy(survey, reader, writer)

    if not reason:
        assert run(server.dsn, "TABLE ours", database=names.database) == []


async def test_long_statement_is_not_ended(server: RestartablePostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count may take longer than the administrator's statements, and than the tenant allows its own."""
    monkeypatch.setitem(connection._SETTINGS, "statement_timeout", "500")
    names, reader, _ = made(server.dsn, f"long{next(_used)}")
    slow = "CREATE POLICY slow ON t USING ((SELECT true FROM pg_sleep(0.6)))"
    forced = "ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    short = f"ALTER DATABASE {names.database} SET statement_timeout = 1"
    owned(server.dsn, names, "CREATE TABLE t AS SELECT 1 AS n", slow, forced, short)
    copier = await copier_of(names, server)
    assert (await copier.count(reader))["public.t"].split()[0] == "1"


HOSTILE = """
CREATE TYPE e AS ENUM ('a'); CREATE DOMAIN d AS text; CREATE TABLE t (n int, e e, d d);
INSERT INTO t VALUES (1, 'a', 'b');
CREATE FUNCTION bad(e) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE ''run''; END';
CREATE CAST (e AS text) WITH FUNCTION bad(e) AS IMPLICIT;
CREATE FUNCTION hashtextextended(text, bigint) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RAISE ''run''; END';
CREATE FUNCTION bad(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE ''run''; END';
CREATE OPERATOR + (FUNCTION = bad, LEFTARG = int, RIGHTARG = int)
"""


async def test_count_runs_no_code_of_tenant(server: RestartablePostgres) -> None:
    names, reader, _ = made(server.dsn, f"hostile{next(_used)}")
    owned(server.dsn, names, HOSTILE)
    copier = await copier_of(names, server)
    assert len((await copier.count(reader))["public.t"].split()) == 2  # the rows, and the only column of PostgreSQL's
    for control in ("SELECT e::text FROM t", "SET search_path = public, pg_catalog; SELECT hashtextextended('a', 0)"):
        with pytest.raises(RaiseException, match="run"):
            owned(server.dsn, names, control)


async def test_large_row_is_named(tmp_path: Path) -> None:
    program = tmp_path / "pg_dump"
    reports = 'pg_dump: error: Dumping the contents of table "t" failed', "ERROR:  invalid memory alloc request size 1"
    program.write_text("".join(["#!/bin/sh\n", *(f"echo '{each}' >&2\n" for each in reports), "exit 1"]))
    program.chmod(0o755)
    with pytest.raises(
        GrantError, match=r'table "t" failed \(a row is too large to be copied: make its values smaller'
    ):
        await run_program([str(program)], {})


async def test_cancelled_copy_leaves_no_program(server: RestartablePostgres) -> None:
    names, reader, _ = made(server.dsn, f"stopped{os.getpid()}")  # others may run this test beside it
    owned(server.dsn, names, "CREATE TABLE t (n int)")
    copier = await copier_of(names, server)
    with Connection.connect(make_conninfo(server.dsn, dbname=names.database)) as locking, TemporaryFile() as file:
        locking.execute("LOCK TABLE t")  # the dump waits for it
        dumping = asyncio.create_task(copier.dump(reader, file))
        while not (found := command_lines("pg_dump", names.owner)):
            await asyncio.sleep(0.02)
        assert not any("secret" in command for command in found)
        dumping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dumping
        assert not command_lines("pg_dump", names.owner)


async def test_an_error_holds_no_secret(server: RestartablePostgres) -> None:
    names, reader, _ = made(server.dsn, "failing")
    run(server.dsn, f'ALTER ROLE "{reader.username}" NOLOGIN')
    copier = await copier_of(names, server)
    with TemporaryFile() as file, pytest.raises(GrantError, match="is not permitted to log in") as failed:
        await copier.dump(reader, file)
    assert leaks(failed.value, PASSWORD) == []


def test_a_folder_without_room_is_refused(tmp_path: Path) -> None:
    check_free(tmp_path, 1)
    with pytest.raises(ConfigurationError, match="has too little free room"):
        check_free(tmp_path, 2**60)
