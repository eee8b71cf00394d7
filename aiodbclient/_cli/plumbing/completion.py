"""How the shell completes the names of clusters and tenants, without a request to the API."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import redirect_stderr, suppress
from io import StringIO
from typing import TYPE_CHECKING

import typer

from ...errors import DatabaseClientError

if TYPE_CHECKING:
    from ...tenants import TenantRecord

_SECONDS = 2.0  # s, then the shell gets nothing
_SAFE = re.compile(r"[\w.@:+,/=-]+")  # no shell acts on it: bash puts it on the command line as it is


def cluster_names(context: typer.Context, incomplete: str) -> list[str]:
    """The clusters of $AIODBCLIENT_CLUSTER, and those in the store."""
    known = os.environ.get("AIODBCLIENT_CLUSTER", "").split(",")
    return _safe([*known, *(record.cluster_name for record in _on_record(context))], incomplete)


def tenant_names(context: typer.Context, incomplete: str) -> list[str]:
    """The tenants in the store."""
    given = context.params.get("names") or ()
    return _safe((record.name for record in _on_record(context) if record.name not in given), incomplete)


def _safe(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete) and _SAFE.fullmatch(name)]


def _on_record(context: typer.Context) -> list[TenantRecord]:
    """The records in the store of the command line or of $AIODBCLIENT_STORE; none of a store that fails or is slow."""
    where = context.params.get("store") or os.environ.get("AIODBCLIENT_STORE")
    if not where:
        return []
    import asyncio  # slow to import, and not needed for help

    from .opening import open_store

    records: list[TenantRecord] = []

    async def read() -> None:
        async with asyncio.timeout(_SECONDS), open_store(where) as store:
            async for record in store.records():
                records.append(record)

    with redirect_stderr(StringIO()), suppress(DatabaseClientError, OSError):  # TimeoutError is an OSError
        asyncio.run(read())
    return records
