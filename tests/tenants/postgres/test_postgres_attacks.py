"""Attacks on PostgreSQL that worked once: on copies, on the test of a login, and on the patience of housekeeping."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest
from psycopg import Connection

from aiodbclient._masking import Secret
from aiodbclient.tenants import Credential, Problem, ProblemKind, TenantAction, Tenants
from aiodbclient.tenants._naming import Role
from aiodbclient.tenants._servers import postgres
from aiodbclient.tenants._servers.postgres import PostgresServer

from ..conftest import only, present
from ..managed import Managed
from ..moves import Two
from ..programs import admin_of, ask, enters
from ..tenant import PASSWORD, Tenant

LONG = ",".join(f'"{number:060}"' for number in range(5_000))


@pytest.mark.parametrize(
    "setting", ["search_path = {long}", "role = '{long}'", "session_authorization = '{long}'"], ids=str.split
)
async def test_long_setting_prevents_no_test_of_login(
    managed: Managed, server: PostgresServer, victim: Tenant, setting: str
) -> None:
    """Since PostgreSQL 18 the server sends search_path at each login, and others in warnings."""
    login = victim.logins[0]
    managed.run(victim, "SET ROLE NONE", f"ALTER ROLE {login} SET {setting}".format(long=LONG))
    assert await server.log_in(victim.names, login, Secret(PASSWORD)) is None
    assert await server.log_in(victim.names, login, Secret("wrong")) is not None
    assert await victim.end(login)
    assert await server.log_in(victim.names, login, Secret(PASSWORD)) is not None


NUMBER = 60  # of policies


async def test_locked_policies_do_not_hang_revocation(managed: Managed, victim: Tenant, evil: Tenant) -> None:
    """Each of them would take a second, and a neighbour can make thousands."""
    login = victim.logins[0]
    policies = [f"CREATE POLICY p{number} ON public.t TO {login}" for number in range(NUMBER)]
    managed.run(evil, "CREATE TABLE public.t (x int)", *policies)
    with closing(managed.open(evil.logins[0], evil.database)) as session:
        session.execute("BEGIN; LOCK TABLE public.t")
        began = time.monotonic()
        assert not await victim.end(login)
        assert time.monotonic() - began < NUMBER
    assert await victim.end(login)


async def test_drop_of_login_is_bounded(victim: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million grants to neighbours' logins made their drop 32 s long."""
    login = victim.logins[0]
    await victim.steps.end_logins([login])
    with monkeypatch.context() as patched:
        patched.setattr(postgres, "DROP_LOGINS_SECONDS", 0.0)
        assert await victim.steps.drop_logins([login]) == (login,)
    assert await victim.steps.drop_logins([login]) == ()


async def test_settings_and_default_rights_stop_no_move(two: Two, tenants: Tenants, alpha: Credential) -> None:
    await ask(alpha, "CREATE TABLE t AS SELECT generate_series(1, 20000) AS n")
    await ask(alpha, "SET ROLE NONE", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    await ask(alpha, "SET ROLE NONE", f"ALTER ROLE {alpha.username} SET default_transaction_read_only = on")
    for setting in ("default_transaction_read_only = on", "transaction_timeout = 1"):
        await ask(await admin_of(two.old), f"ALTER DATABASE {alpha.database} SET {setting}")
    moved = await only(tenants.move(["alpha"], to=two.new))
    assert (moved.error, moved.action) == (None, TenantAction.MOVED)


async def test_refused_object_keeps_no_other_back(managed: Managed, victim: Tenant) -> None:
    """With exit_on_error, the first refusal would end the administrator's session."""
    login = victim.logins[0]
    managed.api("CREATE SCHEMA theirs", victim.database)
    managed.api(f"GRANT USAGE, CREATE ON SCHEMA theirs TO {login}", victim.database)
    managed.as_admin(f"ALTER DATABASE {victim.database} SET exit_on_error = on")
    managed.run(
        victim,
        f"GRANT CREATE ON SCHEMA public TO {login}",
        "SET ROLE NONE; CREATE TABLE theirs.t (); CREATE TABLE public.t ()",
    )
    assert not await victim.end(login)
    owned = "SELECT schemaname::text, tableowner::text FROM pg_tables WHERE tablename = 't' ORDER BY 1"
    assert managed.api(owned, victim.database) == [("public", victim.owner), ("theirs", login)]
    assert not managed.lets_in(login, victim.database)
    assert await victim.problems() == frozenset()
    managed.api("DROP SCHEMA theirs CASCADE", victim.database)
    assert await victim.end(login)


async def test_similar_procedures_are_handed_over(managed: Managed, victim: Tenant) -> None:
    login = victim.logins[0]
    managed.run(
        victim,
        f"GRANT CREATE ON SCHEMA public TO {login}",
        "SET ROLE NONE; CREATE PROCEDURE public.p(a int, b int) LANGUAGE sql AS 'SELECT 1';"
        "CREATE PROCEDURE public.p(INOUT \"a;\" int, OUT b int) LANGUAGE sql AS 'SELECT 1, 2'",
        f"GRANT EXECUTE ON PROCEDURE public.p(IN int, IN int) TO {victim.owner}",
    )
    assert await victim.end(login)
    owned = "SELECT DISTINCT pg_get_userbyid(proowner)::text FROM pg_proc WHERE proname = 'p'"
    assert managed.api(owned, victim.database) == [(victim.owner,)]
    managed.run(victim, "REVOKE EXECUTE ON ALL PROCEDURES IN SCHEMA public FROM PUBLIC")
    await victim.add(Role.WRITER)
    assert await victim.problems() == frozenset()


async def test_planted_function_sets_callers_password(managed: Managed, server: PostgresServer, victim: Tenant) -> None:
    """It goes on after the leaked login was revoked. ``check`` reports that the password on record is refused."""
    leaked, new = victim.logins
    managed.run(
        victim,
        "CREATE FUNCTION public.useful() RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM set_config('role', 'none', false); ALTER ROLE CURRENT_USER PASSWORD 'mine'; RETURN 1; END $$",
    )
    assert await victim.end(leaked)
    managed.run(victim, "SELECT public.useful()")
    assert managed.lets_in(new, victim.database, "mine")
    assert await server.log_in(victim.names, new, Secret(PASSWORD)) is not None


@pytest.mark.thorough
async def test_session_in_template1_blocks_the_api(managed: Managed, victim: Tenant) -> None:
    with closing(managed.open(victim.logins[0], "template1")), pytest.raises(psycopg.errors.ObjectInUse):
        managed.api("CREATE DATABASE held_up TEMPLATE template1")


async def test_what_no_role_can_be_refused(managed: Managed, victim: Tenant) -> None:
    reader = await victim.add(Role.READER)
    with managed.open(victim.logins[0], victim.database) as owner, managed.open(reader, victim.database) as session:
        owner.execute("LISTEN jobs")
        session.execute("NOTIFY jobs, 'forged'")
        assert [each.payload for each in owner.notifies(timeout=10, stop_after=1)] == ["forged"]
        session.execute("SELECT pg_advisory_lock(1)")
        assert owner.execute("SELECT pg_try_advisory_lock(1)").fetchone() == (False,)
        session.execute("SELECT lo_from_bytea(0, 'large')")
    assert await victim.problems() == {Problem(ProblemKind.OWNED_BY_OTHERS, reader)}  # no dump of the owner has it
    await victim.repair()
    assert await victim.problems() == frozenset()


@contextmanager
def unkillable(credential: Credential) -> Iterator[int]:
    """The pid of a session that ignores ``pg_terminate_backend``: stopped, as some statements never check for it."""
    with closing(Connection.connect(credential.uri)) as session:
        pid = session.info.backend_pid
        session.pgconn.send_query(b"SELECT pg_sleep(600)")
        with Connection.connect(credential.uri, autocommit=True) as other:
            other.execute("SET ROLE NONE")  # the owner role does not see it
            while other.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() != ("active",):
                time.sleep(0.01)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("operation", ["suspend", "remove"])
async def test_suspend_refused_by_session(tenants: Tenants, alpha: Credential, operation: str) -> None:
    assert (await only(tenants.role("reader").provision(["alpha"]))).error is None
    reader = present(await tenants.role("reader").get("alpha"))
    second = present((await only(tenants.rotate(["alpha"]))).credential)
    assert await enters(reader)
    with unkillable(alpha) as pid:
        refused = await only(getattr(tenants, operation)(["alpha"]))
        working = [each.username for each in (alpha, second, reader) if await enters(each)]
    assert working == []
    assert str(pid) in str(refused.error)


@pytest.mark.usefixtures("brief")
async def test_removal_held_by_another_tenant(tenants: Tenants) -> None:
    """DROP DATABASE waits until each session of the server has seen it."""
    alpha, evil = await tenants.ensure("alpha"), await tenants.ensure("evil")
    with unkillable(evil):
        refused = await only(tenants.remove(["alpha"]))
        assert not await enters(alpha)
    assert (await only(tenants.remove(["alpha"]))).error is None
    assert "it waits for each process of the server, also for a statement that cannot be ended" in str(refused.error)
