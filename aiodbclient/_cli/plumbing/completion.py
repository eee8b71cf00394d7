"""How the shell completes the names of clusters and tenants."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Coroutine
from contextlib import redirect_stderr, suppress
from io import StringIO
from typing import Any

import typer

from ...errors import DatabaseClientError

_SECONDS = 2.0  # s, then the shell gets nothing
_ASKS_THE_API = "AIODBCLIENT_COMPLETE_CLUSTERS"
_SAFE = re.compile(r"[\w.@:+,/=-]+")  # no shell acts on it: bash puts it on the command line as it is


def cluster_names(context: typer.Context, incomplete: str) -> list[str]:
    """The clusters: those of $AIODBCLIENT_CLUSTER, and those of the API if $AIODBCLIENT_COMPLETE_CLUSTERS is set."""
    known = os.environ.get("AIODBCLIENT_CLUSTER", "").split(",")
    if os.environ.get(_ASKS_THE_API):
        known += _within(_read_clusters)
    return [name for name in dict.fromkeys(known) if name.startswith(incomplete) and _SAFE.fullmatch(name)]


def tenant_names(context: typer.Context, incomplete: str) -> list[str]:
    """The tenants in the store of the command line or of $AIODBCLIENT_STORE, without a request to the API."""
    where = context.params.get("store") or os.environ.get("AIODBCLIENT_STORE")
    given = context.params.get("names") or ()
    found = _within(lambda: _read_tenants(where)) if where else []
    return [name for name in found if name.startswith(incomplete) and name not in given and _SAFE.fullmatch(name)]


def _within(read: Callable[[], Coroutine[Any, Any, list[str]]]) -> list[str]:
    """What ``read`` returns; nothing if it fails or takes too long, since a shell cannot show an error here."""
    import asyncio  # slow to import, and not needed for help

    async def bounded() -> list[str]:
        async with asyncio.timeout(_SECONDS):
            return await read()

    with redirect_stderr(StringIO()), suppress(DatabaseClientError, OSError):  # TimeoutError is an OSError
        return asyncio.run(bounded())
    return []


async def _read_clusters() -> list[str]:
    from .opening import open_client

    async with open_client() as client:
        return [cluster.name for cluster in await client.clusters.list()]


async def _read_tenants(where: str) -> list[str]:
    from .opening import open_store

    names = list[str]()
    async with open_store(where) as store:
        with suppress(DatabaseClientError):  # of damaged records, after the others
            async for record in store.records():
                names.append(record.name)
    return names
