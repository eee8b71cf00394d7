"""Code of a login that runs in somebody else's session on PostgreSQL while the login is ended, and what stays of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import LiteralString

import psycopg

from aiodbclient.tenants import ProblemKind, Role
from aiodbclient.tenants._servers.postgres import PostgresServer

from ..waiting import wait_until
from .managed import Managed
from .problems import kinds_of
from .tenant import Tenant

# When the login is a member of the owner role, its function becomes the owner role's.
ESCAPE: LiteralString = """
CREATE FUNCTION public.back() RETURNS name LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user';
CREATE FUNCTION public.go() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    WHILE NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE pg_get_userbyid(member) = current_user
                      AND pg_get_userbyid(roleid) = '{owner}') LOOP PERFORM pg_catalog.pg_sleep(0.001); END LOOP;
    ALTER FUNCTION public.back() OWNER TO "{owner}";
END $$;
GRANT EXECUTE ON FUNCTION public.go() TO PUBLIC
"""
# When the login has lost its rights, it makes a function, and a large object.
LATE: LiteralString = """
CREATE FUNCTION public.go() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    WHILE EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE pg_get_userbyid(member) = current_user)
    LOOP PERFORM pg_catalog.pg_sleep(0.001); END LOOP;
    ALTER ROLE CURRENT_USER PASSWORD 'mine';
    CREATE FUNCTION public.up() RETURNS name LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user';
END $$;
GRANT EXECUTE ON FUNCTION public.go() TO PUBLIC
"""


GO = "SET statement_timeout = 30000; SELECT public.go()"  # what it waits for may never come


@contextmanager
def running(managed: Managed, victim: Tenant) -> Iterator[None]:
    """A tenant calls ``go()`` in its own database."""
    with managed.open(victim.logins[0], victim.database) as session:

        def call() -> None:
            with suppress(psycopg.Error):
                session.execute(GO)

        thread = threading.Thread(target=call)
        thread.start()
        wait_until(lambda: managed.running("public.go()"))
        try:
            yield
        finally:
            with suppress(psycopg.Error):
                session.cancel_safe()
            thread.join()


def plant(managed: Managed, neighbour: Tenant, login: str, code: str) -> None:
    """The neighbour lets a login in, which leaves code there."""
    managed.let_in(neighbour, login)
    managed.run(neighbour, "SET ROLE NONE", code, login=login)


def owner_of(managed: Managed, function: str, database: str) -> list[str]:
    found = f"SELECT pg_get_userbyid(proowner)::text FROM pg_proc WHERE proname = '{function}'"
    return [name for (name,) in managed.api(found, database)]


async def test_readers_function_never_becomes_the_owners(managed: Managed, victim: Tenant, evil: Tenant) -> None:
    """A login of the owner is a member of its role until it is ended: what it got then is taken back by a repair."""
    reader = await victim.add(Role.READER)
    managed.run(evil, f"GRANT USAGE, CREATE ON SCHEMA public TO {victim.owner}")
    plant(managed, evil, reader, ESCAPE.replace("{owner}", victim.owner))
    with running(managed, evil):
        await victim.end(reader)
    assert victim.owner not in owner_of(managed, "back", evil.database)

    login = victim.logins[0]
    plant(managed, evil, login, ESCAPE.replace("{owner}", victim.owner))
    with suppress(psycopg.Error):
        managed.run(evil, GO)
    assert victim.owner in owner_of(managed, "back", evil.database)
    await victim.end(login)
    await victim.repair()
    assert victim.owner not in owner_of(managed, "back", evil.database)


async def test_removed_tenants_code_keeps_nothing(
    managed: Managed, server: PostgresServer, victim: Tenant, evil: Tenant
) -> None:
    used = victim.logins
    plant(managed, evil, used[0], LATE)
    with running(managed, evil):
        await victim.remove()
        assert not (await server.find(victim.names))  # the name is free
    assert "doadmin" not in owner_of(managed, "up", evil.database)
    managed.api("CREATE OR REPLACE FUNCTION public.control() RETURNS int LANGUAGE sql AS 'SELECT 1'", evil.database)
    managed.api("ALTER FUNCTION public.control() OWNER TO doadmin", evil.database)
    assert owner_of(managed, "control", evil.database) == ["doadmin"]
    again = await managed.tenant(victim.names.tenant, server)
    assert await again.problems() == frozenset()
    assert not {*again.logins} & {*used}
    assert again.owner not in owner_of(managed, "up", evil.database)


async def test_revoked_login_never_comes_back(
    managed: Managed, server: PostgresServer, victim: Tenant, evil: Tenant
) -> None:
    """A neighbour's view keeps it from being dropped. Once a rotation enabled it again."""
    login = victim.logins[0]
    plant(managed, evil, login, "CREATE FUNCTION public.kept() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    plant(managed, evil, login, LATE.replace("public.up()", "public.late()"))
    managed.run(evil, "CREATE VIEW public.v AS SELECT public.kept()")
    assert not await victim.end(login)

    for _ in range(3):
        assert await victim.add() != login
        await victim.end(victim.logins[0])
        with suppress(psycopg.Error):
            managed.run(evil, GO)
        assert not managed.lets_in(login, "defaultdb", "mine")
    assert (await server.find(victim.names)).ended == (login,)
    assert await victim.problems() == frozenset()
    managed.api(f"ALTER ROLE {login} LOGIN PASSWORD 'mine'")
    assert managed.lets_in(login, "defaultdb", "mine"), "it would not be noticed"
    assert kinds_of(await victim.problems()) == {ProblemKind.UNKNOWN_LOGIN}
