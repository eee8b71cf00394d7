"""How the shell completes the names of clusters and tenants: no other name, and no file."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import redirect_stderr, redirect_stdout, suppress
from contextvars import ContextVar
from io import StringIO
from typing import Any

import typer

from ..errors import DatabaseClientError
from .output import CLUSTER_VARIABLE, STORE_VARIABLE, is_safe

_SECONDS = 2.0  # nobody waits longer for a word
ASKS_THE_API = "AIODBCLIENT_COMPLETE_CLUSTERS"
COMPLETES = "_AIODBCLIENT_COMPLETE"  # set by the shell that asks how a word goes on
# Where bash gets no word, it offers files. Of two words that begin differently it inserts nothing, and shows them.
_NOTHING = "(no name is known here)\n \n"
_asked = ContextVar("_asked", default=False)


def complete(answer: Callable[[], object]) -> int:
    """Print what ``answer`` prints for a shell. Where a name is meant, it prints no request for files."""
    printed, code = StringIO(), 0
    try:
        with redirect_stdout(printed):
            answer()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    text = printed.getvalue()
    if _asked.get():  # zsh offers files if it is asked to, and fish where nothing is said
        code, text = 0, "" if text.strip() == "_files" else text
        if not text.strip() and os.environ[COMPLETES] == "complete_bash":
            text = _NOTHING
    sys.stdout.write(text)
    return code


def cluster_names(context: typer.Context, incomplete: str) -> list[str]:
    """The clusters: those of $AIODBCLIENT_CLUSTER, and those of the API if $AIODBCLIENT_COMPLETE_CLUSTERS is set."""
    _asked.set(True)
    known = os.environ.get(CLUSTER_VARIABLE, "").split(",")
    if os.environ.get(ASKS_THE_API):
        known += _within(_clusters)
    return [name for name in dict.fromkeys(known) if name.startswith(incomplete) and is_safe(name)]


def tenant_names(context: typer.Context, incomplete: str) -> list[str]:
    """The tenants in the store of the command line or of $AIODBCLIENT_STORE. Sends no request to the API."""
    _asked.set(True)
    where = context.params.get("store") or os.environ.get(STORE_VARIABLE)
    found = _within(lambda: _tenants(where)) if where else []
    return [name for name in found if name.startswith(incomplete) and is_safe(name)]


def _within(read: Callable[[], Coroutine[Any, Any, list[str]]]) -> list[str]:
    """What ``read`` returns; nothing if it fails or takes too long, since a shell cannot show an error here."""

    async def bounded() -> list[str]:
        async with asyncio.timeout(_SECONDS):
            return await read()

    with redirect_stderr(StringIO()), suppress(DatabaseClientError, OSError):  # TimeoutError is an OSError
        return asyncio.run(bounded())
    return []


async def _clusters() -> list[str]:
    from .opening import open_client

    async with open_client() as (client, _):
        return [cluster.name for cluster in await client.clusters.list()]


async def _tenants(where: str) -> list[str]:
    from ..tenants._naming import tenant_of
    from .opening import open_store

    async with open_store(where) as store:
        return list({tenant_of(record.name)[0]: None async for record in store.records()})
