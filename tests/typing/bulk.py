"""The types of bulk runs and errors for a type checker. Never run, as ``client.py``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import assert_type

from aiodbclient import (
    ClusterClient,
    Database,
    DatabaseOutcome,
    Failed,
    NewUser,
    Outcome,
    RateLimiter,
    RemovalOutcome,
    Run,
    User,
    UserOutcome,
    Window,
    errors,
)


async def names() -> AsyncIterator[str]:
    yield "alice"


async def specs() -> AsyncIterator[str | NewUser]:
    yield "alice"
    yield NewUser("bob", readonly=True)


async def runs(cluster: ClusterClient) -> None:
    assert_type(cluster.users.provision(["alice"]), Run[UserOutcome])
    assert_type(
        cluster.users.provision([NewUser("alice"), NewUser("bob")], if_exists="reset", concurrency=4), Run[UserOutcome]
    )
    assert_type(cluster.users.provision(name for name in ("alice", "bob")), Run[UserOutcome])
    assert_type(cluster.users.provision(names()), Run[UserOutcome])
    assert_type(cluster.users.provision(specs(), "error"), Run[UserOutcome])
    assert_type(cluster.users.provision(["alice"], if_exists="update"), Run[UserOutcome])
    assert_type(cluster.users.rotate(["alice"]), Run[UserOutcome])
    assert_type(cluster.users.deprovision(names()), Run[RemovalOutcome])
    assert_type(cluster.dbs.provision(["app"]), Run[DatabaseOutcome])
    assert_type(cluster.dbs.deprovision(names()), Run[RemovalOutcome])

    cluster.users.provision([5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    cluster.users.provision([], if_exists="skip")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cluster.dbs.provision([NewUser("a")])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    assert_type(await cluster.users.provision(["alice"]), list[UserOutcome])


async def a_success_holds_its_user(run: Run[UserOutcome]) -> None:
    async for outcome in run:
        if outcome.error is None:
            assert_type(outcome.user, User)
        else:
            assert_type(outcome, Failed)
            assert_type(outcome.error, Exception)
            assert_type(outcome.user, None)
        if outcome.ok is True:
            assert_type(outcome.user, User)
        match outcome:
            case Failed():
                assert_type(outcome.error, Exception)
            case _:
                assert_type(outcome.user.password, str | None)


async def a_success_holds_its_database(run: Run[DatabaseOutcome]) -> None:
    async for outcome in run:
        if outcome.error is None:
            assert_type(outcome.db, Database)


async def what_every_outcome_has(run: Run[Outcome], users: Run[UserOutcome], removals: Run[RemovalOutcome]) -> None:
    every: list[Run[Outcome]] = [run, users, removals]
    print(every)
    async with run:
        async for outcome in run:
            assert_type(outcome, Outcome)
            assert_type(outcome.name, str)
            assert_type(outcome.action, StrEnum)
            assert_type(outcome.error, Exception | None)
            assert_type(outcome.ok, bool)
            assert_type(outcome.tries, int)
            outcome.name = "bob"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    run.stop()
    await run.aclose()


def limiters() -> None:
    RateLimiter([Window(250, 60.0)], share=1 / 4)
    RateLimiter([250])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    RateLimiter([], 20)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def handling(error: errors.DatabaseClientError) -> None:
    assert_type(error.may_have_applied, bool)
    assert_type(error.tries, int)
    match error:
        case errors.RateLimitError() | errors.MaxWaitError():
            assert_type(error.retry_after, float | None)
        case errors.APIError():
            assert_type(error.status, int)
            assert_type(error.id, str)
            assert_type(error.message, str)
            assert_type(error.request_id, str | None)
        case errors.UnsupportedOperationError():
            assert_type(error.engine, str)
            assert_type(error.operation, str)
        case errors.InvalidResponseError():
            assert_type(error.status, int)
        case _:
            pass


def also_builtin(timeout: errors.RequestTimeoutError, argument: errors.InvalidArgumentError) -> None:
    assert_type(timeout.may_have_applied, bool)
    times_out: TimeoutError = timeout
    is_a_value_error: ValueError = argument
    print(times_out, is_a_value_error)
