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


async def by_sqlalchemy_and_psycopg(server: TLSServer) -> None:
    await _by_sqlalchemy(make_url(uri(server)).set(drivername="postgresql+psycopg"))


async def by_sqlalchemy_and_asyncpg(server: TLSServer) -> None:
    context = ssl.create_default_context(cafile=server.ca_file)
    url = make_url(uri(server)).set(drivername="postgresql+asyncpg", query={})
    await _by_sqlalchemy(url, connect_args={"ssl": context})


async def by_pymysql(server: TLSServer) -> None:
    pymysql.connect(**_arguments(server), database=server.connection.database).close()


async def by_aiomysql(server: TLSServer) -> None:
    connection = await aiomysql.connect(**_arguments(server), db=server.connection.database)
    connection.close()


async def by_asyncmy(server: TLSServer) -> None:
    connection = await asyncmy.connect(**_arguments(server), db=server.connection.database)
    connection.close()


async def by_sqlalchemy_and_aiomysql(server: TLSServer) -> None:
    context = ssl.create_default_context(cafile=server.ca_file)
    url = make_url(uri(server)).set(drivername="mysql+aiomysql", query={})
    await _by_sqlalchemy(url, connect_args={"ssl": context})


async def by_sqlalchemy_and_asyncmy(server: TLSServer) -> None:
    context = ssl.create_default_context(cafile=server.ca_file)
    url = make_url(uri(server)).set(drivername="mysql+asyncmy", query={})
    await _by_sqlalchemy(url, connect_args={"ssl": context})


async def by_sqlalchemy_and_pymysql(server: TLSServer) -> None:
    context = ssl.create_default_context(cafile=server.ca_file)
    engine = sqlalchemy.create_engine(
        make_url(uri(server)).set(drivername="mysql+pymysql", query={}), connect_args={"ssl": context}
    )
    try:
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
    finally:
        engine.dispose()


def _arguments(server: TLSServer) -> dict[str, Any]:
    where = server.connection
    return {
        "host": where.host,
        "port": where.port,
        "user": server.user.name,
        "password": server.user.password,
        "ssl": ssl.create_default_context(cafile=server.ca_file),
    }


async def _by_sqlalchemy(url: Any, **options: Any) -> None:
    engine = sqlalchemy_asyncio.create_async_engine(url, **options)
    try:
        async with engine.connect() as connection:
            assert (await connection.execute(sqlalchemy.text("SELECT 1"))).scalar() == 1
    finally:
        await engine.dispose()


@pytest.mark.parametrize(
    "log_in", [by_psycopg, by_asyncpg, by_sqlalchemy_and_psycopg, by_sqlalchemy_and_asyncpg], ids=lambda f: f.__name__
)
async def test_a_driver_of_postgresql_verifies_the_server(postgresql: TLSServer, log_in: Any) -> None:
    await log_in(postgresql)

    for server in (with_the_wrong_ca(postgresql), with_the_wrong_host(postgresql)):
        with pytest.raises(
            (ssl.SSLCertVerificationError, psycopg.OperationalError, sqlalchemy.exc.OperationalError),
            match="certificate",
        ):
            await log_in(server)


@pytest.mark.parametrize(
    "log_in",
    [
        by_pymysql,
        by_aiomysql,
        by_asyncmy,
        by_sqlalchemy_and_aiomysql,
        by_sqlalchemy_and_asyncmy,
        by_sqlalchemy_and_pymysql,
    ],
    ids=lambda f: f.__name__,
)
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
