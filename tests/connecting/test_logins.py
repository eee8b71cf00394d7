"""With the URIs of uri_for, drivers connect to the right server and refuse a wrong one."""

from __future__ import annotations

import ssl
from typing import Any

import aiomysql
import asyncmy
import asyncpg
import psycopg
import pymysql
import pytest
import sqlalchemy
import sqlalchemy.ext.asyncio as sqlalchemy_asyncio
from attrs import evolve

from .servers import TLSServer

make_url = sqlalchemy.engine.make_url

ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def with_the_wrong_ca(server: TLSServer) -> TLSServer:
    return evolve(server, ca_file=server.wrong_ca_file)


def with_the_wrong_host(server: TLSServer) -> TLSServer:
    return evolve(server, connection=evolve(server.connection, host=server.wrong_host))


def uri(server: TLSServer) -> str:
    return server.connection.uri_for(server.user, ca_file=server.ca_file)


async def by_psycopg(server: TLSServer) -> None:
    async with await psycopg.AsyncConnection.connect(uri(server)) as connection:
        cursor = await connection.execute(ENCRYPTED)
        assert await cursor.fetchone() == (True,)


async def by_asyncpg(server: TLSServer) -> None:
    connection = await asyncpg.connect(uri(server))
    try:
        assert await connection.fetchval(ENCRYPTED)
    finally:
        await connection.close()


async def by_pymysql(server: TLSServer) -> None:
    pymysql.connect(**_arguments(server), database=server.connection.database).close()


async def by_aiomysql(server: TLSServer) -> None:
    connection = await aiomysql.connect(**_arguments(server), db=server.connection.database)
    connection.close()


async def by_asyncmy(server: TLSServer) -> None:
    connection = await asyncmy.connect(**_arguments(server), db=server.connection.database)
    connection.close()


def by_sqlalchemy(driver: str) -> Any:
    """psycopg reads the file of the CA from the URI. The others get a context."""

    async def log_in(server: TLSServer) -> None:
        url, options = make_url(uri(server)).set(drivername=driver), dict[str, Any]()
        if driver != "postgresql+psycopg":
            url, options = url.set(query={}), {"ssl": ssl.create_default_context(cafile=server.ca_file)}
        if driver == "mysql+pymysql":
            sqlalchemy.create_engine(url, connect_args=options, poolclass=sqlalchemy.NullPool).connect().close()
            return
        engine = sqlalchemy_asyncio.create_async_engine(url, connect_args=options, poolclass=sqlalchemy.NullPool)
        async with engine.connect() as connection:
            assert (await connection.execute(sqlalchemy.text("SELECT 1"))).scalar() == 1

    return log_in


def _arguments(server: TLSServer) -> dict[str, Any]:
    where = server.connection
    return {
        "host": where.host,
        "port": where.port,
        "user": server.user.name,
        "password": server.user.password,
        "ssl": ssl.create_default_context(cafile=server.ca_file),
    }


POSTGRESQL = {
    "psycopg": by_psycopg,
    "asyncpg": by_asyncpg,
    **{f"sqlalchemy {driver}": by_sqlalchemy(f"postgresql+{driver}") for driver in ("psycopg", "asyncpg")},
}
MYSQL = {
    "pymysql": by_pymysql,
    "aiomysql": by_aiomysql,
    "asyncmy": by_asyncmy,
    **{f"sqlalchemy {driver}": by_sqlalchemy(f"mysql+{driver}") for driver in ("aiomysql", "asyncmy", "pymysql")},
}


@pytest.mark.parametrize("log_in", POSTGRESQL.values(), ids=POSTGRESQL)
async def test_a_driver_of_postgresql_verifies_the_server(postgresql: TLSServer, log_in: Any) -> None:
    await log_in(postgresql)

    for server in (with_the_wrong_ca(postgresql), with_the_wrong_host(postgresql)):
        with pytest.raises(
            (ssl.SSLCertVerificationError, psycopg.OperationalError, sqlalchemy.exc.OperationalError),
            match="certificate",
        ):
            await log_in(server)


@pytest.mark.parametrize("log_in", MYSQL.values(), ids=MYSQL)
async def test_a_driver_of_mysql_verifies_the_server(mysql: TLSServer, log_in: Any) -> None:
    await log_in(mysql)

    for server in (with_the_wrong_ca(mysql), with_the_wrong_host(mysql)):
        with pytest.raises(Exception, match="Can't connect to MySQL server") as caught:
            await log_in(server)
        assert "certificate" in str(_first(caught.value)).lower()


def _first(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
