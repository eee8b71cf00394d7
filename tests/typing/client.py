"""The types of the client for a type checker. Never run: ``make check`` checks it with mypy and pyright, both strict.

It has what a checker must refuse, and what it must conclude. A line that must be an error has an ignore, and an
unneeded ignore is an error too. What only repeats an annotation is not here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, assert_type
from uuid import UUID

import aiodbclient
from aiodbclient import (
    Cluster,
    Connection,
    Database,
    DatabaseClient,
    IfExists,
    NewUser,
    RateLimiter,
    TokenProvider,
    User,
    UserSettings,
    errors,
)
from aiodbclient.bulk import DatabaseOutcome, Failed, Outcome, Outcomes, RemovalOutcome, Run, UserOutcome
from aiodbclient.rate_limiter import Window
from aiodbclient.tenants import (
    ChooseCluster,
    ClusterCapacity,
    Credential,
    Setup,
    SQLiteStore,
    TenantAction,
    TenantChecked,
    TenantDone,
    TenantFailed,
    TenantMoved,
    TenantRecord,
    TenantRemoved,
    TenantRepaired,
    TenantResult,
    Tenants,
    TenantSkipped,
)
from aiodbclient.tenants import IfExists as IfTenantExists


async def a_new_token() -> str:
    return "token"


def not_async() -> str:
    return "token"


async def wrap(provider: TokenProvider, name: str, if_exists: IfExists) -> aiodbclient.bulk.Outcomes[Any]:
    cluster = DatabaseClient(provider, rate_limiter=aiodbclient.rate_limiter.RateLimiter([])).cluster("id")
    await cluster.users.ensure(name, if_exists=if_exists)
    return await cluster.users.provision([name], if_exists=if_exists)


async def wrap_tenants(
    cluster: Cluster, store: SQLiteStore, setup: Setup, choose: ChooseCluster, if_exists: IfTenantExists
) -> Credential:
    return await Tenants(cluster, store, setup=setup, choose_cluster=choose).ensure("alpha", if_exists=if_exists)


async def names() -> AsyncIterator[str]:
    yield "alice"


async def specs() -> AsyncIterator[str | NewUser]:
    yield "alice"
    yield NewUser("bob", readonly=True)


async def one_client(client: DatabaseClient, cluster_id: UUID) -> None:
    DatabaseClient(token=a_new_token)
    DatabaseClient(rate_limiter=RateLimiter([Window(250, 60.0)], share=1 / 4))
    DatabaseClient(not_async)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    DatabaseClient(b"token")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    DatabaseClient("token", "https://x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    DatabaseClient(timeout="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    DatabaseClient(retries=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    DatabaseClient(rate_limiter=250)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimiter([250])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    RateLimiter([], 20)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    async with client as entered:
        assert_type(entered, DatabaseClient)
    client.with_options(timeout=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.with_options(bulk=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.cluster(cluster_id, engine="pg")
    client.cluster(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.cluster = None  # type: ignore[method-assign,assignment]  # pyright: ignore[reportAttributeAccessIssue]
    client.clusters.delete(cluster_id)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    await client.request("GET", "/v2/databases", params={"tag_name": "prod", "page": 2, "id": ["a", "b"]})
    rules = [{"type": "ip_addr", "value": "192.168.1.1"}]
    await client.request("PUT", "/v2/databases/1/firewall", json={"rules": rules})
    await client.request("PUT", "/v2/databases/1/firewall", json={"at": datetime.now()})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    await client.request("GET", "/v2/databases", params={"tag_name": None})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    await client.request("GET")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def one_cluster(cluster: Cluster, user: User, settings: UserSettings, connection: Connection) -> None:
    cluster.id = "x"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(await cluster.users.delete("alice"), None)
    await cluster.users.get(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await cluster.users.create("alice", settings)  # type: ignore[call-arg,arg-type]  # pyright: ignore[reportCallIssue]
    await cluster.users.update("alice")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await cluster.dbs.update("app")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    connection.uri_for(user, database="app", ca_file=Path("ca.pem"))
    connection.uri_for("alice")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(user.passwort)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    # The API does not return it for every user.
    user.password.encode()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]


async def runs(cluster: Cluster) -> None:
    cluster.users.provision([NewUser("alice"), NewUser("bob")], if_exists="reset", concurrency=4)
    cluster.users.provision(name for name in ("alice", "bob"))
    cluster.users.provision(specs(), if_exists="update")
    cluster.users.deprovision(names())
    cluster.users.provision([5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    cluster.users.provision([], if_exists="skip")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cluster.dbs.provision([NewUser("a")])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    outcomes = await cluster.users.provision(["alice"])
    assert_type(outcomes, Outcomes[UserOutcome])
    assert_type(outcomes.failed, list[Failed])
    print(outcomes[0].ok)  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]


async def a_success_holds_its_user(
    run: Run[UserOutcome], dbs: Run[DatabaseOutcome], removals: Run[RemovalOutcome]
) -> None:
    async for outcome in run:
        if outcome.error is None:
            assert_type(outcome.user, User)
        else:
            assert_type(outcome, Failed)
            assert_type(outcome.error, Exception)
            assert_type(outcome.user, None)
        match outcome:
            case Failed():
                assert_type(outcome.error, Exception)
            case _:
                assert_type(outcome.user.password, str | None)
    async for made in dbs:
        if made.error is None:
            assert_type(made.db, Database)
    every: list[Run[Outcome]] = [run, dbs, removals]
    async for any_outcome in every[0]:
        any_outcome.name = "bob"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def also_builtin(timeout: errors.RequestTimeoutError, argument: errors.InvalidArgumentError) -> None:
    times_out: TimeoutError = timeout
    is_a_value_error: ValueError = argument
    print(times_out, is_a_value_error)


async def tenants(a: Cluster, b: Cluster) -> None:
    async def place(name: str, rooms: Sequence[ClusterCapacity]) -> Cluster | str:
        return min(rooms, key=lambda room: room.tenants).cluster

    async def work(credential: Credential) -> int:
        return credential.port

    async with SQLiteStore("tenants.db") as store:
        assert_type(store, SQLiteStore)
        tenants = Tenants([a, b], store, admin={a.id: ("doadmin", "...")}, choose_cluster=place)
        async for outcome in tenants.provision(["alpha"], if_exists="adopt"):
            assert_type(outcome, TenantDone | TenantFailed)
            if outcome.error is None:
                assert_type(outcome.credential, Credential)
                assert_type(outcome.record, TenantRecord)
            else:
                assert_type(outcome.error, Exception)
                assert_type(outcome.credential, None)
        async for removed in tenants.remove(["alpha"]):
            assert_type(removed, TenantRemoved | TenantFailed)
            assert_type(removed.credential, None)
            assert_type(removed.leftover, tuple[str, ...])
        async for moved in tenants.move(["alpha"]):
            assert_type(moved, TenantMoved | TenantFailed)
            assert_type(moved.leftover, str | tuple[str, ...])
        async for check in tenants.check():
            assert_type(check, TenantChecked | TenantFailed)
        async for repair in tenants.repair(["alpha"]):
            assert_type(repair, TenantRepaired | TenantFailed)
            assert_type(repair.credential, Credential | None)
        async for once in tenants.each(work, version="0042"):
            assert_type(once, TenantResult[int] | TenantSkipped | TenantFailed)
            if once.action is TenantAction.DONE:
                assert_type(once.value, int)
        async for done in tenants.each(work, ["alpha"], concurrency=8):
            assert_type(done, TenantResult[int] | TenantFailed)
            if done.error is None:
                assert_type(done.value, int)
                assert_type(done.action, Literal[TenantAction.DONE])
