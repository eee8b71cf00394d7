"""Open what commands need: a client with the token of the environment, and the cluster that the operator named."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

from ..engines import CAPABILITIES
from ..errors import ConfigurationError, InvalidArgumentError, NotFoundError, PermissionDeniedError
from .output import command_line, note, safe, span, speaks_json, this_command, write_error

if TYPE_CHECKING:
    from .. import Cluster, ClusterClient, DatabaseClient, RateBudget, RequestEvent
    from ..shared_budget import SharedRateBudget

    AnyBudget: TypeAlias = RateBudget | SharedRateBudget
_QUIET, _LINE_EVERY = 3.0, 30.0  # s until a command says that it waits: on a terminal, and elsewhere
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@asynccontextmanager
async def open_client(
    shared: str | None = None, *, offline: bool = False, on_event: Callable[[RequestEvent], object] | None = None
) -> AsyncGenerator[tuple[DatabaseClient, AnyBudget]]:
    """Open a client with the environment's token and proxy, and a budget that is ``shared`` at this URL.

    ``offline``: it needs no token and sends nothing.
    """
    from .. import DatabaseClient, RateBudget  # slow to import

    token = "unused" if offline else _token()
    async with AsyncExitStack() as stack:
        budget: AnyBudget = RateBudget()
        if shared == "none":
            if urlsplit(os.environ.get("DIGITALOCEAN_API_URL", "")).hostname not in _LOOPBACK:
                raise ConfigurationError(
                    "--budget none is for a sandbox on this machine: set DIGITALOCEAN_API_URL to its address. Nothing "
                    "was sent"
                )
            budget = RateBudget(windows=())
        elif shared is not None and not offline:
            from ..shared_budget import SharedRateBudget, token_key

            budget = await stack.enter_async_context(SharedRateBudget(shared, key=token_key(token)))
        client = DatabaseClient(token, budget=budget, on_event=on_event, app="aiodbclient-command", trust_env=True)
        yield await stack.enter_async_context(client), budget


def _token() -> str:
    from ..client import environment_token

    try:
        return environment_token()
    except ConfigurationError:
        raise ConfigurationError(
            "there is no API token: set DIGITALOCEAN_TOKEN (or DIGITALOCEAN_ACCESS_TOKEN). Nothing was sent"
        ) from None


@asynccontextmanager
async def patiently() -> AsyncGenerator[None]:
    """Say on the standard error that the API is waited for, where that takes long."""
    saying = asyncio.create_task(_say_that_it_waits())
    try:
        yield
    finally:
        saying.cancel()
        with suppress(asyncio.CancelledError):
            await saying


async def _say_that_it_waits() -> None:
    started = monotonic()
    if sys.stderr is None or not sys.stderr.isatty() or speaks_json():
        while True:
            await asyncio.sleep(_LINE_EVERY)
            note(f"waiting for the API: {span(monotonic() - started)}")
    await asyncio.sleep(_QUIET)
    try:
        while True:
            write_error(f"\rwaiting for the API: {span(monotonic() - started)} ")
            await asyncio.sleep(1.0)
    finally:
        write_error("\r\x1b[K")


async def find_clusters(client: DatabaseClient, wanted: Sequence[str]) -> list[ClusterClient]:
    """Find clusters by their ids or names: with a request for each id, and one for all names. Returns engines too."""
    listed = await client.clusters.list() if not all(map(is_id, wanted)) else []
    return [await _by_id(client, each) if is_id(each) else _by_name(client, listed, each) for each in wanted]


async def find_cluster(client: DatabaseClient, wanted: str) -> ClusterClient:
    """Find one cluster, as ``find_clusters`` does."""
    return (await find_clusters(client, [wanted]))[0]


async def _by_id(client: DatabaseClient, wanted: str) -> ClusterClient:
    cluster = client.cluster(UUID(wanted))
    try:
        return client.cluster(cluster.id, (await cluster.info()).engine)
    except PermissionDeniedError:
        return cluster  # the token may be allowed to do what the command is for
    except NotFoundError:
        raise InvalidArgumentError(
            f"no cluster has the id {wanted}: `aiodbclient clusters list` lists them. Nothing was changed"
        ) from None


def may_have_tenants(cluster: ClusterClient) -> bool:
    """Whether a cluster can have tenants, as far as its engine is known."""
    known = None if cluster.engine is None else CAPABILITIES.get(cluster.engine)
    return known is None or bool(known.tenants)


def refuse_tenants(cluster: ClusterClient, what: str, verb: Sequence[str], *, not_a_tenant: bool) -> None:
    """Refuse to change something that may be a tenant's, where nothing is known of tenants.

    Raises:
        InvalidArgumentError: It names the command for tenants, ``verb``.
    """
    if not not_a_tenant and may_have_tenants(cluster):
        raise InvalidArgumentError(
            f"{what} may be a tenant's. For a tenant: {command_line(['tenants', *verb])}. Otherwise: "
            f"{this_command('--not-a-tenant')}. Nothing was changed"
        )


def is_id(cluster: str) -> bool:
    """Whether ``cluster`` is an id, and not a name."""
    try:
        UUID(cluster)
    except ValueError:
        return False
    return True


def _by_name(client: DatabaseClient, clusters: Sequence[Cluster], wanted: str) -> ClusterClient:
    found = [cluster for cluster in clusters if cluster.name == wanted]
    if not found:
        names = ", ".join(sorted(safe(cluster.name) for cluster in clusters)) or "none"
        raise InvalidArgumentError(f"no cluster is called {safe(wanted)!r}; the account has: {names}")
    if len(found) > 1:
        ids = ", ".join(cluster.id for cluster in found)
        raise InvalidArgumentError(f"{len(found)} clusters are called {safe(wanted)!r}: use the id: {ids}")
    return client.cluster(found[0].id, found[0].engine)
