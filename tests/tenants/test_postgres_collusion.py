"""Code of a login that runs in somebody else's session while the login is retired or removed, and what stays of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg
import pytest
from aiodbclient.tenants._grants import postgres_logins
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from aiodbclient import Action, Engine
from aiodbclient.tenants import Credential
from aiodbclient.tenants._naming import names_of

from .conftest import Place, only

# Wait for the moment, until the administrator has looked what the login owns, and make a function that runs anything.
GO: LiteralString = """
CREATE FUNCTION public.go() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE n int; phase int := 0;
BEGIN
    WHILE {waiting} LOOP PERFORM pg_catalog.pg_sleep(0.001); END LOOP;
    WHILE phase < 3 LOOP  -- 0: the administrator's session ends; 1: the one that looks begins; 2: and ends
        PERFORM pg_catalog.pg_stat_clear_snapshot();
        SELECT count(*) INTO n FROM pg_catalog.pg_stat_activity WHERE usename = 'doadmin';
        IF (phase = 1) = (n > 0) THEN phase := phase + 1; END IF;
        PERFORM pg_catalog.pg_sleep(0.001);
    END LOOP;
    CREATE FUNCTION public.up() RETURNS name LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user';
END $$;
GRANT EXECUTE ON FUNCTION public.go() TO PUBLIC
"""
MEMBER = "EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE pg_get_userbyid(member) = current_user)"
THERE = "EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = '{database}')"
ESCAPE = """
CREATE FUNCTION public.back() RETURNS name LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user';
CREATE FUNCTION public.go() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    WHILE NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE pg_get_userbyid(member) = current_user
                      AND pg_get_userbyid(roleid) = '{owner}') LOOP PERFORM pg_catalog.pg_sleep(0.001); END LOOP;
    ALTER FUNCTION public.back() OWNER TO "{owner}";
END $$;
GRANT EXECUTE ON FUNCTION public.go() TO PUBLIC
"""

LATE_PASSWORD: LiteralString = """
CREATE FUNCTION public.go() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    WHILE EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE pg_get_userbyid(member) = current_user)
    LOOP PERFORM pg_catalog.pg_sleep(0.001); END LOOP;
    ALTER ROLE CURRENT_USER PASSWORD 'mine';
END $$;
GRANT EXECUTE ON FUNCTION public.go() TO PUBLIC
"""


def opened(credential: Credential, **options: Any) -> Connection[Any]:
    return psycopg.connect(credential.uri, autocommit=True, **options)


@contextmanager
def running(credential: Credential) -> Iterator[None]:
    """Somebody calls ``go()`` in a session of this credential."""
    with opened(credential) as session:

        def call() -> None:
            with suppress(psycopg.Error):
                session.execute("SELECT public.go()")

        thread = threading.Thread(target=call)
        thread.start()
        try:
            yield
        finally:
            session.cancel_safe()
            thread.join()


def let_in(neighbour: Credential, username: str) -> None:
    with opened(neighbour) as session:
        for text in (f'CONNECT ON DATABASE "{neighbour.database}"', "USAGE, CREATE ON SCHEMA public"):
            session.execute(SQL(f"GRANT {text} TO {{}}").format(Identifier(username)))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_logins, "_ROUNDS", 20)


async def test_what_a_reader_left_running_makes_nothing_of_the_administrators(place: Place) -> None:
    tenants, readers = place.tenants(), place.tenants().role("reader")
    owner, reader = await tenants.ensure("alpha"), await readers.ensure("alpha")
    with opened(owner) as session:
        session.execute("GRANT USAGE, CREATE ON SCHEMA public TO PUBLIC")
    with opened(reader) as session:
        session.execute(GO.replace("{waiting}", MEMBER).encode())
    with running(owner):
        place.sandbox.faults.add("users.delete", delay=0.3)
        first = await only(readers.remove(["alpha"]))
    assert first.error is not None
    assert f"transaction of the login {owner.username!r} in the database {owner.database!r}" in str(first.error)
    assert (await only(readers.remove(["alpha"]))).action is Action.DELETED
    with opened(owner) as session, suppress(psycopg.errors.UndefinedFunction):
        assert session.execute("SELECT public.up()").fetchone() != ("doadmin",)


async def test_what_a_removed_tenant_left_running_at_a_neighbours_makes_nothing_of_the_administrators(
    place: Place,
) -> None:
    tenants = place.tenants()
    leaving, neighbour = await tenants.ensure("alpha"), await tenants.ensure("beta")
    let_in(neighbour, leaving.username)
    with opened(leaving, dbname=neighbour.database) as session:
        session.execute("SET ROLE NONE")
        session.execute(GO.replace("{waiting}", THERE.format(database=leaving.database)).encode())
    with running(neighbour):
        place.sandbox.faults.add("users.delete", delay=0.3)
        first = await only(tenants.remove(["alpha"]))
    assert first.error is not None
    assert (await only(tenants.remove(["alpha"]))).action is Action.DELETED
    with opened(neighbour) as session, suppress(psycopg.errors.UndefinedFunction):
        assert session.execute("SELECT public.up()").fetchone() != ("doadmin",)


async def test_what_a_reader_left_running_at_a_neighbours_does_not_become_the_owners(place: Place) -> None:
    tenants, readers = place.tenants(), place.tenants().role("reader")
    await tenants.ensure("alpha")
    neighbour, reader = await tenants.ensure("beta"), await readers.ensure("alpha")
    owner = names_of(f"{place.prefix}alpha", Engine.PG).owner
    let_in(neighbour, reader.username)
    with opened(neighbour) as session:
        session.execute(SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(Identifier(owner)))
    with opened(reader, dbname=neighbour.database) as session:
        session.execute(ESCAPE.replace("{owner}", owner).encode())
    with running(neighbour):
        await only(readers.rotate(["alpha"]))
        await only(readers.retire(["alpha"]))
        await asyncio.sleep(0.1)
    with opened(neighbour) as session, pytest.raises(psycopg.errors.UndefinedFunction):
        session.execute("SELECT public.back()")


@pytest.mark.parametrize("role", ["owner", "reader"])
async def test_settings_of_a_login_do_not_outlive_a_rotation(place: Place, role: str) -> None:
    """This one ends every session of a program, and none of the client's."""
    await place.tenants().ensure("alpha")
    tenants = place.tenants().role("reader") if role == "reader" else place.tenants()
    first = await tenants.ensure("alpha")
    for _ in range(2):
        with opened(await tenants.ensure("alpha")) as session:
            session.execute("SET ROLE NONE")
            session.execute("ALTER ROLE CURRENT_USER SET local_preload_libraries = 'nothing'")
            session.execute(
                SQL("ALTER ROLE CURRENT_USER IN DATABASE {} SET default_transaction_read_only = on").format(
                    Identifier(first.database or "")
                )
            )
        await only(tenants.rotate(["alpha"]))
        await only(tenants.retire(["alpha"]))
    last = await tenants.get("alpha")
    assert last is not None
    assert last.username == first.username
    with opened(last) as session:
        row = session.execute("SELECT current_setting('default_transaction_read_only')").fetchone()
    assert row == ("off",)


async def test_who_holds_the_password_of_a_login_is_named(place: Place) -> None:
    """A neighbour calls a function of the login that sets its password, and does not commit."""
    tenants = place.tenants()
    leaked, neighbour = await tenants.ensure("alpha"), await tenants.ensure("beta")
    let_in(neighbour, leaked.username)
    with opened(leaked, dbname=neighbour.database) as session:
        session.execute("SET ROLE NONE")
        session.execute(
            "CREATE FUNCTION public.go() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS "
            "'BEGIN ALTER ROLE CURRENT_USER PASSWORD ''mine''; END'; GRANT EXECUTE ON FUNCTION public.go() TO PUBLIC"
        )
    await only(tenants.rotate(["alpha"]))
    with opened(neighbour) as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT public.go()")
        outcome = await only(tenants.retire(["alpha"]))
        assert f"an open transaction of the login {neighbour.username!r}" in str(outcome.error)
    assert (await only(tenants.retire(["alpha"]))).action is Action.RETIRED


@pytest.mark.parametrize("verb", ["rotate", "resume"])
async def test_a_session_of_an_ended_login_does_not_outlive_its_next_use(place: Place, verb: str) -> None:
    """Code of the login, which a neighbour runs, sets its password after it was ended, and the intruder logs in."""
    tenants = place.tenants()
    leaked, neighbour = await tenants.ensure("alpha"), await tenants.ensure("beta")
    let_in(neighbour, leaked.username)
    with opened(leaked, dbname=neighbour.database) as session:
        session.execute("SET ROLE NONE")
        session.execute(LATE_PASSWORD)
    with running(neighbour):
        if verb == "rotate":
            await only(tenants.rotate(["alpha"]))
            assert (await only(tenants.retire(["alpha"]))).action is Action.RETIRED
        else:
            assert (await only(tenants.suspend(["alpha"]))).action is Action.SUSPENDED
        intruder = await intruding(leaked)
    with intruder:
        outcome = await only(tenants.rotate(["alpha"]) if verb == "rotate" else tenants.resume(["alpha"]))
        with pytest.raises(psycopg.OperationalError):
            intruder.execute("SELECT 1")
    assert outcome.credential is not None
    assert outcome.credential.username == leaked.username
    opened(outcome.credential).close()


async def intruding(credential: Credential) -> Connection[Any]:
    """A session of the login, as soon as its password is ``mine``."""
    async with asyncio.timeout(30):
        while True:
            with suppress(psycopg.OperationalError):
                return opened(credential, password="mine", dbname="defaultdb")
            await asyncio.sleep(0.05)
