"""What every command needs: a client, its cluster, what signals do, and the exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias
from uuid import UUID

import typer

from .. import ClusterClient, DatabaseClient, RateBudget
from ..client import environment_token
from ..errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    DatabaseClientError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnsupportedOperationError,
)
from .output import SIGNALS, OutputError, tell

if TYPE_CHECKING:
    from ..shared_budget import SharedRateBudget

P = ParamSpec("P")
AnyBudget: TypeAlias = "RateBudget | SharedRateBudget"

DONE, SOME_FAILED, BAD_USAGE, STOPPED, UNUSABLE, DIFFERENT = 0, 1, 2, 3, 4, 5


def runs(command: Callable[P, Coroutine[Any, Any, int]]) -> Callable[P, None]:
    """Make of a coroutine function a function for Typer, which exits with its result, or with the code of its error."""

    @wraps(command)
    def called(*arguments: P.args, **options: P.kwargs) -> None:
        raise typer.Exit(_exit_code(command(*arguments, **options)))

    return called


def _exit_code(work: Coroutine[Any, Any, int]) -> int:
    try:
        return asyncio.run(_until_signal(work))
    except typer.Abort:
        print(file=sys.stderr)  # end the line of the question
        tell("stopped: nothing was changed")
        return STOPPED
    except (asyncio.CancelledError, KeyboardInterrupt):
        tell("stopped: what was being sent may have been done")
        return STOPPED
    except OutputError as error:
        if error.lost or not error.gone:
            tell(f"{error}; {error.lost}" if error.lost else str(error))
        return STOPPED if error.gone else UNUSABLE
    except DatabaseClientError as error:
        tell(str(error))
        return code_of(error)


def code_of(error: DatabaseClientError) -> int:
    """The exit code of a command that ended with ``error``."""
    match error:
        case ConfigurationError() | InvalidArgumentError() | UnsupportedOperationError():
            return BAD_USAGE
        case AuthenticationError() | PermissionDeniedError() | RateLimitError() | ServerError():
            return UNUSABLE
        case APIError():
            return SOME_FAILED
        case _:
            return UNUSABLE


async def _until_signal(work: Coroutine[Any, Any, int]) -> int:
    """Do ``work``, until SIGINT or SIGTERM cancels it."""
    task = asyncio.current_task()
    assert task is not None
    on_signals(task.cancel)
    return await work


def on_signals(react: Callable[[], object]) -> None:
    """Call ``react`` on SIGINT and SIGTERM from now on."""
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, react)


@asynccontextmanager
async def open_client(budget_url: str | None) -> AsyncGenerator[tuple[DatabaseClient, AnyBudget]]:
    """Open a client with the token and the proxy of the environment.

    Args:
        budget_url: The URL of a shared budget; None for a budget of this process alone.

    Yields:
        The client, and the budget that paces it.
    """
    async with AsyncExitStack() as stack:
        budget: AnyBudget = RateBudget()
        if budget_url is not None:
            budget = await stack.enter_async_context(_shared(budget_url))
        client = DatabaseClient(budget=budget, app="aiodbclient-command", trust_env=True)
        yield await stack.enter_async_context(client), budget


def _shared(url: str) -> SharedRateBudget:
    try:
        from ..shared_budget import SharedRateBudget, token_key
    except ImportError as error:
        raise ConfigurationError(str(error)) from None
    return SharedRateBudget(url, key=token_key(environment_token()))


async def find_cluster(client: DatabaseClient, wanted: str) -> ClusterClient:
    """Find a cluster by its id or its name, with one request, which tells its engine too.

    Args:
        client: The client.
        wanted: The id or the name.

    Raises:
        InvalidArgumentError: There is no such cluster, or more than one with that name.
    """
    cluster = cluster_by_id(client, wanted)
    if cluster is None:
        return await _cluster_by_name(client, wanted)
    try:
        return client.cluster(cluster.id, (await cluster.info()).engine)
    except PermissionDeniedError:
        return cluster  # the token may be allowed to do what the command is for
    except NotFoundError:
        raise InvalidArgumentError(f"no cluster has the id {wanted}; nothing was changed") from None


def cluster_by_id(client: DatabaseClient, wanted: str) -> ClusterClient | None:
    """The cluster with the id ``wanted``; None if that is no id. Sends nothing."""
    try:
        return client.cluster(UUID(wanted))
    except ValueError:
        return None


async def _cluster_by_name(client: DatabaseClient, wanted: str) -> ClusterClient:
    clusters = await client.clusters.list()
    found = [cluster for cluster in clusters if cluster.name == wanted]
    if not found:
        names = ", ".join(sorted(cluster.name for cluster in clusters)) or "none at all"
        raise InvalidArgumentError(f"no cluster is called {wanted!r}; there are: {names}")
    if len(found) > 1:
        ids = ", ".join(cluster.id for cluster in found)
        raise InvalidArgumentError(f"{len(found)} clusters are called {wanted!r}: say which one by its id: {ids}")
    return client.cluster(found[0].id, found[0].engine)
