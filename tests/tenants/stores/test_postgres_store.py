"""The store in PostgreSQL: the contract of stores, its own features, and what it reads of a connection string."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from aiodbclient.errors import ConfigurationError, InvalidArgumentError
from aiodbclient.tenants import PostgresStore, Store
from aiodbclient.tenants._libpq import one_line, options_of
from aiodbclient.tenants._stores import postgres as module
from aiodbclient.tenants.errors import StoreError

from ..leaks import leaks
from ..own_stores import password
from ..servers import RestartablePostgres, execute
from ..store_contract import LONG, StoreContract, a_record, all_of, claimed, keep


class TestPostgresStore(StoreContract):
    @pytest.fixture(autouse=True)
    def server(self, postgres: str) -> None:
        self.dsn = postgres

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Callable[[], Store]]:
        table, key = f"credentials_{secrets.token_hex(4)}", Fernet.generate_key()
        yield lambda: PostgresStore(self.dsn, table, key)


@pytest.fixture
def table() -> str:
    return f'public.a "table" {secrets.token_hex(4)}'


async def test_store_reconnects_after_restart(restartable: RestartablePostgres) -> None:
    async with PostgresStore(restartable.dsn) as store, PostgresStore(restartable.dsn) as other:
        await keep(store, "alpha")
        claim = await claimed(store, "beta")
        await asyncio.to_thread(restartable.stop)
        calls = [store.get("alpha"), store.claim("gamma", LONG), store.save(claim, a_record("beta"))]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert type(error) is StoreError
            assert "cannot use" in str(error)
        await asyncio.to_thread(restartable.start)

        assert await other.claim("beta", LONG) is None
        await store.save(claim, a_record("beta"))
        assert await password(other, "alpha") == await password(other, "beta") == "hunter2"
        await keep(other, "gamma")

        await asyncio.to_thread(restartable.stop)
        with pytest.raises(StoreError):
            async with PostgresStore(restartable.dsn):
                pass


async def test_broken_idle_connection_is_replaced(postgres: str, table: str) -> None:
    name = secrets.token_hex(4)
    dsn = make_conninfo(postgres, application_name=name)
    async with PostgresStore(dsn, table) as store:
        claim = await claimed(store, "alpha")
        execute(
            postgres, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = '{name}'"
        )
        await store.save(claim, a_record("alpha"))
        assert await password(store, "alpha") == "hunter2"


async def test_locked_table_is_an_error_that_passes(postgres: str, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STATEMENT_TIMEOUT", 1.0)
    async with PostgresStore(postgres, table) as store:
        await keep(store, "alpha")
        with psycopg.connect(postgres) as other:
            schema, name = table.split(".", 1)
            quoted = psycopg.sql.Identifier(schema, name)
            other.execute(psycopg.sql.SQL("LOCK TABLE {}").format(quoted))
            with pytest.raises(StoreError, match=r"canceling statement due to statement timeout .SQLSTATE 57014"):
                await store.claim("beta", LONG)
        await keep(store, "beta")


async def test_silent_server_holds_up_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither who connects, nor a statement that waits behind another one."""
    connected, hang_up = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await hang_up.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent, asyncio.timeout(5):
        store = PostgresStore(f"postgresql://me:x@127.0.0.1:{silent.sockets[0].getsockname()[1]}/x?sslmode=disable")
        first = asyncio.create_task(store.__aenter__())
        await connected.wait()
        monkeypatch.setattr(module, "_TIMEOUT", 0.01)
        for error in await asyncio.gather(*(store.get("alpha") for _ in range(3)), return_exceptions=True):
            assert "no answer within" in str(error)
        assert not first.done()  # it has its own timeout, and its connection
        hang_up.set()
        with pytest.raises(StoreError, match="server closed the connection"):
            await first
        hang_up.clear()
        with pytest.raises(StoreError, match="no answer within"):
            await store.__aenter__()
        hang_up.set()


async def test_text_outside_encoding_fails_alone(postgres: str, table: str) -> None:
    execute(postgres, "DROP DATABASE IF EXISTS latin")
    execute(postgres, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    async with PostgresStore(make_conninfo(postgres, dbname="latin"), table) as store:
        calls = [store.claim(name, LONG) for name in ("alpha", "日本", "beta")]
        alpha, japan, beta = await asyncio.gather(*calls, return_exceptions=True)
        assert alpha
        assert beta
        assert isinstance(japan, StoreError)


async def test_role_needs_no_right_to_create_tables(postgres: str, table: str) -> None:
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


async def test_errors_show_no_secret(postgres: str, table: str) -> None:
    store = PostgresStore(make_conninfo(postgres, password="hunter2"), table)
    with pytest.raises(StoreError, match="password authentication failed") as failed:
        await store.__aenter__()
    assert leaks(failed.value, "hunter2") == []
    assert "hunter2" not in repr(store)


@pytest.mark.parametrize("arguments", [(None,), (b"postgresql://me:hunter2@127.0.0.1/x",), ("", None)])
def test_arguments_must_be_strings(arguments: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="dsn and table must be strings") as refused:
        PostgresStore(*arguments)
    assert leaks(refused.value, "hunter2") == []


def test_store_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, module.__name__)
    with pytest.raises(ConfigurationError, match=r"needs the extra: pip install 'aiodbclient\[tenants\]'"):
        import_module(module.__name__)


async def test_now_is_the_servers_time(restartable: RestartablePostgres) -> None:
    execute(restartable.dsn, "ALTER SYSTEM SET timezone = 'Asia/Kathmandu'")
    execute(restartable.dsn, "ALTER SYSTEM SET datestyle = 'German'")
    execute(restartable.dsn, "SELECT pg_reload_conf()")
    async with PostgresStore(restartable.dsn) as store:
        before = datetime.now(UTC)
        now = await store.now()
        assert before - timedelta(milliseconds=1) <= now <= datetime.now(UTC)  # it is also this machine's address
        assert now.tzinfo is UTC
        await asyncio.to_thread(restartable.stop)
        with pytest.raises(StoreError, match="cannot use"):
            await store.now()


class Planted:
    """A database of the login ``app``, in which the login ``tenant`` may create anything."""

    def __init__(self, superuser: str) -> None:
        self.superuser = superuser
        self.app, self.tenant, self.database = (f"{each}_{secrets.token_hex(4)}" for each in ("app", "tenant", "db"))
        for login in (self.app, self.tenant):
            execute(superuser, f"CREATE ROLE {login} LOGIN PASSWORD 'hunter3'")
        execute(superuser, f"CREATE DATABASE {self.database} OWNER {self.app}")
        execute(superuser, f"GRANT CREATE ON DATABASE {self.database} TO {self.tenant}")
        execute(self.dsn(self.app), f"GRANT CREATE ON SCHEMA public TO {self.tenant}")

    def dsn(self, login: str) -> str:
        return make_conninfo(self.superuser, user=login, password="hunter3", dbname=self.database)

    def drop(self) -> None:
        execute(self.superuser, f"DROP DATABASE {self.database} WITH (FORCE)")
        execute(self.superuser, f"DROP ROLE {self.app}, {self.tenant}")


@pytest.fixture
def planted(postgres: str) -> Iterator[Planted]:
    planted = Planted(postgres)
    yield planted
    planted.drop()


COLUMNS = "(name text PRIMARY KEY, record text, token text, owner bigint, started timestamptz, expires timestamptz)"


@pytest.mark.parametrize("table", ["aiodbclient_credentials", "public.aiodbclient_credentials"])
async def test_planted_table_is_refused(planted: Planted, table: str) -> None:
    tenant = planted.dsn(planted.tenant)
    execute(tenant, f"CREATE TABLE public.aiodbclient_credentials {COLUMNS}")
    execute(tenant, "GRANT ALL ON public.aiodbclient_credentials TO PUBLIC")
    with pytest.raises(StoreError, match=f"the table public.aiodbclient_credentials belongs to {planted.tenant}"):
        async with PostgresStore(planted.dsn(planted.app), table):
            pass


async def test_planted_schema_is_refused(planted: Planted) -> None:
    execute(planted.dsn(planted.tenant), f"CREATE SCHEMA {planted.app}; GRANT ALL ON SCHEMA {planted.app} TO PUBLIC")
    with pytest.raises(StoreError, match=f"the schema {planted.app} belongs to {planted.tenant}"):
        async with PostgresStore(planted.dsn(planted.app)):  # "$user" is the first in search_path
            pass
    with pytest.raises(StoreError, match='there is no schema "nowhere"'):
        async with PostgresStore(planted.dsn(planted.app), "nowhere.aiodbclient_credentials"):
            pass


async def test_planted_function_is_not_called(planted: Planted) -> None:
    async with PostgresStore(planted.dsn(planted.app)) as store:
        await keep(store, "alpha")
        for statement in (
            f"CREATE SCHEMA {planted.app}; GRANT ALL ON SCHEMA {planted.app} TO PUBLIC",
            f"CREATE TABLE {planted.app}.aiodbclient_credentials {COLUMNS}",
            f"GRANT ALL ON {planted.app}.aiodbclient_credentials TO PUBLIC",
            "CREATE TABLE public.stolen (lease text); GRANT ALL ON public.stolen TO PUBLIC",
            # A better match than PostgreSQL's own, for a lease that is a small integer.
            "CREATE FUNCTION public.steal(float8, smallint) RETURNS float8 LANGUAGE sql"
            " AS $$ INSERT INTO public.stolen VALUES (current_user); SELECT 1e12 $$",
            "CREATE OPERATOR public.+ (FUNCTION = public.steal, LEFTARG = float8, RIGHTARG = smallint)",
        ):
            execute(planted.dsn(planted.tenant), statement)
        await store.renew(await claimed(store, "beta", 60), 60)
        await keep(store, "gamma")
        assert [record.name for record in await all_of(store)] == ["alpha", "gamma"]

        execute(
            planted.superuser,
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{planted.app}'",
        )
        for _ in range(2):  # the store connects again, and looks again at the table and its schema
            with pytest.raises(StoreError, match=f"the schema {planted.app} belongs to {planted.tenant}"):
                await store.claim("delta", 60)
    with psycopg.connect(planted.dsn(planted.tenant)) as tenant:
        for table in (f"{planted.app}.aiodbclient_credentials", "public.stolen"):
            assert tenant.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:hunter2@db.example:5433/alpha?sslmode=require",
        "postgresql://a:h%40u%2Fn@db.example/x",
        "host=db.example password=hunt@er/2",
        "postgresql://me:hunter2@db.example/a%40b",
        "host=@socket",  # an abstract socket
        "host=@socket dbname=a@b password=postgres://",
        "postgresql://%40socket/x",
        "postgresql:///x?host=@socket",
        "postgresql://me:h?r@db.example/x",
        "postgresql://h/a%40b?password=a@b",
        "host=db.example,/run/postgresql,@socket",
        "host=a,b port=5432,5433",
        "dbname=alpha",
        "",
    ],
)
def test_connection_string_is_read_as_by_libpq(dsn: str) -> None:
    assert options_of(dsn, "admin") == conninfo_to_dict(dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:hun@ter2@db.example/alpha",  # the host would be ter2@db.example
        "postgresql://me:hun/ter2@db.example/alpha",  # the port would be hun
        "postgresql://db.example:hunter2/alpha",
        "postgresql://me:hun@@ter2@db.example/alpha",  # an abstract socket
        "postgresql://me:hun@ter2,@db.example/alpha",  # the second of two hosts
        "postgresql://me:hun@ter2:1,@db.example/alpha",
        "postgresql://me:hun@ter/2@db.example/alpha",  # the database would be 2@db.example/alpha
        "postgresql://me:hun@ter/%32@db.example/alpha",  # the same, with a part that libpq decodes
        "postgresql://me:hun@@ter%32@db.example/alpha",
        "postgres://me:5432/hunter2@db.example/alpha",  # the host would be me
        "postgresql://me:hunter2@[db.example/alpha",
        "mysql://me:hunter2@db.example/alpha",
        "hunter2",
        "postgresql://me:hunter2@a..b/alpha",
        f"postgresql://me:hunter2@{'a' * 70}.example/alpha",
        "host=db.example,a..b password=hunter2",
        "host=db\0.example password=hunter2",
        "postgresql://me:hunter2%zz@127.0.0.1/x",
        "user=me password='hunter2",
        "host='a b' password=hunter2",
        "host=\ud800 password=hunter2",
        "postgresql://me:hunter2@\ud800/x",
    ],
)
async def test_invalid_connection_string_is_refused_and_not_quoted(dsn: str) -> None:
    with pytest.raises(InvalidArgumentError, match="store is not a connection string of PostgreSQL") as refused:
        await PostgresStore(dsn).__aenter__()
    assert refused.value.__cause__ is None
    assert leaks(refused.value, "hunter2", "ter2") == []


def test_libpq_message_becomes_one_line() -> None:
    refused = psycopg.OperationalError("connection refused\n\tIs the server running?\n")
    assert one_line(refused) == "connection refused Is the server running?"
    assert one_line(psycopg.OperationalError()) == "OperationalError"
