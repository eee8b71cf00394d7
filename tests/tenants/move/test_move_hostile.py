"""What a tenant wrote gains nothing by being moved."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from aiodbclient.tenants import Credential, TenantAction, Tenants
from aiodbclient.tenants._move.copier import Copier

from ...thorough import first_of
from ..conftest import only, present
from ..moves import Two, administer, sql
from ..programs import refusal
from .test_copy_postgres import evil_code

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


LET_IN = """
CREATE FUNCTION let_in() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
$$BEGIN GRANT CONNECT ON DATABASE "{}" TO PUBLIC; END$$
"""


@pytest.mark.parametrize("by", ["a neighbour", "the administrator"])
async def test_nobody_enters_frozen_database(
    two: Two, alpha: Credential, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A write to the old database would be lost, though it is acknowledged.

    A neighbour has a leaked credential, and lets everybody in by a function that it owns as the tenant. That the
    administrator, who may do so, lets a program in is the control.
    """
    tenants = two.tenants()
    evil = await tenants.ensure("evil")
    await sql(alpha, "CREATE TABLE t (n int[])", "INSERT INTO t VALUES ('{0}')", "GRANT ALL ON t TO PUBLIC")
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
                    await administer(two.old, f'GRANT CONNECT ON DATABASE "{alpha.database}" TO PUBLIC')
            if not await refusal(alpha, f"UPDATE t SET n = '{{{number}}}'"):
                acknowledged.append(number)
            if number > 10:
                tried.set()

    dump = Copier.dump

    async def then_tried(copier: Copier, source: Any, file: Any, *more: str) -> None:
        await dump(copier, source, file, *more)
        if "--schema-only" not in more:
            frozen.set()
            await tried.wait()

    monkeypatch.setattr(Copier, "dump", then_tried)
    moving = asyncio.ensure_future(only(tenants.move(["alpha"], to=two.new)))
    await frozen.wait()
    intruding = asyncio.ensure_future(intrude())
    moved = await moving
    intruding.cancel()
    with suppress(asyncio.CancelledError):
        await intruding
    assert moved.error is None
    [(found,)] = await sql(moved.credential, "SELECT n FROM t")
    assert found == [0]
    assert (acknowledged == [0]) is (by == "a neighbour")
