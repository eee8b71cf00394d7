"""A check changes nothing on the server and in the store."""

from __future__ import annotations

from typing import Any

from aiodbclient.engines import Engine

from ..conftest import Place, only, present
from ..problems import kinds_of
from ..programs import ask
from .test_check_and_repair import BROKEN, READS, admin_of

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
