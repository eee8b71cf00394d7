"""Code of a login that runs in somebody else's session on PostgreSQL while the login is ended, and what stays of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import LiteralString

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from aiodbclient.tenants import Role
from aiodbclient.tenants._naming import Names
from aiodbclient.tenants._servers.postgres import PostgresServer

from .managed import PASSWORD, Managed, ended, ready, work

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
def running(managed: Managed, names: Names) -> Iterator[None]:
    """A tenant calls ``go()`` in its own database."""
    with managed.open(names.logins[0], names.database) as session:

        def call() -> None:
            with suppress(psycopg.Error):
                session.execute(GO)

        thread = threading.Thread(target=call)
        thread.start()
        while not managed.running("public.go()"):
            time.sleep(0.01)
        try:
            yield
        finally:
            with suppress(psycopg.Error):
                session.cancel_safe()
            thread.join()


def plant(managed: Managed, neighbour: Names, login: str, code: str) -> None:
    """The neighbour lets a login in, which leaves code there."""
    with managed.open(neighbour.logins[0], neighbour.database) as session:
        for text in (f'CONNECT ON DATABASE "{neighbour.database}"', "USAGE, CREATE ON SCHEMA public"):
            session.execute(SQL(f"GRANT {text} TO {{}}").format(Identifier(login)))
    with managed.open(login, neighbour.database) as session:
        session.execute("SET ROLE NONE")
        session.execute(code.encode())


def owner_of(managed: Managed, function: str, database: str) -> list[str]:
    found = "SELECT pg_get_userbyid(proowner)::text FROM pg_proc WHERE proname = {}"
    return [name for (name,) in managed.api(SQL(found).format(function), database)]


@pytest.mark.parametrize("role", [Role.OWNER, Role.READER])
async def test_a_function_that_a_login_left_running_does_not_become_the_owner_roles(
    managed: Managed, server: PostgresServer, names: Names, evil: Names, role: Role
) -> None:
    of_role = names if role is Role.OWNER else await managed.role(names.tenant, role, server)
    login = of_role.logins[0]
    with managed.open(evil.logins[0], evil.database) as session:
        session.execute(SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(Identifier(names.owner)))
    if role is Role.OWNER:  # it is a member until it is ended
        await server.end_logins(work(names), [names.logins[1]])
    plant(managed, evil, login, ESCAPE.replace("{owner}", names.owner))
    if role is Role.OWNER:
        with managed.open(evil.logins[0], evil.database) as session, suppress(psycopg.Error):
            session.execute(GO)
        assert names.owner in owner_of(managed, "back", evil.database)
        await ended(server, of_role, login)
        await server.repair(work(names), ())
        assert names.owner not in owner_of(managed, "back", evil.database)
        return
    with running(managed, evil):
        await ended(server, of_role, login)
    assert names.owner not in owner_of(managed, "back", evil.database)


async def test_code_that_a_removed_tenant_left_running_at_a_neighbours_keeps_nothing(
    managed: Managed, server: PostgresServer, names: Names, evil: Names
) -> None:
    plant(managed, evil, names.logins[0], LATE)
    with running(managed, evil):
        for login in names.logins:
            await server.end_logins(work(names), [login])
        await server.drop_database(work(names))
        for login in names.logins:
            await server.drop_login(work(names), login)
        await server.forget(work(names))
        assert not (await server.find(names))  # the name is free
    assert "doadmin" not in owner_of(managed, "up", evil.database)
    managed.api("CREATE OR REPLACE FUNCTION public.control() RETURNS int LANGUAGE sql AS 'SELECT 1'", evil.database)
    managed.api("ALTER FUNCTION public.control() OWNER TO doadmin", evil.database)
    assert owner_of(managed, "control", evil.database) == ["doadmin"]
    again = await managed.tenant(names.tenant, server)
    assert await server.problems(again, again.logins) == frozenset()
    assert again.logins[0] not in owner_of(managed, "up", evil.database)


@pytest.mark.parametrize("again", ["rotate", "resume"])
async def test_code_of_an_ended_login_does_not_let_anybody_in_when_its_name_is_in_use_again(
    managed: Managed, server: PostgresServer, names: Names, evil: Names, again: str
) -> None:
    """Code of the login, which a neighbour runs at any time, sets its password."""
    login = names.logins[0]
    plant(managed, evil, login, LATE.replace("CREATE FUNCTION public.up()", "CREATE OR REPLACE FUNCTION public.up()"))
    await server.end_logins(work(names), [login])
    if again == "rotate":
        await server.drop_login(work(names), login)
    with managed.open(evil.logins[0], evil.database) as session, suppress(psycopg.Error):
        session.execute(GO)
    assert not managed.lets_in(login, "defaultdb", "mine")
    await ready(server, names, login, "new")
    with managed.open(evil.logins[0], evil.database) as session, suppress(psycopg.Error):
        session.execute("SET statement_timeout = 500; SELECT public.go()")
    assert not managed.lets_in(login, "defaultdb", "mine")
    assert managed.lets_in(login, names.database, "new")
    managed.reset(login, "mine")
    assert managed.lets_in(login, "defaultdb", "mine"), "it would not be noticed"


async def test_settings_of_a_login_do_not_outlive_a_rotation(
    managed: Managed, server: PostgresServer, names: Names
) -> None:
    for login in names.logins:
        with managed.open(login, names.database) as session:
            session.execute("SET ROLE NONE")
            session.execute("ALTER ROLE CURRENT_USER SET local_preload_libraries = 'nothing'")
            setting = SQL("ALTER ROLE CURRENT_USER IN DATABASE {} SET default_transaction_read_only = on")
            session.execute(setting.format(Identifier(names.database)))
        assert not managed.lets_in(login, names.database)  # there is no such library
        await ready(server, names, login)
        with managed.open(login, names.database, PASSWORD) as session:
            row = session.execute("SELECT current_setting('default_transaction_read_only')").fetchone()
            assert row == ("off",)
