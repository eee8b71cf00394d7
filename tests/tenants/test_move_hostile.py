"""What a tenant wrote gains nothing by being moved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, TenantAction, Tenants

from ..mysql import SERVERS, administrator, running
from ..thorough import first_of
from .conftest import only, present
from .moves import Two, left_on, opened, sql
from .test_copy_postgres import evil_code

MYSQL: list[Any] = [each for each in SERVERS if each not in ("given", "none")]
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
    "trigger": (
        "CREATE TABLE t (n int); CREATE FUNCTION public.fire() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM public.deed(); RETURN NEW; END'; "
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION public.fire(); "
        "ALTER TABLE t ENABLE ALWAYS TRIGGER g"
    ),
}


@pytest.mark.parametrize("code", first_of(CODE, 1))
async def test_move_runs_code_as_tenant(two: Two, tenants: Tenants, alpha: Credential, code: str) -> None:
    there = await made_there(two, "witness")
    before = [await sql(each, question) for each in (alpha, there) for question in (POWERS, MEMBERS)]
    [(owner,)] = await sql(alpha, "SELECT current_user::text")  # a role that both clusters have
    await sql(alpha, evil_code(owner), CODE[code], "INSERT INTO t VALUES (1)")
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert (moved.error, moved.action) == (None, TenantAction.MOVED)
    current = present(moved.credential)
    assert await sql(current, "SELECT n FROM t") == [(1,)]
    after = [await sql(each, question) for each in (current, there) for question in (POWERS, MEMBERS)]
    assert after == before

    uri = (await two.new.info()).connection.uri or ""
    doadmin = make_conninfo(uri, dbname=current.database)
    async with await psycopg.AsyncConnection.connect(doadmin, autocommit=True) as session:
        await session.execute("SELECT public.deed()")
        assert await sql(current, POWERS) != before[0], "it would not be noticed"
        await session.execute(f'ALTER ROLE "{owner}" NOCREATEROLE')  # the next test compares the clusters' roles


async def made_there(two: Two, name: str) -> Any:
    """A tenant on the other cluster."""

    async def place(*_: object) -> str:
        return two.new.id

    return await two.tenants(choose_cluster=place).ensure(name)


@pytest.fixture(scope="module", params=MYSQL or [pytest.param("none", marks=pytest.mark.skip("needs a MySQL"))])
def mysqls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sandbox, str, str, list[str]]]:
    """Two clusters of MySQL, and the DSNs of their superusers."""
    with ExitStack() as stack, Sandbox(windows=[]) as sandbox:
        dsns = [stack.enter_context(running(request.param, tmp_path_factory.mktemp("mysql"))) for _ in range(2)]
        old, new = [asyncio.run(sandbox.add_cluster("mysql", server=dsn)) for dsn in dsns]
        yield sandbox, old, new, dsns


def powers(dsn: str) -> list[Any]:
    """The rights beyond one schema, except those that a temporary login would have."""
    with administrator(dsn) as cursor:
        cursor.execute("SELECT User, Host FROM mysql.user WHERE Super_priv = 'Y' OR Create_user_priv = 'Y' ORDER BY 1")
        found = list(cursor.fetchall())
        cursor.execute("SELECT GRANTEE, PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES ORDER BY 1, 2")
        return [*found, *(row for row in cursor.fetchall() if row[1] != "USAGE")]


async def test_move_runs_mysql_code_as_tenant(mysqls: tuple[Sandbox, str, str, list[str]], tmp_path: Path) -> None:
    sandbox, old, new, dsns = mysqls
    async with opened(sandbox, old, new, tmp_path / "store") as two:
        tenants = two.tenants()
        alpha = await tenants.ensure("alpha")
        for dsn in dsns:
            with administrator(dsn) as cursor:
                cursor.execute("CREATE USER witness")
        before = [powers(dsn) for dsn in dsns]
        deed = "GRANT PROCESS ON *.* TO witness"
        await sql(
            alpha,
            "CREATE TABLE `t``; \\! touch x` (n INT PRIMARY KEY, `DEFINER=``a``@``b`` x` TEXT)",
            "CREATE TABLE log (n INT PRIMARY KEY AUTO_INCREMENT, text TEXT)",
            "CREATE PROCEDURE deed() SQL SECURITY DEFINER\nBEGIN\n"
            "  DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;\n"
            f"  SET @deed = '{deed}';\n  PREPARE s FROM @deed;\n  EXECUTE s;\nEND",
            "CREATE TRIGGER `g\n\\! touch x` AFTER INSERT ON log FOR EACH ROW SET @a = ''';\n\\\\! touch x\n'",
            "CREATE TABLE ran (n INT PRIMARY KEY AUTO_INCREMENT)",
            "CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO BEGIN CALL deed(); INSERT INTO ran VALUES (); END",
            "CREATE VIEW `v``\n;` AS SELECT * FROM log",
            "INSERT INTO log (text) VALUES ('\\n\\\\! touch x\\n')",
        )
        moved = await only(tenants.move(["alpha"], to=two.new))
        assert moved.error is None
        assert await sql(moved.credential, "SELECT text FROM `v``\n;`") == [("\n\\! touch x\n",)]
        await sql(moved.credential, "CALL deed()")
        await sql(moved.credential, "TRUNCATE TABLE ran")
        async with asyncio.timeout(60):
            while await sql(moved.credential, "SELECT COUNT(*) FROM ran") == [(0,)]:
                await asyncio.sleep(0.05)
        assert [powers(dsn) for dsn in dsns] == before
        assert not Path("x").exists()
        assert await left_on(tenants, two.old, "alpha") == (False, [])
        with administrator(dsns[1]) as cursor:
            cursor.execute(deed)
        assert [powers(dsn) for dsn in dsns] != before, "it would not be noticed"
