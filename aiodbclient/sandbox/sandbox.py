"""``Sandbox``: start and stop, clusters and tokens."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, MutableMapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from aiohttp import web

from .._pacing.budget import Window
from ..engines import Engine
from .authority import Authority
from .backends import MemoryBackend
from .behind import behind
from .clusters import Cluster, Status
from .data import Data
from .faults import Faults
from .limits import DOCUMENTED, RateLimiter, Remaining
from .records import RecordedRequest
from .server import SCOPES, Api, Rights
from .threads import LoopThread

_HOST = "127.0.0.1"
_STOP_SECONDS = 0.05  # for answers that are about to be told


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
        data: a folder, made where it is missing, in which clusters, users, dbs, tokens and the certificate authority
            are kept for the next sandbox with this folder, embedded PostgreSQLs too. ``add_cluster`` then returns the
            cluster of that name and engine that was kept; one behind a ``dsn`` needs it again. What was answered is
            there after a kill, but not after a crash of the machine. Passwords are in it: nobody else may read it. A
            PostgreSQL that root embeds runs as nobody, who must be able to get there.
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
        data: str | PathLike[str] | None = None,
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
        self._given_token = token
        self._folder = None if data is None else Path(data)
        self._data: Data | None = None
        self._kept: MutableMapping[str, Any] = {}  # clusters, by name
        self._kept_tokens: MutableMapping[str, Any] = {}  # their scopes, None for the one that may do everything
        self._restored: set[str] = set()  # names that an earlier run kept and nobody has added in this one
        self._port = port
        self._clusters: dict[str, Cluster] = {}
        self._names: set[str] = set()  # of the clusters that are coming, too
        self._ids: set[str] = set()
        self._windows = DOCUMENTED if windows is None else tuple(windows)
        self._remaining: Remaining = remaining
        self._tokens = {self.token: self._rights(SCOPES)}
        self._authority = Authority({})
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
        self._kept_tokens[token] = sorted(scopes)
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
            taken = self._names - self._restored
            name = next(free for n in itertools.count(1) if (free := f"{engine}-{n}") not in taken)
        if name in self._restored:
            return self._claim(name, str(engine), cluster_id)
        if not name or name in self._names:
            raise ValueError(f"there is a cluster named {name!r} already" if name else "name must not be empty")
        cluster_id = _uuid(cluster_id or self._kept.get(name, {}).get("id"))
        if cluster_id in self._ids:
            raise ValueError(f"there is a cluster with the id {cluster_id} already")
        server = behind(
            Engine.parse(engine),
            name,
            cluster_id,
            dsn=dsn,
            backend=backend,
            tls=tls,
            version=version,
            authority=self._authority,
            data=self._data,
        )
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
        kind = "memory" if isinstance(server, MemoryBackend) else "postgres"
        self._kept[name] = cluster.record() | {"tls": tls, "dsn": dsn is not None, "backend": kind}
        return cluster.id

    def _claim(self, name: str, engine: str, cluster_id: str | None) -> str:
        """The id of a cluster that an earlier run left in ``data``."""
        [kept] = [cluster for cluster in self._clusters.values() if cluster.name == name]
        if kept.engine != engine or (cluster_id is not None and _uuid(cluster_id) != kept.id):
            raise ValueError(f"{name!r} is kept as a {kept.engine} cluster with the id {kept.id}")
        self._restored.discard(name)
        return kept.id

    async def _restore(self) -> None:
        """Bring back the clusters that an earlier run kept."""
        for name, record in self._kept.items():
            if record["dsn"]:
                continue  # its server may be elsewhere by now: it comes back when it is added
            server = behind(
                Engine.parse(record["engine"]),
                name,
                record["id"],
                dsn=None,
                backend=record["backend"],
                tls=record["tls"],
                version=record["version"],
                authority=self._authority,
                data=self._data,
            )
            cluster = Cluster.restored(name, server, record)
            self._names.add(name)
            self._ids.add(cluster.id)
            self._restored.add(name)
            await self._bring_online(cluster, 0.0)

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
            if self._folder is not None:
                self._open(self._folder)
            await web.TCPSite(runner, _HOST, self._port, backlog=1024).start()
            self._runner = runner
            await self._restore()
        except BaseException:
            self._runner = None
            self._clusters.clear()
            await runner.cleanup()
            self._close()
            raise
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
        self._restored.clear()
        try:
            if runner is not None:
                await runner.cleanup()
        finally:
            await self._api.stop()
            await asyncio.gather(*(cluster.backend.stop() for cluster in clusters))
            self._close()

    def _open(self, folder: Path) -> None:
        self._data = Data(folder)
        self._kept = self._data.mapping("clusters")
        self._authority = Authority(self._data.mapping("authority"))
        self._kept_tokens = self._data.mapping("tokens")
        kept = {token for token, scopes in self._kept_tokens.items() if scopes is None}
        if self._given_token is None and kept:
            del self._tokens[self.token]
            [self.token] = kept
        for token in kept - {self.token}:
            del self._kept_tokens[token]
        for token, rights in self._tokens.items():
            self._kept_tokens[token] = None if token == self.token else sorted(rights.scopes)
        for token, scopes in self._kept_tokens.items():
            self._tokens[token] = self._rights(SCOPES if scopes is None else scopes)

    def _close(self) -> None:
        if self._data is not None:
            self._data.close()
            self._data = None
            self._kept, self._kept_tokens = {}, {}

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
