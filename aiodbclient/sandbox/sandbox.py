"""``Sandbox``: start and stop, clusters and tokens."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Literal, Self, get_args

from aiohttp import web

from .._pacing.budget import Window
from ..engines import Engine
from . import embedded
from .authority import Authority
from .backends import Backend, MemoryBackend
from .clusters import Cluster, Status
from .faults import Faults
from .limits import DOCUMENTED, RateLimiter, Remaining
from .records import RecordedRequest
from .requirements import require
from .server import SCOPES, Api, Rights
from .threads import LoopThread

_HOST = "127.0.0.1"
_STOP_SECONDS = 0.05  # for answers that are about to be told
_DRIVERS = ("psycopg", "trustme")  # what an embedded PostgreSQL needs beside itself


class Sandbox:
    """An API like the provider's on 127.0.0.1.

    ``async with Sandbox() as sandbox`` serves in the running event loop; ``with Sandbox() as sandbox`` in a thread of
    its own, for tests that are not async. Either way ``add_cluster`` may be awaited in any event loop. Several
    sandboxes run side by side. When it stops, what it started is gone and nothing is left on disk.

    Args:
        port: 0 for a free one.
        token: the token that may do everything; a random one where None.
        windows: the rate limits of each token; None for the documented 250 a minute and 5,000 an hour, ``[]`` for none.
        remaining: what ``ratelimit-remaining`` tells: ``"hour"`` what is left of the hour, always; ``"refused"`` the
            same, but 0 with a 429 of the minute's limit; ``"full"`` 0 also with the answer that fills the minute. The
            API description allows all three.
        page_size: None, or how many members a list tells at most before it goes on at ``links.pages.next``.
    """

    def __init__(
        self,
        port: int = 0,
        token: str | None = None,
        windows: Sequence[Window] | None = None,
        *,
        remaining: Remaining = "refused",
        page_size: int | None = None,
    ) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be from 0 to 65535, not {port}")
        if remaining not in get_args(Remaining):
            raise ValueError(f"remaining must be one of {', '.join(get_args(Remaining))}, not {remaining!r}")
        if page_size is not None and page_size < 1:
            raise ValueError(f"page_size must be at least 1, not {page_size}")
        if token == "":
            raise ValueError("token must not be empty; None makes a random one")
        self.token = token or _new_token()
        self._port = port
        self._clusters: dict[str, Cluster] = {}
        self._names: set[str] = set()  # of the clusters that are coming, too
        self._ids: set[str] = set()
        self._windows = DOCUMENTED if windows is None else tuple(windows)
        self._remaining: Remaining = remaining
        self._tokens = {self.token: self._rights(SCOPES)}
        self._authority = Authority()
        self._api = Api(self._clusters, self._tokens, page_size)
        self._url: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runner: web.ServerRunner | None = None
        self._thread: LoopThread | None = None

    def __repr__(self) -> str:
        clusters = ", ".join(f"{cluster.engine}={cluster.name}" for cluster in self._clusters.values())
        return f"<Sandbox {self._url or 'not running'} [{clusters}]>"

    @property
    def url(self) -> str:
        """The base URL, ``http://127.0.0.1:PORT``. Raises RuntimeError while the sandbox is not running."""
        if self._url is None:
            raise RuntimeError("the sandbox is not running; enter it with `async with` or `with` first")
        return self._url

    @property
    def clusters(self) -> dict[str, str]:
        """The names of the clusters by their ids."""
        return {cluster.id: cluster.name for cluster in self._clusters.values()}

    @property
    def failed(self) -> list[str]:
        """The names of the clusters whose embedded PostgreSQL has ended by itself: somebody has killed it."""
        return [cluster.name for cluster in self._clusters.values() if cluster.backend.has_failed()]

    @property
    def faults(self) -> Faults:
        """The failures to show: ``sandbox.faults.add("users.create", status=503)``."""
        return self._api.faults

    @property
    def requests(self) -> list[RecordedRequest]:
        """The last 10,000 requests, oldest first, each from the moment it arrived."""
        return list(self._api.records.kept)

    @property
    def counts(self) -> Counter[tuple[str | None, int | None]]:
        """How many requests there were for each operation and status, those included that are no longer kept."""
        return Counter(self._api.records.counts)

    def add_token(self, scopes: Collection[str] = SCOPES) -> str:
        """A new random token that may do what ``scopes`` say, such as ``["database:read"]``, with limits of its own.

        Passwords, keys and URIs are in lists and gets only with ``database:view_credentials``. Raises ValueError for a
        scope that does not exist.
        """
        unknown = frozenset(scopes) - SCOPES
        if unknown:
            raise ValueError(f"no scope {', '.join(sorted(unknown))}; there are {', '.join(sorted(SCOPES))}")
        token = _new_token()
        self._tokens[token] = self._rights(scopes)
        return token

    def _rights(self, scopes: Collection[str]) -> Rights:
        return Rights(frozenset(scopes), RateLimiter(self._windows, self._remaining))

    async def add_cluster(
        self,
        engine: str,
        name: str | None = None,
        *,
        dsn: str | None = None,
        backend: Literal["memory", "postgres"] | None = None,
        tls: bool = True,
        version: str | None = None,
        num_nodes: int = 1,
        region: str = "nyc3",
        size: str = "db-s-1vcpu-1gb",
        tags: Iterable[str] = (),
        cluster_id: str | None = None,
        online_after: float = 0.0,
    ) -> str:
        """Add a cluster and return its id.

        Args:
            engine: one of ``Engine``, or any other string for an engine that nobody knows yet, in memory.
            name: the engine and a number where None.
            dsn: a server of yours, left as it is at the end: for ``pg`` the URL of a superuser of PostgreSQL 14 or
                newer, for ``mysql`` that of an administrator of MySQL or MariaDB. There the sandbox makes the primary
                user ``doadmin``, unless the URL is that of ``doadmin``.
            backend: ``"memory"`` or ``"postgres"`` (an embedded PostgreSQL, gone at the end). Without one and without
                a dsn, ``pg`` has an embedded PostgreSQL if the ``sandbox`` extra is installed; all else is in memory.
            tls: False for a cluster without TLS. An embedded PostgreSQL has it, with a CA of this sandbox's own, and
                refuses connections without; behind a ``dsn`` it is for the server to say.
            version, num_nodes, region, size, tags: what the cluster tells of itself. With a version before 15 everybody
                may create in ``public`` of the embedded PostgreSQL's dbs, as was so up to PostgreSQL 14.
            cluster_id: a UUID; a random one where None.
            online_after: for so many seconds its status is ``creating``, and the API refuses to write (412).

        Raises ValueError for a name or an id that exists or a combination that makes no sense, RuntimeError when the
        sandbox is not running or the server behind the cluster cannot be reached or started. Cancelling leaves no
        cluster.
        """
        loop = self._loop
        if loop is None:
            raise RuntimeError("the sandbox is not running; enter it with `async with` or `with` first")
        if name is None:
            name = next(free for n in itertools.count(1) if (free := f"{engine}-{n}") not in self._names)
        elif not name or name in self._names:
            raise ValueError(f"there is a cluster named {name!r} already" if name else "name must not be empty")
        cluster_id = _uuid(cluster_id)
        if cluster_id in self._ids:
            raise ValueError(f"there is a cluster with the id {cluster_id} already")
        server = self._backend(Engine.parse(engine), name, dsn, backend, tls, version)
        cluster = Cluster(cluster_id, str(engine), name, server, version, num_nodes, region, size, list(tags))
        self._names.add(name)
        self._ids.add(cluster_id)
        try:
            if loop is asyncio.get_running_loop():
                await self._bring_online(cluster, online_after)
            else:
                await asyncio.wrap_future(
                    asyncio.run_coroutine_threadsafe(self._bring_online(cluster, online_after), loop)
                )
        except BaseException:
            self._names.discard(name)
            self._ids.discard(cluster_id)
            raise
        return cluster.id

    def set_status(self, cluster_id: str, status: Status, *, online_after: float | None = None) -> None:
        """Let a cluster be ``creating``, ``resizing``, ``migrating`` or ``forking`` (412 for writes), or ``online``.

        Args:
            cluster_id: what ``add_cluster`` returned.
            status: what the cluster tells from now on.
            online_after: seconds until it is online again; None for never.

        Raises ValueError for a cluster or a status that does not exist.
        """
        if status not in get_args(Status):
            raise ValueError(f"status must be one of {', '.join(get_args(Status))}, not {status!r}")
        if cluster_id not in self._clusters:
            raise ValueError(f"there is no cluster with the id {cluster_id}")
        self._clusters[cluster_id].set_status(status, online_after)

    def _backend(
        self, engine: Engine | str, cluster: str, dsn: str | None, backend: str | None, tls: bool, version: str | None
    ) -> Backend:
        """What to put behind a cluster. Drivers of servers are imported here, and so only when a cluster needs one."""
        if dsn is not None and backend is not None:
            raise ValueError("give dsn or backend, not both")
        if dsn is not None and not tls:
            raise ValueError("tls=False cannot be had with dsn: whether there is TLS is for the server to say")
        if backend not in (None, "memory", "postgres"):
            raise ValueError(f"backend must be 'memory' or 'postgres', not {backend!r}")
        if engine in (Engine.PG, Engine.ADVANCED_PG):
            if backend is None and dsn is None and embedded.binaries() and all(map(find_spec, _DRIVERS)):
                backend = "postgres"
            if dsn is not None:
                require("psycopg", "sandbox")
                from .postgres import PostgresBackend

                return PostgresBackend(engine, dsn)
            if backend == "postgres":
                for module in _DRIVERS:
                    require(module, "sandbox")
                from .postgres import PostgresBackend

                authority = self._authority if tls else None
                return PostgresBackend(engine, None, authority=authority, open_public=_before_15(version))
        elif engine in (Engine.MYSQL, Engine.ADVANCED_MYSQL) and dsn is not None:
            require("pymysql", "sandbox-mysql")
            from .mysql import MySQLBackend

            return MySQLBackend(engine, dsn)
        if dsn is not None or backend == "postgres":
            raise ValueError(f"a {engine} cluster can only be in memory")
        return MemoryBackend(engine, cluster, self._authority if tls else None)

    async def _bring_online(self, cluster: Cluster, online_after: float) -> None:
        await cluster.backend.start()
        if self._runner is None:
            await cluster.backend.stop()
            raise RuntimeError("the sandbox was stopped before the cluster was there")
        if online_after > 0:
            cluster.set_status("creating", online_after)
        self._clusters[cluster.id] = cluster

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("the sandbox is running already")
        runner = web.ServerRunner(web.Server(self._api.handle, access_log=None), shutdown_timeout=_STOP_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, _HOST, self._port, backlog=1024).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        self._url = f"http://{_HOST}:{runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        runner, self._runner, self._loop, self._url = self._runner, None, None, None
        clusters = list(self._clusters.values())
        self._clusters.clear()
        self._names.clear()
        self._ids.clear()
        try:
            if runner is not None:
                await runner.cleanup()
        finally:
            await self._api.stop()
            await asyncio.gather(*(cluster.backend.stop() for cluster in clusters))

    def __enter__(self) -> Self:
        thread = LoopThread()
        try:
            thread.run(self.__aenter__())
        except BaseException:
            thread.stop()
            raise
        self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.run(self.__aexit__(kind, error, traceback))
            finally:
                thread.stop()


def _new_token() -> str:
    return "dop_v1_" + secrets.token_hex(32)  # the provider's prefix and length of a personal access token


def _uuid(given: str | None) -> str:
    if given is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(given))
    except ValueError:
        raise ValueError(f"cluster_id must be a UUID, not {given!r}") from None


def _before_15(version: str | None) -> bool:
    major = (version or "").partition(".")[0]
    return major.isdecimal() and int(major) < 15
