"""Refusals of MySQL and MariaDB become errors that name the tenant and contain no secret."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiodbclient import Action, ClusterClient, DatabaseClient, RateBudget
from aiodbclient.errors import ConfigurationError, GrantError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import SQLiteStore, Tenants
from aiodbclient.tenants import _logins as logins
from aiodbclient.tenants import _provisioning as provisioning
from aiodbclient.tenants._grants import mariadb_sessions, mysql_sessions

from ..mysql import administrator
from .conftest import only


@pytest.fixture
async def cluster(mysql_cluster: tuple[Sandbox, str]) -> AsyncIterator[ClusterClient]:
    sandbox, cluster_id = mysql_cluster
    async with DatabaseClient(sandbox.token, base_url=sandbox.url, budget=RateBudget([])) as client:
        yield client.cluster(cluster_id)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    async with SQLiteStore(tmp_path / "tenants.db") as store:
        yield store


async def as_administrator(cluster: ClusterClient, statement: str) -> None:
    doadmin = await cluster.users.get("doadmin")
    with administrator((await cluster.info()).connection.uri_for(doadmin)) as cursor:
        cursor.execute(statement)


async def test_missing_rights_of_the_administrator_are_reported_with_the_statement_and_no_secret(
    cluster: ClusterClient, store: SQLiteStore
) -> None:
    beta = await Tenants(cluster, store, "rights_").ensure("beta")  # has all rights in its database, and none elsewhere

    with pytest.raises(GrantError) as caught:
        await Tenants(cluster, store, "rights_", admin=beta.uri).ensure("alpha")

    assert caught.value.tenant == "alpha"
    assert caught.value.statement.startswith("SELECT Host FROM mysql.user")
    assert "MySQL refused a statement" in str(caught.value)
    assert beta.password is not None
    assert beta.password not in str(caught.value)
    assert await Tenants(cluster, store, "rights_").ensure("alpha")


async def test_an_administrator_who_cannot_log_in_is_met_before_anything_is_made(
    cluster: ClusterClient, store: SQLiteStore, unused_tcp_port: int
) -> None:
    connection = (await cluster.info()).connection
    for admin in (
        f"mysql://doadmin:wrong-secret@{connection.host}:{connection.port}/",
        f"mysql://doadmin:wrong-secret@127.0.0.1:{unused_tcp_port}/",
    ):
        with pytest.raises(GrantError, match="cannot log in") as caught:
            await Tenants(cluster, store, "login_", admin=admin).ensure("alpha")
        assert "wrong-secret" not in str(caught.value)
    for nonsense in (
        "nonsense wrong-secret",
        "postgresql://doadmin:wrong-secret@127.0.0.1/",
        "mysql://[wrong-secret",
        *(f"mysql://doadmin:a@wrong-secret{end}b@127.0.0.1/" for end in "/?#"),  # the host would be wrong-secret
    ):
        with pytest.raises(ConfigurationError, match="not a DSN of MySQL") as refused:
            await Tenants(cluster, store, "login_", admin=nonsense).ensure("alpha")
        assert "wrong-secret" not in str(refused.value)
    assert not [user.name for user in await cluster.users.list() if user.name.startswith("login_")]


async def test_a_login_that_the_server_refuses_is_not_put_on_record(
    cluster: ClusterClient, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provisioning, "_GONE", 0.2)  # seconds of retries, since it may be about to be deleted
    monkeypatch.setattr(logins, "SOON", 0.2)  # and since the server may accept its password a moment later
    monkeypatch.setattr(mariadb_sessions, "END_SECONDS", 1.0)
    monkeypatch.setattr(mysql_sessions, "END_SECONDS", 1.0)
    tenants = Tenants(cluster, store, "locked_")
    user = await cluster.users.create("locked_alpha")
    await as_administrator(cluster, "ALTER USER locked_alpha@'%' REQUIRE ISSUER '/CN=nobody'")

    failed = await only(tenants.provision(["alpha"], if_exists="adopt"))

    assert isinstance(failed.error, GrantError)
    assert "Access denied for user 'locked_alpha'" in str(failed.error)
    assert user.password is not None
    assert user.password not in str(failed.error)
    assert await tenants.get("alpha") is None
    await as_administrator(cluster, "ALTER USER locked_alpha@'%' REQUIRE NONE")
    assert (await only(tenants.provision(["alpha"], if_exists="adopt"))).action is Action.ADOPTED
