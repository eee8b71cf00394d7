"""Break a tenant, find the problem with ``check`` and fix it with ``repair``. The data stays."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import evolve
from psycopg.conninfo import make_conninfo

from aiodbclient.engines import Engine
from aiodbclient.errors import ConflictError, NotFoundError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, OperationKind, Problem, ProblemKind, SQLiteStore, TenantAction, Tenants
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._operations import check
from aiodbclient.tenants._operations.check import examine
from aiodbclient.tenants.errors import GrantError, TenantNotFoundError

from ..conftest import SQL, Place, only, placed, present
from ..dying import leave
from ..own_stores import expire
from ..problems import kinds, kinds_of
from ..programs import admin_of, ask, refusal, session_of
from ..servers import execute
from ..store_contract import LONG

READS = {"clusters.get", "clusters.ca"}
Breaks = Callable[[Place, Credential], Awaitable[object]]


async def make_login(place: Place, login: str) -> None:
    """Make a login as the administrator, with a password that nobody has on record."""
    admin = await admin_of(place.cluster)
    if admin.engine == Engine.PG:
        await ask(admin, f"CREATE ROLE \"{login}\" LOGIN PASSWORD 'Unknown-1'")
    else:
        await ask(admin, f"CREATE USER '{login}'@'%' IDENTIFIED BY 'Unknown-1'", database="mysql")


async def grant(place: Place, credential: Credential, statement: str) -> None:
    """Run a statement on the tenant's schema as the administrator of a MySQL, where ``_`` may be a pattern."""
    admin = await admin_of(place.cluster)
    literal = await ask(admin, "SHOW VARIABLES LIKE 'partial_revokes'", database="mysql") == [("partial_revokes", "ON")]
    schema = credential.database or ""
    await ask(
        admin, statement.format(f"`{schema if literal else schema.replace('_', chr(92) + '_')}`"), database="mysql"
    )


async def open_to_others(place: Place, credential: Credential) -> None:
    other = f"{place.prefix}stranger"
    await place.cluster.users.create(other)
    if credential.engine == Engine.PG:
        await ask(await admin_of(place.cluster), f'GRANT CONNECT ON DATABASE "{credential.database}" TO "{other}"')
    else:
        await grant(place, credential, f"GRANT SELECT ON {{}}.* TO '{other}'@'%'")


async def take_rights(place: Place, credential: Credential) -> None:
    if credential.engine == Engine.PG:
        owner = names_of(credential.name, credential.engine, place.prefix).owner
        await ask(await admin_of(place.cluster), f'REVOKE TEMPORARY ON DATABASE "{credential.database}" FROM "{owner}"')
        return
    await grant(place, credential, f"REVOKE ALL ON {{}}.* FROM '{credential.username}'@'%'")


async def make_as_administrator(place: Place, credential: Credential) -> None:
    await ask(credential, "GRANT CREATE ON SCHEMA public TO doadmin")
    admin = await admin_of(place.cluster, credential.database)
    await ask(admin, "CREATE FUNCTION public.up() RETURNS int LANGUAGE sql AS 'SELECT 1'")


async def begin(place: Place, credential: Credential) -> None:
    """Leave what a process leaves that dies during a rotation."""
    [login] = names_of(credential.name, credential.engine, place.prefix).next_logins([credential.username])
    await leave(place.store, credential, OperationKind.ROTATE, logins=(login,))
    await make_login(place, login)


BROKEN: dict[ProblemKind, Breaks] = {
    ProblemKind.LOGIN_MISSING: lambda place, credential: place.cluster.users.delete(credential.username),
    ProblemKind.PASSWORD_REFUSED: lambda place, credential: place.cluster.users.reset_auth(credential.username),
    ProblemKind.DATABASE_MISSING: lambda place, credential: place.cluster.dbs.delete(credential.database or ""),
    ProblemKind.RIGHTS_MISSING: take_rights,
    ProblemKind.OPEN_TO_OTHERS: open_to_others,
    ProblemKind.UNFINISHED: begin,
}
BROKEN_ON_PG: dict[ProblemKind, Breaks] = {ProblemKind.OWNED_BY_OTHERS: make_as_administrator}
LOCKED_OUT = (ProblemKind.LOGIN_MISSING, ProblemKind.PASSWORD_REFUSED)
CASES = [
    *((engine, problem) for engine in SQL for problem in BROKEN),
    *(("pg_cluster", problem) for problem in BROKEN_ON_PG),
]


# What a check must not change on the server.
CATALOGS = {
    Engine.PG: [
        "SELECT to_jsonb(r)::text FROM pg_roles r",
        "SELECT to_jsonb(m)::text FROM pg_auth_members m",
        "SELECT datname, datdba, datallowconn, datistemplate, datconnlimit, datacl::text FROM pg_database",
        "SELECT to_jsonb(s)::text FROM pg_db_role_setting s",
        "SELECT to_jsonb(d)::text FROM pg_shdepend d",
        "SELECT relname, relowner, relacl::text FROM pg_class",
        "SELECT nspname, nspowner, nspacl::text FROM pg_namespace",
        "SELECT to_jsonb(a)::text FROM pg_default_acl a",
    ],
    Engine.MYSQL: [
        "SELECT * FROM mysql.user",
        "SELECT * FROM mysql.db",
        "SELECT Host, Db, User, Table_name, Table_priv, Column_priv FROM mysql.tables_priv",
        "SELECT Host, Db, User, Routine_name, Proc_priv FROM mysql.procs_priv",
        "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME FROM information_schema.SCHEMATA",
        "SELECT GRANTEE, PRIVILEGE_TYPE, IS_GRANTABLE FROM information_schema.USER_PRIVILEGES",
    ],
}


async def everything(place: Place, database: str) -> list[list[str]]:
    """The catalogs of the server, in this database too, the users and dbs by the API, and the records."""
    admin = await admin_of(place.cluster)
    found: list[Any] = [
        await place.cluster.users.list(),
        await place.cluster.dbs.list(),
        [record async for record in place.store.records()],
    ]
    for each in [admin.database, database] if admin.engine == Engine.PG else ["mysql"]:
        async with session_of(evolve(admin, database=each)) as run:
            found += [await run(statement) for statement in CATALOGS[Engine(admin.engine)]]
    return [sorted(map(repr, rows)) for rows in found]


@pytest.mark.parametrize(("its_cluster", "problem"), CASES, indirect=["its_cluster"])
async def test_problem_found_and_repaired(anywhere: Place, tenants: Tenants, problem: ProblemKind) -> None:
    """A check changes nothing, and a repair no data. It disturbs no program but those whose login does not work."""
    credential, well = await tenants.ensure("alpha"), await tenants.ensure("well")
    await ask(credential, "CREATE TABLE t (x int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    assert (await only(tenants.check(["alpha"]))).problems == ()
    assert (await only(tenants.repair(["alpha"]))).action is TenantAction.KEPT

    await (BROKEN | BROKEN_ON_PG)[problem](anywhere, credential)
    its = (well if problem is ProblemKind.DATABASE_MISSING else credential).database
    before, sent = await everything(anywhere, its), len(anywhere.sent())
    found = await only(tenants.check(["alpha"]))
    asked = {operation for operation, _ in anywhere.sent()[sent:]}

    assert asked <= READS
    assert await everything(anywhere, its) == before
    assert problem in kinds_of(found.problems)
    assert kinds_of(found.problems) <= {problem, ProblemKind.RIGHTS_MISSING}
    assert found.action is TenantAction.CHECKED

    if problem is ProblemKind.DATABASE_MISSING:
        refused = await only(tenants.repair(["alpha"]))
        assert isinstance(refused.error, NotFoundError)
        assert "does not exist on its cluster" in str(refused.error)
        assert (await only(tenants.check(["alpha"]))).problems == found.problems
        assert isinstance((await only(tenants.rotate(["alpha"]))).error, NotFoundError)
        return
    async with AsyncExitStack() as stack:  # of programs: what they use goes on
        kept = problem not in (*LOCKED_OUT, ProblemKind.RIGHTS_MISSING)
        entering = (credential, well) if kept else (well,)
        programs = [await stack.enter_async_context(session_of(each)) for each in entering]
        repairs = {outcome.name: outcome async for outcome in tenants.repair(all=True)}
        assert [await program("SELECT 1") for program in programs] == [[(1,)]] * len(programs)
    assert (repairs["well"].action, repairs["well"].credential) == (TenantAction.KEPT, well)
    repaired = repairs["alpha"]
    assert repaired.error is None
    assert repaired.action is TenantAction.REPAIRED
    assert repaired.problems == found.problems
    assert repaired.credential == await tenants.get("alpha")

    assert {outcome.problems async for outcome in tenants.check()} == {()}
    assert {outcome.action async for outcome in tenants.repair(all=True)} == {TenantAction.KEPT}
    assert await ask(present(repaired.credential), "SELECT x FROM t") == [(1,)]
    await ask(present(repaired.credential), "CREATE TABLE more (x int PRIMARY KEY)")
    assert (repaired.credential == credential) is (problem not in LOCKED_OUT)


async def test_objects_of_others_in_suspended_tenant(place: Place, tenants: Tenants, alpha: Credential) -> None:
    """``repair`` gives them to the tenant, and nobody enters meanwhile or afterwards."""
    await make_as_administrator(place, alpha)
    await only(tenants.suspend(["alpha"]))
    found = (await only(tenants.check(["alpha"]))).problems
    assert ProblemKind.OWNED_BY_OTHERS in kinds_of(found)

    repaired = await only(tenants.repair(["alpha"]))

    assert (repaired.action, repaired.problems) == (TenantAction.SUSPENDED, found)
    assert (await only(tenants.check(["alpha"]))).problems == ()
    assert await refusal(alpha)
    resumed = present((await only(tenants.resume(["alpha"]))).credential)
    assert await ask(resumed, "DROP FUNCTION up()") == []
    assert (await only(tenants.check(["alpha"]))).problems == ()


@pytest.mark.parametrize("attributes", ["CREATEDB", "CREATEDB CREATEROLE"])
async def test_attributes_of_logins_are_taken_back(place: Place, attributes: str) -> None:
    """An administrator gave them to a login, or to the owner role."""
    tenants = place.tenants()
    credential = await tenants.ensure("alpha")
    owner = names_of("alpha", Engine.PG, place.prefix).owner
    await ask(
        await admin_of(place.cluster),
        f'ALTER ROLE "{credential.username}" {attributes}',
        f'ALTER ROLE "{owner}" CREATEDB',
    )
    found = (await only(tenants.check(["alpha"]))).problems
    assert kinds_of(found) == {ProblemKind.TOO_MANY_RIGHTS}
    assert f"{credential.username} has the attribute CREATEDB" in [each.detail for each in found]

    repaired = await only(tenants.repair(["alpha"]))

    assert (repaired.action, repaired.problems) == (TenantAction.REPAIRED, found)
    assert (await only(tenants.check(["alpha"]))).problems == ()


@pytest.fixture
async def own_server(postgres: str, tmp_path: Path) -> AsyncIterator[Place]:
    """A place on the server of which ``postgres`` is the superuser, who does what only the provider can do."""
    async with Sandbox(windows=[]) as sandbox:
        cluster = await sandbox.add_cluster("pg", server=postgres)
        async with placed(sandbox, cluster, tmp_path / "tenants.db") as place:
            yield place


async def test_attribute_that_only_a_superuser_takes_back(own_server: Place, postgres: str) -> None:
    """The error has the statement to run, and as whom."""
    tenants = own_server.tenants()
    credential = await tenants.ensure("alpha")
    execute(postgres, f'ALTER ROLE "{credential.username}" SUPERUSER')

    failed = await only(tenants.repair(["alpha"]))

    assert isinstance(failed.error, GrantError)
    statement = f"ALTER ROLE {credential.username} NOSUPERUSER"
    assert f"run {statement} as a superuser" in str(failed.error)
    execute(postgres, statement)
    assert (await only(tenants.repair(["alpha"]))).error is None


ENDED = [(engine, how) for engine in SQL for how in ("reset", "deleted")]


@pytest.mark.parametrize(("its_cluster", "how"), ENDED, indirect=["its_cluster"])
async def test_previous_credential_ended_too_early(anywhere: Place, how: str) -> None:
    """A credential in use is not changed."""
    place, tenants = anywhere, anywhere.tenants()
    old = await tenants.ensure("alpha")
    current = (await only(tenants.rotate(["alpha"]))).credential
    assert (await only(tenants.check())).problems == ()
    await (place.cluster.users.reset_auth if how == "reset" else place.cluster.users.delete)(old.username)

    assert (await only(tenants.check())).problems == kinds(ProblemKind.PREVIOUS_REFUSED)
    repaired = await only(tenants.repair(all=True))

    assert (repaired.action, repaired.credential) == (TenantAction.REPAIRED, current)
    assert (await only(tenants.check())).problems == ()
    record = present(await place.store.get("alpha"))
    assert record.previous() is None
    assert (await only(tenants.rotate(all=True))).action is TenantAction.ROTATED


@pytest.mark.parametrize("seconds", [0.0, 0.02])
async def test_check_during_changes_of_others(place: Place, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it takes long to look, so that the record has changed after each look."""

    async def slowly(*arguments: Any) -> tuple[Problem, ...]:
        await asyncio.sleep(seconds)
        return await examine(*arguments)

    monkeypatch.setattr(check, "examine", slowly)
    names = [f"n{number}" for number in range(3)]
    tenants = place.tenants()
    assert all([outcome.error is None async for outcome in tenants.provision(names)])
    checks = 0

    async def rotate() -> None:
        async with place.another_process() as others:
            while checks < 3:
                assert all([outcome.error is None async for outcome in others.rotate(names)])
                assert all([outcome.error is None async for outcome in others.revoke_previous(names)])

    async with asyncio.TaskGroup() as group:
        rotating = group.create_task(rotate())
        while not rotating.done():
            outcomes = [outcome async for outcome in tenants.check()]
            assert [outcome.error for outcome in outcomes if outcome.error] == []
            assert kinds_of(each for outcome in outcomes for each in outcome.problems) <= {ProblemKind.UNFINISHED}, (
                outcomes
            )
            checks += 1


async def test_expired_password_replaced_with_login(own_server: Place, postgres: str) -> None:
    """A reset does not change until when a password is valid. So "run it again" would never help."""
    tenants = own_server.tenants()
    credential = await tenants.ensure("alpha")
    execute(postgres, f"ALTER ROLE \"{credential.username}\" VALID UNTIL '2020-01-01'")
    assert (await only(tenants.check())).problems == kinds(ProblemKind.PASSWORD_REFUSED)

    repaired = await only(tenants.repair(all=True))

    assert repaired.action is TenantAction.REPAIRED
    assert repaired.credential is not None
    assert not await refusal(repaired.credential, "CREATE TABLE t (x int PRIMARY KEY)")
    assert (await only(tenants.check())).problems == ()


async def renamed(admin: Credential, *pairs: tuple[str, str]) -> None:
    """Rename databases as the administrator, once nobody is in them."""
    for before, after in pairs:
        connected = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{before}'"
        while await ask(admin, connected):
            await asyncio.sleep(0.01)
        await ask(admin, f'ALTER DATABASE "{before}" RENAME TO "{after}"')


async def test_renamed_database_is_named_and_refused(place: Place) -> None:
    """Neither removed nor made again, and no hint says so. What the hint says helps."""
    tenants, admin = place.tenants(), await admin_of(place.cluster)
    credential = await tenants.ensure("alpha")
    await ask(credential, "CREATE TABLE kept AS SELECT generate_series(1, 50)")
    other = f"{place.prefix}renamed"
    await renamed(admin, (credential.database, other))

    [problem] = (await only(tenants.check())).problems
    assert (problem.kind, other in problem.detail) == (ProblemKind.DATABASE_MISSING, True)
    for run in (tenants.repair, tenants.rotate, tenants.remove):
        refused = await only(run(["alpha"]))
        assert isinstance(refused.error, ConflictError)
        assert f"is named '{other}'" in str(refused.error)
    assert await ask(credential, "SELECT count(*) FROM kept", database=other) == [(50,)]

    hint = problem.detail.rpartition("run ")[2]
    await renamed(admin, (other, f"{other}_x"), (f"{other}_x", other))  # nobody is in it any more
    await ask(admin, hint)
    assert (await only(tenants.check())).problems == ()
    assert await ask(credential, "SELECT count(*) FROM kept") == [(50,)]


async def test_exchanged_databases_are_named_and_refused(place: Place) -> None:
    """A repair gave each customer the other's data. Each hint helps, one after the other."""
    tenants, admin = place.tenants(), await admin_of(place.cluster)
    alpha, beta = await tenants.ensure("alpha"), await tenants.ensure("beta")
    for each in (alpha, beta):
        await ask(each, f"CREATE TABLE mine AS SELECT '{each.name}' AS mine")
    third = f"{place.prefix}third"
    await renamed(admin, (alpha.database, third), (beta.database, alpha.database), (third, beta.database))

    checked = [outcome async for outcome in tenants.check()]
    assert [kinds_of(each.problems) for each in checked] == [{ProblemKind.DATABASE_MISSING}] * 2
    for run in (tenants.repair, tenants.remove):
        async for refused in run(["alpha", "beta"]):
            assert isinstance(refused.error, ConflictError)
            assert "is another's" in str(refused.error)

    for name in ("alpha", "beta"):
        [problem] = (await only(tenants.check([name]))).problems
        for statement in problem.detail.rpartition("run ")[2].split("; "):
            before, after = re.findall(r'"([^"]+)"', statement)
            await renamed(admin, (before, after))
    assert [each.problems async for each in tenants.check()] == [(), ()]
    for each in (alpha, beta):
        assert await ask(each, "TABLE mine") == [(each.name,)]


async def test_no_hint_gives_anothers_database(place: Place) -> None:
    """Where another tenant's database has the name of one that is gone: a GRANT would hand over all data."""
    tenants, admin = place.tenants(), await admin_of(place.cluster)
    alpha, beta = await tenants.ensure("alpha"), await tenants.ensure("beta")
    await ask(admin, f'DROP DATABASE "{alpha.database}"')
    await renamed(admin, (beta.database, alpha.database))
    [problem] = (await only(tenants.check(["alpha"]))).problems
    assert f"the database '{alpha.database}' is another's" in problem.detail
    assert "GRANT" not in problem.detail
    for statement in ("DROP", "CREATE"):
        await ask(admin, f'{statement} DATABASE "{alpha.database}"')
    [problem] = (await only(tenants.check(["alpha"]))).problems
    await ask(admin, problem.detail.rpartition("run ")[2].removesuffix(", and then repair"))
    assert (await only(tenants.repair(["alpha"]))).error is None


async def test_suspension_locks_out_of_exchanged_databases(place: Place) -> None:
    """Its logins are disabled, whatever its database is called. The database of its name, another's, stays as it is."""
    tenants, admin = place.tenants(), await admin_of(place.cluster)
    alpha, beta = await tenants.ensure("alpha"), await tenants.ensure("beta")
    await ask(alpha, "CREATE TABLE mine AS SELECT 'alpha' AS mine")
    third = f"{place.prefix}third"
    exchange = (alpha.database, third), (beta.database, alpha.database), (third, beta.database)
    await renamed(admin, *exchange)
    async with await psycopg.AsyncConnection.connect(make_conninfo(alpha.uri, dbname=beta.database)) as session:
        suspended = await only(tenants.suspend(["alpha"]))
        assert isinstance(suspended.error, ConflictError)
        assert "its logins are disabled, but its database was not locked" in str(suspended.error)
        with pytest.raises(psycopg.OperationalError):  # it was terminated
            await session.execute("TABLE mine")
    assert await tenants.get("alpha") is None
    assert await refusal(alpha, "SELECT 1", database=beta.database)
    assert await ask(beta, "SELECT 1", database=alpha.database) == [(1,)]
    assert ProblemKind.DATABASE_MISSING in kinds_of((await only(tenants.check(["alpha"]))).problems)

    await renamed(admin, *exchange)
    assert (await only(tenants.suspend(["alpha"]))).action is TenantAction.SUSPENDED
    resumed = await only(tenants.resume(["alpha"]))
    assert await ask(present(resumed.credential), "TABLE mine") == [("alpha",)]
    assert [each.problems async for each in tenants.check()] == [(), ()]


async def test_restored_database_becomes_tenants_again(place: Place) -> None:
    tenants, admin = place.tenants(), await admin_of(place.cluster)
    credential = await tenants.ensure("alpha")
    await ask(credential, "CREATE TABLE kept AS SELECT generate_series(1, 50)")
    backup = f"{place.prefix}backup"
    await renamed(admin, (credential.database, f"{backup}_old"))
    await ask(
        admin, f'CREATE DATABASE "{credential.database}" TEMPLATE "{backup}_old"', f'DROP DATABASE "{backup}_old"'
    )

    [problem] = (await only(tenants.check())).problems
    assert "is not the tenant's" in problem.detail
    assert isinstance((await only(tenants.repair(["alpha"]))).error, ConflictError)
    await ask(admin, problem.detail.rpartition("run ")[2].partition(", and then")[0])
    assert (await only(tenants.repair(["alpha"]))).error is None
    assert (await only(tenants.check())).problems == ()
    assert await ask(credential, "SELECT count(*) FROM kept") == [(50,)]


async def test_connection_limit_set_again(place: Place) -> None:
    """Without one, a lower one stays."""
    wide, narrow = place.tenants(), place.tenants(connection_limit=5)
    credential = await narrow.ensure("alpha")
    assert (await only(wide.check())).problems == ()
    assert (await only(wide.repair(all=True))).action is TenantAction.KEPT

    admin = await admin_of(place.cluster)
    for limit in (50, -1, 0, 4):
        await ask(admin, f'ALTER ROLE "{credential.username}" CONNECTION LIMIT {limit}')
        assert (await only(narrow.check())).problems == kinds(ProblemKind.RIGHTS_MISSING)
        assert (await only(narrow.repair(all=True))).action is TenantAction.REPAIRED
    query = f"SELECT rolconnlimit FROM pg_roles WHERE rolname = '{credential.username}'"
    assert await ask(admin, query) == [(5,)]
    assert "permission denied" in await refusal(credential, f'ALTER ROLE "{credential.username}" CONNECTION LIMIT 50')


async def name_of(credential: Credential) -> str:
    return credential.name


async def test_claimed_name_left_to_provision(place: Place, tenants: Tenants) -> None:
    """Its process died before it sent anything, and may have meant another cluster."""
    await tenants.ensure("beta")
    async with SQLiteStore(place.path) as died:
        assert await died.claim("alpha", LONG) is not None
    expire(place.path)
    before = len(place.sent())

    assert [record.name async for record in tenants.records()] == ["beta"]
    assert [outcome.name async for outcome in tenants.check()] == ["beta"]
    assert [outcome.name async for outcome in tenants.repair(all=True)] == ["beta"]
    assert [outcome.name async for outcome in tenants.each(name_of)] == ["beta"]
    assert isinstance((await only(tenants.check(["alpha"]))).error, TenantNotFoundError)

    assert {operation for operation, _ in place.sent()[before:]} <= READS
    assert (await only(tenants.provision(["alpha"]))).action is TenantAction.CREATED
