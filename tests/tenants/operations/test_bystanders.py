"""A check changes nothing, and a repair disturbs no program whose tenant has no problem."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import psycopg
import pymysql
from attrs import define, field

from aiodbclient.engines import Engine
from aiodbclient.tenants import Credential, ProblemKind, Tenants

from ...waiting import until
from ..conftest import Place, only, present
from ..problems import kinds_of
from ..programs import ask
from .test_check_and_repair import BROKEN, READS, admin_of

LOCKED_OUT = (ProblemKind.LOGIN_MISSING, ProblemKind.PASSWORD_REFUSED)
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


async def everything(place: Place, databases: list[str]) -> list[Any]:
    """The catalogs of the server, in these databases too, the users and dbs by the API, and the records."""
    found: list[Any] = [
        sorted((await place.cluster.users.list()), key=lambda user: user.name),
        sorted(db.name for db in await place.cluster.dbs.list()),
        sorted([record async for record in place.store.records()], key=lambda record: record.name),
    ]
    admin = await admin_of(place)
    statements, databases = CATALOGS[Engine(admin.engine)], [admin.database, *databases]
    if admin.engine == Engine.MYSQL:
        databases = ["mysql"]
    for database in databases:
        for statement in statements:
            found.append(sorted(map(repr, await ask(admin, statement, database=database))))
    return found


async def test_a_check_changes_nothing(anywhere: Place) -> None:
    """Whatever is wrong with the tenants."""
    place, tenants = anywhere, anywhere.tenants()
    broken = BROKEN
    names = ["well", *broken]
    made = {outcome.name: outcome.credential async for outcome in tenants.provision(names)}
    assert all([outcome.error is None async for outcome in tenants.role("reader").provision(["well"])])
    assert (await only(tenants.rotate(["well"]))).error is None
    for problem, breaks in broken.items():
        credential = present(made[problem])
        await breaks(place, credential)
    before = await everything(place, [f"{place.prefix}well"])
    sent = len(place.sent())

    found = {outcome.name: outcome.problems async for outcome in tenants.check()}
    assert [outcome.problems async for outcome in tenants.role("reader").check()] == [()]

    assert {operation for operation, _ in place.sent()[sent:]} <= READS
    assert found.pop("well") == ()
    assert all(name in kinds_of(problems) for name, problems in found.items())
    assert await everything(place, [f"{place.prefix}well"]) == before


@define
class Program:
    """A program of a tenant. It reads the credential on record, connects and queries, all the time."""

    name: str
    tenants: Tenants
    answers: int = 0
    is_over: bool = False
    failures: list[tuple[float, Credential, str]] = field(factory=list)

    async def run(self) -> None:
        while not self.is_over:
            begun, credential = monotonic(), await self.tenants.get(self.name)
            if credential is not None:  # otherwise its login is getting a new password
                try:
                    assert await ask(credential, "SELECT x FROM t") == [(1,)]
                    self.answers += 1
                except (psycopg.Error, pymysql.Error) as error:
                    self.failures.append((begun, credential, str(error)))
            await asyncio.sleep(0.05)

    async def has(self, *, answers: int = 0, failures: int = 0) -> None:
        """Wait until it has got so many more answers and failures."""
        answers, failures = answers + self.answers, failures + len(self.failures)
        await until(lambda: self.answers >= answers and len(self.failures) >= failures)


async def test_check_names_what_programs_see(anywhere: Place) -> None:
    """A program sees no failure that the check did not name."""
    place, tenants = anywhere, anywhere.tenants()
    broken = {problem: breaks for problem, breaks in BROKEN.items() if problem is not ProblemKind.DATABASE_MISSING}
    programs = {name: Program(name, tenants) for name in ("well", *broken)}
    async for outcome in tenants.provision(programs):
        assert outcome.credential is not None
        await ask(outcome.credential, "CREATE TABLE t (x int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    async with asyncio.TaskGroup() as group:
        for program in programs.values():
            group.create_task(program.run())
        for program in programs.values():
            await program.has(answers=1)
        for problem, breaks in broken.items():
            credential = present(await tenants.get(problem))
            await breaks(place, credential)
        for locked_out in LOCKED_OUT:
            await programs[locked_out].has(failures=1)

        checked = {outcome.name: outcome async for outcome in tenants.check()}
        repaired = dict[str, float]()
        async for repair in tenants.repair(all=True):
            assert repair.error is None
            repaired[repair.name] = monotonic()
        assert {outcome.problems async for outcome in tenants.check()} == {()}
        for program in programs.values():
            await program.has(answers=2)
        for program in programs.values():
            program.is_over = True  # a login that is cancelled stays half-open for a while

    for name, program in programs.items():
        named = kinds_of(checked[name].problems) & {*LOCKED_OUT, ProblemKind.RIGHTS_MISSING}
        for begun, credential, error in program.failures:
            assert named, f"{name}: {error}"
            assert credential == checked[name].credential
            assert begun < repaired[name]
