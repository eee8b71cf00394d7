"""``Sandbox``: the public class. It serves the API, in the running event loop or in a thread."""

from __future__ import annotations

import asyncio
import itertools
import threading
import uuid
from collections import Counter
from collections.abc import Collection, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from ipaddress import AddressValueError, IPv4Address
from os import PathLike
from typing import Any, Literal, Self, TypeVar, get_args

from aiohttp import web

from .._masking import hidden
from ..rate_limiter import Window
from ._api import Api
from ._backends import ClusterOptions, backend_of
from ._clusters import SandboxCluster, Status
from ._embedded import LOOPBACK, EmbeddedPostgres, address_of
from ._faults import Faults
from ._protocol import RecordedRequest
from ._tokens import DOCUMENTED, SCOPES, Token, random_token

T = TypeVar("T")

_NOT_RUNNING = "the sandbox is not running; enter it with `async with` or `with` first"
_STOP_SECONDS = 0.05  # how long stopping waits for answers that are about to be sent


class Sandbox:
    """An API like the provider's on 127.0.0.1.

    ``async with Sandbox() as sandbox`` serves in the running event loop. ``with Sandbox() as sandbox`` serves in its
    own thread, for tests that are not async. With both, you can await ``add_cluster`` in any event loop. Several
    sandboxes can run side by side. A sandbox that stops ends all servers that it started, and leaves nothing on disk.

    Args:
        port: The port to listen on; 0 for a free one.
        token: The token that may do everything; None for a random one.
        windows: The rate limits of each token; None for the documented 250 a minute and 5,000 an hour, ``[]`` for none.
        bind: The IPv4 address that the sandbox and its PostgreSQLs listen on; None for 127.0.0.1. ``"0.0.0.0"`` lets
            other machines and containers connect. They need the token, which then travels unencrypted.

    Raises:
        ValueError: An argument is out of range.
        RuntimeError: On entering: the sandbox is running already.
        OSError: On entering: it cannot listen on ``port``.
    """

    def __init__(
        self,
        port: int = 0,
        token: str | None = None,
        windows: Sequence[Window] | None = None,
        *,
        bind: str | None = None,
    ) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be from 0 to 65535, not {port}")
        if token == "":
            raise ValueError("token must not be empty; pass None for a random one")
        self._bind = LOOPBACK if bind is None else bind
        try:
            IPv4Address(self._bind)
        except AddressValueError:
            raise ValueError(f"bind must be an IPv4 address such as 0.0.0.0, not {bind!r}") from None
        self._port = port
        self._clusters: dict[str, SandboxCluster] = {}  # by id
        self._taken: dict[str, str] = {}  # ids by name, also of clusters that are starting
        self._windows = DOCUMENTED if windows is None else tuple(windows)
        self._token = token or random_token()
        self._tokens = {self._token: Token(SCOPES, self._windows)}
        self._api = Api(self._clusters, self._tokens, self._token)
        self._url: str | None = None  # None while it is not running
        self._opened = AsyncExitStack()  # closes what ``__aenter__`` opened
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: _LoopThread | None = None

    def __repr__(self) -> str:
        clusters = ", ".join(f"{cluster.engine}={cluster.name}" for cluster in self._clusters.values())
        return f"<Sandbox {self._url or 'not running'} [{clusters}]>"

    @property
    def url(self) -> str:
        """The URL on this machine, such as ``http://127.0.0.1:PORT``, for ``DatabaseClient(base_url=...)``.

        Raises:
            RuntimeError: The sandbox is not running.
        """
        if self._url is None:
            raise RuntimeError(_NOT_RUNNING)
        return self._url

    @property
    def token(self) -> str:
        """The token that may do everything."""
        return self._token

    @property
    def clusters(self) -> dict[str, str]:
        """The name of each cluster, by its id."""
        return {cluster.id: cluster.name for cluster in self._clusters.values()}

    @property
    def failed(self) -> list[str]:
        """The names of the clusters whose PostgreSQL was killed."""
        clusters = [(cluster.name, cluster.backend.embedded) for cluster in self._clusters.values()]
        return [name for name, server in clusters if server is not None and server.has_failed()]

    @property
    def faults(self) -> Faults:
        """The faults to inject: ``sandbox.faults.add("users.create", status=503)``."""
        return self._api.faults

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests, oldest first, with their tokens and passwords. A request is listed as soon as it arrives."""
        return list(self._api.requests)

    @property
    def counts(self) -> Counter[tuple[str | None, int | None]]:
        """The number of requests for each operation and status, since the sandbox was created."""
        return Counter(self._api.counts)

    def add_token(self, scopes: Collection[str] = SCOPES) -> str:
        """Create a random token with its own rate limits.

        Args:
            scopes: Its scopes, such as ``["database:read"]``. Lists and gets return passwords, keys and URIs only to a
                token with ``database:view_credentials``.

        Returns:
            The token.

        Raises:
            ValueError: A scope does not exist.
        """
        if unknown := frozenset(scopes) - SCOPES:
            raise ValueError(f"unknown scope {', '.join(sorted(unknown))}; the scopes are {', '.join(sorted(SCOPES))}")
        token = random_token()
        self._tokens[token] = Token(scopes, self._windows)
        return token

    async def add_cluster(
        self,
        engine: str,
        name: str | None = None,
        *,
        backend: Literal["memory", "postgres"] | None = None,
        server: str | PathLike[str] | None = None,
        connections: int | None = None,
        password_encryption: Literal["scram-sha-256", "md5"] | None = None,
        version: str | None = None,
        tags: Iterable[str] = (),
        cluster_id: str | None = None,
        online_after: float | None = None,
    ) -> str:
        """Add a cluster. A cancelled call adds none.

        Args:
            engine: One of ``Engine``, or any other string for an engine that the client does not know. Such a cluster
                is in memory.
            name: The cluster's name; None for the engine and a number.
            backend: ``"memory"``, or ``"postgres"`` for an embedded PostgreSQL. None: ``pg`` has an embedded PostgreSQL
                if the extra ``sandbox`` is installed. Every other engine is in memory.
            server: A real server, in place of the embedded one, which has no TLS. For ``pg``, the folder of
                PostgreSQL's programs (15 or newer), such as ``"/usr/lib/postgresql/17/bin"``: the sandbox starts a
                server with their extensions and with TLS, whose certificate the cluster's CA verifies. Or the URL of a
                superuser of a PostgreSQL that runs already: the sandbox creates ``doadmin``, its groups and
                ``defaultdb`` there. For ``mysql``, the URL of an administrator of a MySQL: the sandbox creates
                ``doadmin`` there, unless the URL already logs in as ``doadmin``.
            connections: How many sessions clients may have at once on a PostgreSQL that the sandbox starts, such as 22,
                as on the provider's smallest cluster: then ``doadmin`` cannot log in either. None: 297.
            password_encryption: ``"md5"`` for a PostgreSQL that stores the passwords it is given as MD5, as one of the
                provider's clusters did. None: ``"scram-sha-256"``.
            version: The version that the API returns.
            tags: The tags that the API returns.
            cluster_id: The cluster's id, a UUID; None for a random one.
            online_after: Seconds during which the status is ``creating`` and the API refuses writes (412); None: it is
                online at once.

        Returns:
            The cluster's id.

        Raises:
            ValueError: The name or id is taken, or the options contradict each other.
            RuntimeError: The sandbox is not running, or the server behind the cluster cannot be reached or started.
        """
        server = hidden(server)
        options = {name: value for name, value in locals().items() if name != "self"}
        return await self._run(self._add(ClusterOptions(**options)))

    def set_status(self, cluster_id: str, status: Status, *, online_after: float | None = None) -> None:
        """Change the status of a cluster. Unless it is ``online``, the API refuses writes (412).

        Args:
            cluster_id: What ``add_cluster`` returned.
            status: ``creating``, ``resizing``, ``migrating``, ``forking`` or ``online``.
            online_after: Seconds until the cluster is online again; None: the status stays.

        Raises:
            ValueError: The cluster or the status does not exist.
        """
        if status not in get_args(Status):
            raise ValueError(f"status must be one of {', '.join(get_args(Status))}, not {status!r}")
        self._cluster(cluster_id).set_status(status, online_after)

    async def stop_database(self, cluster_id: str, *, graceful: bool = False) -> None:
        """Stop the PostgreSQL that the sandbox started for a cluster.

        Its port refuses connections, open transactions are rolled back, and the API answers 500 for the cluster's
        users and dbs. Safe to repeat and to cancel.

        Args:
            cluster_id: What ``add_cluster`` returned.
            graceful: Whether PostgreSQL ends the sessions with an error (57P01), as in a shutdown. Otherwise the
                connections break, as in a crash.

        Raises:
            ValueError: There is no such cluster, or the sandbox did not start its server.
            RuntimeError: The sandbox is not running, or the server was killed.
        """
        await self._run(self._server(cluster_id).shut_down(graceful=graceful))

    async def start_database(self, cluster_id: str) -> None:
        """Start the stopped PostgreSQL of a cluster again, with its data, on the same port.

        Safe to repeat and to cancel.

        Args:
            cluster_id: What ``add_cluster`` returned.

        Raises:
            ValueError: There is no such cluster, or the sandbox did not start its server.
            RuntimeError: The sandbox is not running, or the server was killed.
        """
        await self._run(self._server(cluster_id).restart())

    async def _add(self, options: ClusterOptions) -> str:
        free = (f"{options.engine}-{number}" for number in itertools.count(1))
        name = next(each for each in free if each not in self._taken) if options.name is None else options.name
        if not name or name in self._taken:
            raise ValueError(f"a cluster named {name!r} exists already" if name else "name must not be empty")
        cluster_id = _uuid(options.cluster_id)
        if cluster_id in self._taken.values():
            raise ValueError(f"a cluster with the id {cluster_id} exists already")
        cluster = SandboxCluster(cluster_id, name, backend_of(options, name, self._bind), options)
        self._taken[name] = cluster_id
        try:
            await cluster.backend.start()
            if self._loop is None:
                raise RuntimeError("the sandbox stopped before the cluster was added")
        except BaseException:
            self._taken.pop(name, None)
            await cluster.backend.stop()
            raise
        if options.online_after is not None:
            cluster.set_status("creating", options.online_after)
        self._clusters[cluster_id] = cluster
        return cluster_id

    async def _stop_clusters(self) -> None:
        clusters = list(self._clusters.values())
        self._clusters.clear()
        self._taken.clear()
        await asyncio.gather(*(cluster.backend.stop() for cluster in clusters))

    def _server(self, cluster_id: str) -> EmbeddedPostgres:
        server = self._cluster(cluster_id).backend.embedded
        if server is None:
            raise ValueError("the sandbox did not start the server of this cluster, so it cannot stop it")
        return server

    def _cluster(self, cluster_id: str) -> SandboxCluster:
        if cluster_id not in self._clusters:
            raise ValueError(f"there is no cluster with the id {cluster_id}")
        return self._clusters[cluster_id]

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("the sandbox is running already")
        async with AsyncExitStack() as opened:
            opened.push_async_callback(self._stop_clusters)
            opened.push_async_callback(self._api.stop)
            runner = web.ServerRunner(web.Server(self._api.handle, access_log=None), shutdown_timeout=_STOP_SECONDS)
            opened.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, self._bind, self._port, backlog=1024).start()
            self._opened = opened.pop_all()
        self._loop = asyncio.get_running_loop()
        self._url = f"http://{address_of(self._bind)}:{runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._loop, self._url = None, None
        await self._opened.aclose()

    def __enter__(self) -> Self:
        thread = _LoopThread()
        try:
            thread.run(self.__aenter__())
        except BaseException:
            thread.stop()
            raise
        self._thread = thread
        return self

    def __exit__(self, *error: object) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.run(self.__aexit__())
            finally:
                thread.stop()

    async def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` in the event loop of the sandbox, or raise RuntimeError if it is not running."""
        loop = self._loop
        if loop is asyncio.get_running_loop():
            return await coroutine
        if loop is None:
            coroutine.close()
            raise RuntimeError(_NOT_RUNNING)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))


def _uuid(given: str | None) -> str:
    if given is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(given))
    except ValueError:
        raise ValueError(f"cluster_id must be a UUID, not {given!r}") from None


class _LoopThread:
    """Runs coroutines for callers without an event loop, in a daemon thread, which does not delay an exit."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="aiodbclient-sandbox", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def stop(self) -> None:
        """Wait at most 10 seconds for running tasks, then stop the loop and the thread."""
        self.run(_wait_for_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _wait_for_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=10)
    await asyncio.get_running_loop().shutdown_default_executor()
