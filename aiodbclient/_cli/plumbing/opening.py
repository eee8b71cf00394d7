"""Open what commands need: a client with the token of the environment, clusters, and the store."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

from ...errors import InvalidArgumentError, NotFoundError, PermissionDeniedError
from ...tenants.errors import StoreError
from .printing import note, span

if TYPE_CHECKING:
    from ... import Cluster, ClusterInfo, DatabaseClient, RateLimiter
    from ...tenants import Store

_LINE_EVERY = 10.0  # s without an answer until a command says that it waits
KEY_VARIABLE = "AIODBCLIENT_STORE_KEY"
_ENTRY_POINTS = "aiodbclient.stores"


@asynccontextmanager
async def open_client(*, offline: bool = False) -> AsyncGenerator[DatabaseClient]:
    """Open a client with the environment's token and proxy, or an ``offline`` one, which needs no token."""
    from ... import DatabaseClient  # slow to import

    async with DatabaseClient("unused" if offline else None, trust_env=True) as client:
        yield client


def limiter_of(client: DatabaseClient) -> RateLimiter:
    """The rate limiter that the client has made for itself."""
    return client._transport.limiter  # pyright: ignore[reportPrivateUsage]  # of this package


@asynccontextmanager
async def patiently(what: str = "the API") -> AsyncGenerator[None]:
    """Say on the standard error every ten seconds that the command waits."""
    saying = asyncio.create_task(_say_that_it_waits(what))
    try:
        yield
    finally:
        saying.cancel()


async def _say_that_it_waits(what: str) -> None:
    started = monotonic()
    while True:
        await asyncio.sleep(_LINE_EVERY)
        note(f"waiting for {what}: {span(monotonic() - started)}")


async def find_clusters(client: DatabaseClient, wanted: Sequence[str]) -> dict[str, Cluster]:
    """Return clusters by name, with a request for each that is given by its id, and one for all given by name."""
    async with patiently():
        listed = [] if all(map(is_id, wanted)) else await client.clusters.list()
        found = [await _by_id(client, each) if is_id(each) else _by_name(client, listed, each) for each in wanted]
    if len({each.id for _, each in found}) < len(found):
        raise InvalidArgumentError(f"--cluster {', '.join(wanted)}: the same cluster twice")
    names = Counter(name for name, _ in found)
    return {name if names[name] == 1 else each.id: each for name, each in found}


async def find_cluster(client: DatabaseClient, wanted: str) -> Cluster:
    [found] = (await find_clusters(client, [wanted])).values()
    return found


async def _by_id(client: DatabaseClient, wanted: str) -> tuple[str, Cluster]:
    cluster = client.cluster(UUID(wanted))
    try:
        info = await cluster.info()
    except PermissionDeniedError:
        return wanted, cluster  # the token may be allowed to do what the command is for
    except NotFoundError:
        raise InvalidArgumentError(f"no cluster has the id {wanted}: `aiodbclient clusters list` lists them") from None
    return info.name, client.cluster(cluster.id, info.engine)


def _by_name(client: DatabaseClient, clusters: Sequence[ClusterInfo], wanted: str) -> tuple[str, Cluster]:
    found = [cluster for cluster in clusters if cluster.name == wanted]
    if not found:
        names = ", ".join(sorted(cluster.name for cluster in clusters)) or "none"
        raise InvalidArgumentError(f"no cluster is called {wanted!r}; the account has: {names}")
    if len(found) > 1:
        ids = ", ".join(cluster.id for cluster in found)
        raise InvalidArgumentError(f"{len(found)} clusters are called {wanted!r}: use the id: {ids}")
    return wanted, client.cluster(found[0].id, found[0].engine)


def is_id(cluster: str) -> bool:
    with suppress(ValueError):
        return bool(UUID(cluster))
    return False


def keys_in(variable: str = KEY_VARIABLE) -> list[str] | None:
    """Read keys from an environment variable, with commas between them; None if there is none."""
    from ...tenants._stores.codec import RecordCodec  # slow to import

    found = [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()] or None
    try:
        RecordCodec(found)
    except InvalidArgumentError:
        raise InvalidArgumentError(
            f"${variable} is invalid: it takes keys of `aiodbclient store keygen`, separated by commas"
        ) from None
    return found


@asynccontextmanager
async def open_store(
    where: str, *, make: bool = False, key: list[str] | None = None, called: str = "--store"
) -> AsyncGenerator[Store]:
    """Open the store, or create it with ``make``, with the environment's keys or those of ``key``, [] for none."""
    if not where:
        raise InvalidArgumentError(f"{called} is empty: give a file or a URL")
    key = keys_in() if key is None else (key or None)
    if is_missing(where):
        if not make:
            raise StoreError(
                f"{shown(where)} does not exist: check {called}. `tenants provision` and `store copy` create a store"
            )
        if key is None:
            note(f"the new store {where} holds passwords as plain text. To encrypt a store, set ${KEY_VARIABLE} first")
    async with _store(where, key) as opened:
        yield opened


def _store(where: str, key: list[str] | None) -> Store:
    scheme = where.partition("://")[0].lower() if "://" in where else None
    if scheme is None:
        from ...tenants import SQLiteStore

        return SQLiteStore(where, key=key)
    if scheme in ("postgresql", "postgres"):
        from ...tenants import PostgresStore

        return PostgresStore(where, key=key)
    from importlib.metadata import entry_points

    found = entry_points(group=_ENTRY_POINTS, name=scheme)
    if not found:
        known = " or ".join(f"{name}://" for name in ("postgresql", *sorted(entry_points(group=_ENTRY_POINTS).names)))
        raise InvalidArgumentError(f"--store takes a file, or a URL that begins with {known}, not {scheme}://")
    load: Callable[[str, list[str] | None], Store] = next(iter(found)).load()
    return load(where, key)


def is_missing(where: str) -> bool:
    """Whether the store is a file that does not exist."""
    return "://" not in where and not Path(where).exists()


def shown(where: str) -> str:
    """Name the store in a message, without the rest of a URL: it may hold a password."""
    return f"the store {where}" if "://" not in where else f"the store {where.partition('://')[0]}://..."


def admin_login(given: str | None) -> tuple[str, str] | None:
    """Split USER:PASSWORD of an administrator."""
    if given is None:
        return None
    user, _, password = given.partition(":")
    if not (user and password) or "://" in given:
        raise InvalidArgumentError("--admin must be USER:PASSWORD")
    return user, password
