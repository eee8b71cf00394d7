"""What a tenant wrote gains nothing by being moved: the programs that copy it have the rights of the tenant alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import psycopg
import pytest
from attrs import evolve
from psycopg.conninfo import make_conninfo
from psycopg.errors import RaiseException

from aiodbclient import Engine
from aiodbclient._masking import Secret
from aiodbclient.errors import ConfigurationError
from aiodbclient.tenants import Credential, TenantAction, Tenants
from aiodbclient.tenants._move import job
from aiodbclient.tenants._move.copier import Copier
from aiodbclient.tenants._move.programs import check_free, tools_for
from aiodbclient.tenants._move.programs import run as run_program
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers.postgres import connection
from aiodbclient.tenants.errors import GrantError

from ...proc import command_lines
from ...thorough import first_of
from ...waiting import HANG, settle, until
from ..conftest import only, present
from ..leaks import leaks
from ..moves import Two, stepped
from ..programs import admin_of, ask, refusal, session_of


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


POWERS = """
SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication FROM pg_roles
WHERE rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication ORDER BY 1
"""
MEMBERS = """
SELECT pg_get_userbyid(roleid), pg_get_userbyid(member) FROM pg_auth_members
WHERE pg_get_userbyid(roleid) IN (SELECT rolname FROM pg_roles WHERE rolcreaterole OR rolsuper OR oid < 16384)
ORDER BY 1, 2
"""
CODE = {
    "check": "CREATE TABLE t (n int CHECK (public.evil(n)))",
    "generated column": "CREATE TABLE t (n int, b boolean GENERATED ALWAYS AS (public.evil(n)) STORED)",
    "trigger": (
        "CREATE TABLE t (n int); CREATE FUNCTION public.fire() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM public.deed(); RETURN NEW; END'; "
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION public.fire(); "
        "ALTER TABLE t ENABLE ALWAYS TRIGGER g"
    ),
}


@pytest.mark.parametrize("code", first_of(CODE, 2))
async def test_move_runs_code_as_tenant(two: Two, tenants: Tenants, alpha: Credential, code: str) -> None:
    target = await made_there(two, "witness")
    before = [await ask(each, question) for each in (alpha, target) for question in (POWERS, MEMBERS)]
    [(owner,)] = await ask(alpha, "SELECT current_user::text")  # a role that both clusters have
    await ask(alpha, evil_code(owner), CODE[code], "INSERT INTO t VALUES (1)")
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert (moved.error, moved.action) == (None, TenantAction.MOVED)
    current = present(moved.credential)
    assert await ask(current, "SELECT n FROM t") == [(1,)]
    after = [await ask(each, question) for each in (current, target) for question in (POWERS, MEMBERS)]
    assert after == before

    uri = (await two.new.info()).connection.uri or ""
    doadmin = make_conninfo(uri, dbname=current.database)
    async with await psycopg.AsyncConnection.connect(doadmin, autocommit=True) as session:
        await session.execute("SELECT public.deed()")
        assert await ask(current, POWERS) != before[0], "it would not be noticed"
        await session.execute(f'ALTER ROLE "{owner}" NOCREATEROLE')  # the next test compares the clusters' roles


async def made_there(two: Two, name: str) -> Any:
    """A tenant on the other cluster."""

    async def place(*_: object) -> str:
        return two.new.id

    return await two.tenants(choose_cluster=place).ensure(name)


LET_IN = """
CREATE FUNCTION let_in() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
$$BEGIN GRANT CONNECT ON DATABASE "{}" TO PUBLIC; END$$
"""


@pytest.mark.parametrize("by", ["a neighbour", "the administrator"])
async def test_nobody_enters_frozen_database(two: Two, tenants: Tenants, alpha: Credential, by: str) -> None:
    """A write to the old database would be lost, though it is acknowledged.

    A neighbour has a leaked credential, and lets everybody in by a function that it owns as the tenant. That the
    administrator, who may do so, lets a program in is the control.
    """
    evil = await tenants.ensure("evil")
    await ask(alpha, "CREATE TABLE t (n int[])", "INSERT INTO t VALUES ('{0}')", "GRANT ALL ON t TO PUBLIC")
    if by == "a neighbour":
        await refusal(
            evil, f'GRANT ALL ON DATABASE "{evil.database}" TO PUBLIC', "GRANT ALL ON SCHEMA public TO PUBLIC"
        )
        await refusal(alpha, LET_IN.format(alpha.database), database=evil.database)
    frozen, tried, acknowledged = asyncio.Event(), asyncio.Event(), [0]

    async def intrude() -> None:
        for number in range(1, 10**6):
            if by == "a neighbour":
                await refusal(evil, "SELECT let_in()")
            else:
                with suppress(psycopg.Error):  # the move has dropped it
                    await ask(await admin_of(two.old), f'GRANT CONNECT ON DATABASE "{alpha.database}" TO PUBLIC')
            if not await refusal(alpha, f"UPDATE t SET n = '{{{number}}}'"):
                acknowledged.append(number)
            if number > 10:
                tried.set()

    async def wait(*arguments: object) -> None:
        if "--schema-only" not in arguments:
            frozen.set()
            await tried.wait()

    with stepped(Copier, "dump", after=wait):
        moving = asyncio.ensure_future(only(tenants.move(["alpha"], to=two.new)))
        await frozen.wait()
        intruding = asyncio.ensure_future(intrude())
        moved = await moving
    intruding.cancel()
    with suppress(asyncio.CancelledError):
        await intruding
    assert moved.error is None
    [(found,)] = await ask(moved.credential, "SELECT n FROM t")
    assert found == [0]
    assert (acknowledged == [0]) is (by == "a neighbour")


async def copier_of(two: Two) -> Copier:
    return Copier(names_of("alpha", Engine.PG, two.prefix), await tools_for(18, 18, has_tls=False), 18)


async def test_copy_needs_programs() -> None:
    assert (await tools_for(18, 18, has_tls=False)).version == 18
    with pytest.raises(ConfigurationError, match="pg_dump and pg_restore of version 99 are required") as missing:
        await tools_for(99, 99, has_tls=False)
    assert missing.value.advice == "install postgresql-client-99, and put its programs on PATH"


async def test_invalid_setting_of_login_is_named(two: Two, alpha: Credential) -> None:
    """Such as one that the other server does not have."""
    copier = await copier_of(two)
    info = evolve(await copier.inspect(alpha, alpha.username), login_settings=((True, "gone", "1"),))
    with pytest.raises(
        GrantError, match=r'"gone": as the tenant\'s login, run ALTER ROLE SESSION_USER IN .* RESET "gone"'
    ):
        await copier.copy_settings(info, alpha)


async def test_long_count_is_not_ended(two: Two, alpha: Credential, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count may take longer than the administrator's statements, and than the tenant allows its own."""
    monkeypatch.setitem(connection._SETTINGS, "statement_timeout", "500")
    await ask(
        alpha,
        "CREATE TABLE t AS SELECT 1 AS n",
        "CREATE POLICY slow ON t USING ((SELECT true FROM pg_sleep(0.6)))",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "SET ROLE NONE",
        "ALTER ROLE CURRENT_USER SET statement_timeout = 1",
    )
    assert (await (await copier_of(two)).count(alpha))["public.t"].split()[0] == "1"


HOSTILE = """
CREATE TYPE e AS ENUM ('a'); CREATE DOMAIN d AS text; CREATE TABLE t (n int, e e, d d);
INSERT INTO t VALUES (1, 'a', 'b');
CREATE FUNCTION bad(e) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE ''run''; END';
CREATE CAST (e AS text) WITH FUNCTION bad(e) AS IMPLICIT;
CREATE FUNCTION hashtextextended(text, bigint) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RAISE ''run''; END';
CREATE FUNCTION bad(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE ''run''; END';
CREATE OPERATOR + (FUNCTION = bad, LEFTARG = int, RIGHTARG = int)
"""


async def test_count_runs_no_code_of_tenant(two: Two, alpha: Credential) -> None:
    await ask(alpha, HOSTILE, "SET ROLE NONE", "ALTER ROLE CURRENT_USER SET search_path = public, pg_catalog")
    counted = (await (await copier_of(two)).count(alpha))["public.t"]
    assert len(counted.split()) == 2  # the rows, and the only column of PostgreSQL's
    for control in ("SELECT e::text FROM t", "SET search_path = public, pg_catalog; SELECT hashtextextended('a', 0)"):
        with pytest.raises(RaiseException, match="run"):
            await ask(alpha, control)


async def test_large_row_is_named(tmp_path: Path) -> None:
    program = tmp_path / "pg_dump"
    reports = 'pg_dump: error: Dumping the contents of table "t" failed', "ERROR:  invalid memory alloc request size 1"
    program.write_text("".join(["#!/bin/sh\n", *(f"echo '{each}' >&2\n" for each in reports), "exit 1"]))
    program.chmod(0o755)
    with pytest.raises(
        GrantError, match=r'table "t" failed \(a row is too large to be copied: make its values smaller'
    ):
        await run_program([str(program)], {})


async def test_cancelled_program_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\nsleep 100")
    program.chmod(0o755)
    running = asyncio.ensure_future(run_program([str(program)], {}))
    await until(lambda: command_lines(str(program)))
    await settle()  # it reads what the program reports
    running.cancel()
    async with asyncio.timeout(HANG):
        with pytest.raises(asyncio.CancelledError):
            await running
    assert not command_lines(str(program))


async def test_cancelled_move_leaves_no_program(
    two: Two, tenants: Tenants, alpha: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does its command line show a password."""
    monkeypatch.setattr(job, "new_password", lambda: Secret("Aa1-hunter2-hunter2"))
    [(owner,)] = await ask(alpha, "CREATE TABLE t (n int)", "SELECT current_user::text")
    async with session_of(alpha) as own:
        await own("BEGIN", "LOCK TABLE t")  # the dump waits for it
        moving = asyncio.ensure_future(only(tenants.move(["alpha"], to=two.new)))
        await until(lambda: command_lines("pg_dump", owner))
        assert not any("hunter2" in command for command in command_lines("pg_dump", owner))
        moving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await moving
        assert not command_lines("pg_dump", owner)


async def test_error_of_copy_holds_no_secret(two: Two, alpha: Credential) -> None:
    copier = await copier_of(two)
    with TemporaryFile() as file, pytest.raises(GrantError, match="password authentication failed") as failed:
        await copier.dump(evolve(alpha, password="hunter2-hunter2"), file)
    assert leaks(failed.value, "hunter2-hunter2") == []


def test_a_folder_without_room_is_refused(tmp_path: Path) -> None:
    check_free(tmp_path, 1)
    with pytest.raises(ConfigurationError, match="has too little free room"):
        check_free(tmp_path, 2**60)
