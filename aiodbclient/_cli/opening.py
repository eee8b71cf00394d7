"""Open what commands need: a client with the token of the environment, and the clusters and the store to work on."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

from ..engines import CAPABILITIES, SQL_ENGINES
from ..errors import (
    ConfigurationError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)
from ..tenants._record import OnRecord, read_all
from ..tenants._stores import readable
from ..tenants._stores.sealing import Seal
from ..tenants.errors import StoreError
from .output import NAME, STORE_VARIABLE, command_line, note, quoted, safe, span, speaks_json, this_command, write_error

if TYPE_CHECKING:
    from .. import Cluster, ClusterClient, DatabaseClient, RateLimiter, RequestEvent
    from ..tenants import Store

_QUIET, _LINE_EVERY = 3.0, 30.0  # s until a command says that it waits: on a terminal, and elsewhere
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
KEY_VARIABLE = "AIODBCLIENT_STORE_KEY"
TARGET_KEY_VARIABLE = "AIODBCLIENT_STORE_KEY_TO"
ENTRY_POINTS = "aiodbclient.stores"
_POSTGRESQL = ("postgresql", "postgres")
_NO_TABLE = "SQLSTATE 42P01"
# What happens to a store that does not exist. "empty": it counts as an empty one, and is not created.
IfMissing: TypeAlias = Literal["fail", "make", "empty"]


@asynccontextmanager
async def open_client(
    limits: Literal["none"] | None = None,
    *,
    offline: bool = False,
    on_event: Callable[[RequestEvent], object] | None = None,
) -> AsyncGenerator[tuple[DatabaseClient, RateLimiter]]:
    """Open a client with the environment's token and proxy. ``limits``: "none" for a sandbox without them.

    ``offline``: it needs no token and sends nothing.
    """
    from .. import DatabaseClient, RateLimiter  # slow to import

    token = "unused" if offline else _token()
    budget = RateLimiter()
    if limits == "none":
        if urlsplit(os.environ.get("DIGITALOCEAN_API_URL", "")).hostname not in _LOOPBACK:
            raise ConfigurationError(
                "--budget none is for a sandbox on this machine: set DIGITALOCEAN_API_URL to its address. Nothing "
                "was sent"
            )
        budget = RateLimiter([])
    async with DatabaseClient(token, rate_limiter=budget, on_event=on_event, trust_env=True) as client:
        yield client, budget


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
    return cluster.engine not in CAPABILITIES or cluster.engine in SQL_ENGINES


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


def keys(variable: str = KEY_VARIABLE) -> list[str] | None:
    """The keys in an environment variable, with commas between them; None if there is none."""
    found = [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()] or None
    try:
        Seal(found)
    except InvalidArgumentError:
        raise InvalidArgumentError(
            f"${variable} has something else than keys that `aiodbclient store keygen` prints, with commas between them"
        ) from None
    return found


@asynccontextmanager
async def open_store(
    where: str,
    if_missing: IfMissing = "fail",
    key: list[str] | None = None,
    called: str = "--store",
) -> AsyncGenerator[Store]:
    """Open the store. Says so if other users could read its passwords."""
    if not where:
        raise InvalidArgumentError(f"{called} is empty: give a file or a URL. Nothing was sent")
    async with AsyncExitStack() as stack:
        opened: Store | None = None
        key = keys() if key is None else (key or None)
        store = _store(where, key)
        mode = _mode(where)
        if if_missing == "make" and key is None and is_missing(where):
            path = Path(where)
            encrypted = path.with_name(f"{path.stem}-encrypted{path.suffix}")
            file = quoted(str(path.with_name(f"{path.stem}.key")))
            copy = command_line(["store", "copy", where, str(encrypted)])
            note(
                f"the new store {where} holds passwords as plain text. To encrypt it: export {TARGET_KEY_VARIABLE}="
                f"$(umask 077; {NAME} store keygen | tee {file}); {copy}. Then use the copy with the key in {file} as "
                f"${KEY_VARIABLE}, and keep that file: the copy is unreadable without it"
            )
        if if_missing == "make" or not is_missing(where):
            try:
                opened = await stack.enter_async_context(store)
            except StoreError as error:
                if _NO_TABLE not in str(error):
                    raise
        if opened is None and if_missing == "empty":
            note(f"{shown(where)} does not exist yet: provisioning creates it")
            folder = stack.enter_context(TemporaryDirectory())
            opened = await stack.enter_async_context(_store(f"{folder}/nothing.db", None))
        if opened is None:
            raise StoreError(
                f"{shown(where)} does not exist: check {called}. Only provisioning and `store copy` create a store"
            )
        if mode & 0o044 and key is None:
            rotate = command_line(["tenants", "rotate", "--all", "--store", where, *await clusters_in(opened)])
            note(
                f"other users of this machine could read {where} (mode {mode:o}), and the passwords in it. Now they "
                f"cannot. To replace the passwords, do this and then revoke: {rotate}"
            )
        yield opened


@asynccontextmanager
async def open_known(where: str | None) -> AsyncGenerator[Store | None]:
    """Open the store whose tenants a command on users or databases leaves alone. None if none is named.

    One that does not exist is a mistake, such as $AIODBCLIENT_STORE in another folder, and not one without tenants.
    """
    if where is None:
        yield None
        return
    async with open_store(where, called=f"--store or ${STORE_VARIABLE}") as opened:
        yield opened


def home_of(record: OnRecord) -> str | None:
    """What the options of a command call the cluster of a tenant: its name, or its id where no credential has it."""
    credential = record.current or record.previous
    return record.cluster if credential is None else credential.cluster_name or credential.cluster


async def clusters_in(store: Store) -> list[str]:
    """The options of a command on all clusters of a store."""
    homes = {home: None async for record in readable(read_all(store)) if (home := home_of(record))}
    return [word for each in homes for word in ("--cluster", each)]


def _store(where: str, key: list[str] | None) -> Store:
    scheme = _scheme_of(where)
    if scheme is None:
        from ..tenants import SQLiteStore

        return SQLiteStore(where, key=key)
    if scheme in _POSTGRESQL:
        from ..tenants import PostgresStore

        return PostgresStore(where, key=key)
    from importlib.metadata import entry_points

    found = entry_points(group=ENTRY_POINTS, name=scheme)
    if not found:
        others = "".join(f", {name}://" for name in sorted(entry_points(group=ENTRY_POINTS).names))
        raise InvalidArgumentError(
            f"--store {scheme}://... is not supported. It takes a file, postgresql://{others}; another package can add "
            f"stores by entry points of the group {ENTRY_POINTS}"
        )
    load: Callable[[str, list[str] | None], Store] = next(iter(found)).load()
    return load(where, key)


def _mode(where: str) -> int:
    """The rights on the file of a store; 0 if it is no file."""
    path = Path(where)
    return path.stat().st_mode & 0o777 if is_file(where) and path.is_file() else 0


def is_missing(where: str) -> bool:
    """Whether the store is a file that does not exist."""
    return is_file(where) and not Path(where).exists()


def is_postgresql(where: str) -> bool:
    """Whether the store is in PostgreSQL."""
    return _scheme_of(where) in _POSTGRESQL


def is_file(where: str) -> bool:
    """Whether the store is a file, or would be."""
    return _scheme_of(where) is None


def _scheme_of(where: str) -> str | None:
    """The scheme of a URL; None for a path."""
    return where.partition("://")[0].lower() if "://" in where else None


def shown(where: str) -> str:
    """The store as a message names it: a URL may hold a password."""
    return f"the store {where}" if is_file(where) else "the table of the store in PostgreSQL"


def admin_login(given: str | None) -> tuple[str, str] | None:
    """The user and the password of an administrator, given as USER:PASSWORD."""
    if given is None:
        return None
    user, colon, password = given.partition(":")
    if not (user and colon and password):
        raise InvalidArgumentError("--admin must be USER:PASSWORD. Nothing was sent")
    return user, password
