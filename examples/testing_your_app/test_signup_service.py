"""The service, tested against an API that is really there, with a PostgreSQL behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psycopg
import pytest
from aiohttp import ClientResponse
from pytest_aiohttp import AiohttpClient

from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from signup_service import create_app

SignUp = Callable[[str], Awaitable[ClientResponse]]


@pytest.fixture
async def sign_up(
    aiodbclient_sandbox: Sandbox, aiodbclient_client: DatabaseClient, aiohttp_client: AiohttpClient
) -> SignUp:
    """Sign up at the service, whose API is the sandbox."""
    cluster_id = await aiodbclient_sandbox.add_cluster("pg", backend="postgres")
    service = await aiohttp_client(create_app(aiodbclient_client, cluster_id))

    async def sign_up(tenant: str) -> ClientResponse:
        answer: ClientResponse = await service.post("/signup", json={"tenant": tenant})
        return answer

    return sign_up


async def who(dsn: str) -> tuple[str, str]:
    """Log in to PostgreSQL, use the database, and ask who and where we are."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("CREATE TEMPORARY TABLE notes (text text)")
        row = await (await connection.execute("SELECT current_user, current_database()")).fetchone()
        assert row is not None
        return row[0], row[1]


async def test_a_tenant_gets_a_login_that_works_and_nobody_else_gets_it(sign_up: SignUp) -> None:
    answer = await sign_up("alpha")
    assert answer.status == 201

    assert (await sign_up("alpha")).status == 409
    assert await who((await answer.json())["dsn"]) == ("tenant_alpha", "tenant_alpha")


async def test_when_the_api_cuts_the_connection_after_the_work_the_tenant_still_gets_a_login(
    sign_up: SignUp, aiodbclient_sandbox: Sandbox
) -> None:
    """The user was created and its password was lost on the way. A mock would not have known."""
    cut = aiodbclient_sandbox.faults.add("users.create", cut=True, after=True, times=1)

    answer = await sign_up("alpha")

    assert cut.fired == 1
    assert answer.status == 201
    assert await who((await answer.json())["dsn"]) == ("tenant_alpha", "tenant_alpha")
    assert [request.operation for request in aiodbclient_sandbox.requests].count("users.create") == 1


async def test_when_the_api_is_down_the_signup_can_be_tried_again(
    sign_up: SignUp, aiodbclient_sandbox: Sandbox
) -> None:
    aiodbclient_sandbox.faults.add(["users.create", "users.get"], cut=True, after=True)
    refused = await sign_up("alpha")
    assert (refused.status, refused.headers["retry-after"]) == (503, "5")

    aiodbclient_sandbox.faults.clear()
    answer = await sign_up("alpha")
    assert answer.status == 201
    assert await who((await answer.json())["dsn"]) == ("tenant_alpha", "tenant_alpha")


async def test_a_bad_name_is_refused_and_nothing_is_sent(sign_up: SignUp, aiodbclient_sandbox: Sandbox) -> None:
    before = len(aiodbclient_sandbox.requests)

    for name in ("", "../doadmin", "Robert'); DROP TABLE notes;--", "x" * 32):
        assert (await sign_up(name)).status == 422

    assert len(aiodbclient_sandbox.requests) == before
