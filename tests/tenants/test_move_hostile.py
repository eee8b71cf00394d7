"""What a tenant wrote, or what is in a file, gains nothing by being moved, dumped or loaded."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from aiodbclient import Action
from aiodbclient.errors import InvalidArgumentError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants.errors import GrantError, MoveError

from ..mysql import SERVERS, administrator, running
from ..thorough import first_of
from .conftest import only
from .moves import Two, enters, left_on, opened, sql
from .test_copy_postgres import EVIL

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
    "default": "CREATE TABLE t (n int, b boolean DEFAULT public.evil(1))",
    "index": "CREATE TABLE t (n int); CREATE INDEX ON t (public.evil(n))",
    "view": "CREATE TABLE t (n int); CREATE MATERIALIZED VIEW m AS SELECT public.evil(n) FROM t",
    "trigger": (
        "CREATE TABLE t (n int); CREATE FUNCTION public.fire() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM public.deed(); RETURN NEW; END'; "
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION public.fire(); "
        "ALTER TABLE t ENABLE ALWAYS TRIGGER g"
    ),
}


@pytest.mark.parametrize("code", first_of(CODE, 2))
async def test_what_a_tenant_wrote_gains_nothing(two: Two, code: str, tmp_path: Path) -> None:
    tenants = two.tenants()
    alpha = await tenants.ensure("alpha")
    there = await made_there(two, "witness")
    before = [await sql(each, question) for each in (alpha, there) for question in (POWERS, MEMBERS)]
    await sql(alpha, EVIL, CODE[code], "INSERT INTO t VALUES (1)")
    if code == "view":
        await sql(alpha, "REFRESH MATERIALIZED VIEW m")
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert moved.action is Action.MOVED or isinstance(moved.error, MoveError)
    current = await tenants.get("alpha")
    assert current is not None
    assert await sql(current, "SELECT n FROM t") == [(1,)]
    dumped = await only(tenants.dump(["alpha"], tmp_path))
    assert dumped.error is None
    beta = await tenants.ensure("beta")
    with suppress(GrantError):
        await tenants.load("beta", dumped.file)
    assert await enters(beta)
    assert [await sql(each, question) for each in (beta, there) for question in (POWERS, MEMBERS)] == before


async def made_there(two: Two, name: str) -> Any:
    """A tenant on the other cluster."""

    async def place(*_: object) -> str:
        return two.new.id

    return await two.tenants(choose_cluster=place).ensure(name)


STATEMENTS = [
    "RESET ROLE; ALTER ROLE CURRENT_USER CREATEROLE;",
    "RESET ROLE; ALTER ROLE CURRENT_USER CONNECTION LIMIT -1;",
    "RESET ROLE; GRANT doadmin TO CURRENT_USER;",
    "SET SESSION AUTHORIZATION doadmin;",
    "COPY (SELECT 7) TO PROGRAM 'touch {}';",
    "CREATE TABLE public.made (x text); COPY public.made FROM '/etc/passwd';",
    "CREATE DATABASE another;",
]


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda text: text.split(";")[-2][:30].strip())
async def test_a_hostile_file_of_postgresql_has_the_rights_of_the_tenant_alone(
    two: Two, statement: str, tmp_path: Path
) -> None:
    tenants = two.tenants()
    alpha, beta = await tenants.ensure("alpha"), await tenants.ensure("beta")
    before = [await sql(beta, question) for question in (POWERS, MEMBERS)]
    comment = "x" * 500
    await sql(alpha, "CREATE TABLE t (n int)", f"COMMENT ON TABLE t IS '{comment}'")
    dumped = await only(tenants.dump(["alpha"], tmp_path))
    assert dumped.error is None
    content, harmless = dumped.file.read_bytes(), f"COMMENT ON TABLE public.t IS '{comment}';".encode()
    evil = statement.replace("{}", str(tmp_path / "touched")).encode()
    assert harmless in content
    forged(dumped.file, content.replace(harmless, evil.ljust(len(harmless))))
    with pytest.raises(GrantError, match=r"permission denied|must be|may |Only roles"):
        await tenants.load("beta", dumped.file)
    assert not (tmp_path / "touched").exists()
    assert [await sql(beta, question) for question in (POWERS, MEMBERS)] == before


def forged(dump: Path, content: bytes, **fields: object) -> None:
    """Write other content, with a manifest that fits."""
    dump.write_bytes(content)
    manifest = dump.with_suffix(".json")
    known = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(known | {"bytes": len(content), "sha256": sha256(content).hexdigest()} | fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"server": "newest"},
        {"server": 18},
        {"server": "99.1"},
        {"engine": "mysql"},
        {"database": "../x"},
        {"database": ["x"]},
        {"sha256": None},
    ],
    ids=lambda fields: str(fields),
)
async def test_a_hostile_manifest_is_refused(two: Two, tmp_path: Path, fields: dict[str, object]) -> None:
    tenants = two.tenants()
    alpha = await tenants.ensure("alpha")
    dumped = await only(tenants.dump(["alpha"], tmp_path))
    assert dumped.error is None
    forged(dumped.file, dumped.file.read_bytes(), **fields)
    with pytest.raises(InvalidArgumentError):
        await tenants.load("alpha", dumped.file)
    assert await enters(alpha)


@pytest.mark.parametrize("suffix", [".dump", ".json"])
async def test_a_dump_that_is_a_pipe_is_refused(two: Two, tmp_path: Path, suffix: str) -> None:
    """Reading it waits until another program writes to it."""
    tenants = two.tenants()
    await tenants.ensure("alpha")
    dumped = await only(tenants.dump(["alpha"], tmp_path))
    assert dumped.file is not None
    pipe = dumped.file.with_suffix(suffix)
    pipe.unlink()
    os.mkfifo(pipe)
    with pytest.raises(InvalidArgumentError, match=f"{pipe.name} is not a file; nothing was sent"):
        async with asyncio.timeout(10):
            await tenants.load("alpha", dumped.file)


@pytest.fixture(scope="module", params=MYSQL or [pytest.param("none", marks=pytest.mark.skip("needs a MySQL"))])
def mysqls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sandbox, str, str, list[str]]]:
    """Two clusters of MySQL, and the DSNs of their superusers."""
    with ExitStack() as stack, Sandbox(windows=[]) as sandbox:
        dsns = [stack.enter_context(running(request.param, tmp_path_factory.mktemp("mysql"))) for _ in range(2)]
        for dsn in dsns:
            with administrator(dsn) as cursor:
                cursor.execute("SET GLOBAL log_bin_trust_function_creators = 1, GLOBAL event_scheduler = 1")
        old, new = [asyncio.run(sandbox.add_cluster("mysql", dsn=dsn)) for dsn in dsns]
        yield sandbox, old, new, dsns


def powers(dsn: str) -> list[Any]:
    """The rights beyond one schema, except those that a temporary login would have."""
    with administrator(dsn) as cursor:
        cursor.execute("SELECT User, Host FROM mysql.user WHERE Super_priv = 'Y' OR Create_user_priv = 'Y' ORDER BY 1")
        found = list(cursor.fetchall())
        cursor.execute("SELECT GRANTEE, PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES ORDER BY 1, 2")
        return [*found, *(row for row in cursor.fetchall() if row[1] != "USAGE")]


async def test_what_a_tenant_of_mysql_wrote_gains_nothing(
    mysqls: tuple[Sandbox, str, str, list[str]], tmp_path: Path
) -> None:
    sandbox, old, new, dsns = mysqls
    async with opened(sandbox, old, new, tmp_path / "store") as two:
        tenants = two.tenants()
        alpha = await tenants.ensure("alpha")
        before = [powers(dsn) for dsn in dsns]
        deed = "GRANT ALL ON *.* TO CURRENT_USER"
        await sql(
            alpha,
            "CREATE TABLE `t``; \\! touch x` (n INT PRIMARY KEY, `DEFINER=``a``@``b`` x` TEXT)",
            "CREATE TABLE log (n INT PRIMARY KEY AUTO_INCREMENT, text TEXT)",
            "CREATE PROCEDURE deed() SQL SECURITY DEFINER\nBEGIN\n"
            "  DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;\n"
            f"  SET @deed = '{deed}';\n  PREPARE s FROM @deed;\n  EXECUTE s;\nEND",
            "CREATE TRIGGER `g\n\\! touch x` AFTER INSERT ON log FOR EACH ROW SET @a = ''';\n\\\\! touch x\n'",
            "CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO CALL deed()",
            "CREATE VIEW `v``\n;` AS SELECT * FROM log",
            "INSERT INTO log (text) VALUES ('\\n\\\\! touch x\\n')",
        )
        moved = await only(tenants.move(["alpha"], to=two.new))
        assert moved.error is None
        assert await sql(moved.credential, "SELECT text FROM `v``\n;`") == [("\n\\! touch x\n",)]
        dumped = await only(tenants.dump(["alpha"], tmp_path))
        assert dumped.error is None
        beta = await tenants.ensure("beta")
        await tenants.load("beta", dumped.file)
        assert await sql(beta, "SELECT text FROM `v``\n;`") == [("\n\\! touch x\n",)]
        await sql(beta, "CALL deed()")
        await asyncio.sleep(1.5)  # the event has run
        assert [powers(dsn) for dsn in dsns] == before
        assert not Path("x").exists()
        assert await left_on(tenants, two.old, "alpha") == (False, [])


@pytest.mark.parametrize("evil", ["\\! touch {}\n", "GRANT ALL ON *.* TO CURRENT_USER;\n", "USE mysql;\n"])
async def test_a_hostile_file_of_mysql_has_the_rights_of_the_tenant_alone(
    mysqls: tuple[Sandbox, str, str, list[str]], tmp_path: Path, evil: str
) -> None:
    sandbox, old, new, dsns = mysqls
    async with opened(sandbox, old, new, tmp_path / "store") as two:
        tenants = two.tenants()
        alpha = await tenants.ensure("alpha")
        before = [powers(dsn) for dsn in dsns]
        dumped = await only(tenants.dump(["alpha"], tmp_path))
        assert dumped.error is None
        forged(dumped.file, evil.replace("{}", str(tmp_path / "touched")).encode())
        with pytest.raises(GrantError, match="may have a part of the file"):
            await tenants.load("alpha", dumped.file)
        assert not (tmp_path / "touched").exists()
        assert [powers(dsn) for dsn in dsns] == before
        assert await enters(alpha)
