"""Open what commands need: a client with the token of the environment, and the cluster that the operator named."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

from .. import ClusterClient, DatabaseClient, RateBudget, RequestEvent
from ..client import environment_token
from ..errors import ConfigurationError, InvalidArgumentError, NotFoundError, PermissionDeniedError

if TYPE_CHECKING:
    from ..shared_budget import SharedRateBudget

AnyBudget: TypeAlias = "RateBudget | SharedRateBudget"


@asynccontextmanager
async def open_client(
    budget_url: str | None, *, offline: bool = False, on_event: Callable[[RequestEvent], object] | None = None
) -> AsyncGenerator[tuple[DatabaseClient, AnyBudget]]:
    """Open a client with the token and the proxy of the environment.

    Args:
        budget_url: The URL of a shared budget; None for a budget of this process alone.
        offline: Whether the client will send nothing, so that no token is needed.
        on_event: Called after each request.

    Yields:
        The client, and the budget that paces it.

    Raises:
        ConfigurationError: There is no token.
    """
    token = "unused" if offline else _token()
    async with AsyncExitStack() as stack:
        budget: AnyBudget = RateBudget()
        if budget_url is not None and not offline:
            budget = await stack.enter_async_context(_shared(budget_url, token))
        client = DatabaseClient(token, budget=budget, on_event=on_event, app="aiodbclient-command", trust_env=True)
        yield await stack.enter_async_context(client), budget


def _token() -> str:
    try:
        return environment_token()
    except ConfigurationError:
        raise ConfigurationError(
            "there is no API token: set DIGITALOCEAN_TOKEN (or DIGITALOCEAN_ACCESS_TOKEN). Nothing was sent"
        ) from None


def _shared(url: str, token: str) -> SharedRateBudget:
    try:
        from ..shared_budget import SharedRateBudget, token_key
    except ImportError as error:
        raise ConfigurationError(str(error)) from None
    return SharedRateBudget(url, key=token_key(token))


async def find_cluster(client: DatabaseClient, wanted: str) -> ClusterClient:
    """Find a cluster by its id or its name, with one request, which returns its engine too.

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
        raise InvalidArgumentError(
            f"no cluster has the id {wanted}: `aiodbclient clusters list` lists them. Nothing was changed"
        ) from None


def cluster_by_id(client: DatabaseClient, wanted: str) -> ClusterClient | None:
    """The cluster with the id ``wanted``; None if that is no id. Sends nothing."""
    return client.cluster(UUID(wanted)) if is_id(wanted) else None


def is_id(cluster: str) -> bool:
    """Whether ``cluster`` is an id, and not a name."""
    try:
        UUID(cluster)
    except ValueError:
        return False
    return True


async def _cluster_by_name(client: DatabaseClient, wanted: str) -> ClusterClient:
    clusters = await client.clusters.list()
    found = [cluster for cluster in clusters if cluster.name == wanted]
    if not found:
        names = ", ".join(sorted(cluster.name for cluster in clusters)) or "none"
        raise InvalidArgumentError(f"no cluster is called {wanted!r}; the account has: {names}")
    if len(found) > 1:
        ids = ", ".join(cluster.id for cluster in found)
        raise InvalidArgumentError(f"{len(found)} clusters are called {wanted!r}: use the id: {ids}")
    return client.cluster(found[0].id, found[0].engine)
