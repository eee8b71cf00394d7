"""The types of bulk runs and errors for a type checker. Never run, as ``client.py``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

from aiodbclient import Cluster, Database, NewUser, RateLimiter, User, errors
from aiodbclient.bulk import DatabaseOutcome, Failed, Outcome, Outcomes, RemovalOutcome, Run, UserOutcome
from aiodbclient.rate_limiter import Window


async def names() -> AsyncIterator[str]:
    yield "alice"


async def specs() -> AsyncIterator[str | NewUser]:
    yield "alice"
    yield NewUser("bob", readonly=True)


async def runs(cluster: Cluster) -> None:
    assert_type(cluster.users.provision(["alice"]), Run[UserOutcome])
    assert_type(
        cluster.users.provision([NewUser("alice"), NewUser("bob")], if_exists="reset", concurrency=4), Run[UserOutcome]
    )
    assert_type(cluster.users.provision(name for name in ("alice", "bob")), Run[UserOutcome])
    assert_type(cluster.users.provision(names()), Run[UserOutcome])
    assert_type(cluster.users.provision(specs(), if_exists="error"), Run[UserOutcome])
    assert_type(cluster.users.provision(["alice"], if_exists="update"), Run[UserOutcome])
    assert_type(cluster.users.rotate(["alice"]), Run[UserOutcome])
    assert_type(cluster.users.deprovision(names()), Run[RemovalOutcome])
    assert_type(cluster.dbs.provision(["app"]), Run[DatabaseOutcome])
    assert_type(cluster.dbs.deprovision(names()), Run[RemovalOutcome])

    cluster.users.provision([5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    cluster.users.provision([], if_exists="skip")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cluster.dbs.provision([NewUser("a")])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    outcomes = await cluster.users.provision(["alice"])
    assert_type(outcomes, Outcomes[UserOutcome])
    assert_type(outcomes.failed, list[Failed])
    print(outcomes[0].ok)  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]


async def a_success_holds_its_user(run: Run[UserOutcome]) -> None:
    async for outcome in run:
        if outcome.error is None:
            assert_type(outcome.user, User)
        else:
            assert_type(outcome, Failed)
            assert_type(outcome.error, Exception)
            assert_type(outcome.user, None)
        if outcome.error is None:
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
            outcome.name = "bob"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    run.stop()
    await run.aclose()


def limiters() -> None:
    RateLimiter([Window(250, 60.0)], share=1 / 4)
    RateLimiter([250])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    RateLimiter([], 20)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def also_builtin(timeout: errors.RequestTimeoutError, argument: errors.InvalidArgumentError) -> None:
    times_out: TimeoutError = timeout
    is_a_value_error: ValueError = argument
    print(times_out, is_a_value_error)
