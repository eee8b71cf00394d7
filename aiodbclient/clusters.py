"""Read clusters, and ``Cluster``, the handle on one cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from time import monotonic
from types import EllipsisType
from uuid import UUID

from ._checks import check_seconds
from ._http.call import Options, RequestStats, RetryPolicy, changed, check_options
from ._http.context import ClientCache, ClusterContext
from ._http.maintenance import MaintenanceWait, until_online
from ._http.operations import LIST_CLUSTERS, checked_cluster_id, tag_query
from ._http.pages import read_all
from ._http.transport import Transport
from .dbs import DatabasesAPI
from .engines import Engine
from .errors import ClusterNotOnlineError, InvalidArgumentError, NotFoundError
from .models import ClusterInfo, ClusterStatus, Connection, User
from .users import UsersAPI

_NEW_CLUSTER = 60.0  # seconds for which reads of a new cluster may be a 404 (terraform-provider-digitalocean #361)


class ClustersAPI:
    """``client.clusters``: the account's database clusters, read-only."""

    def __init__(self, transport: Transport, cache: ClientCache, options: Options) -> None:
        self._transport = transport
        self._cache = cache
        self._options = options

    async def list(self, *, tag_name: str | None = None) -> list[ClusterInfo]:
        """Read the clusters of the account. Safe to repeat and to cancel.

        Args:
            tag_name: Only those with this tag, which needs the scope ``tag:read``. None: all.

        Raises:
            InvalidArgumentError: ``tag_name`` is not a string; nothing was sent.
            DatabaseClientError: The clusters could not be read.
        """
        path = LIST_CLUSTERS.path() + tag_query(tag_name)
        clusters = await read_all(self._transport, LIST_CLUSTERS, path, ClusterInfo, self._options)
        self._cache.engines.update((cluster.id, cluster.engine) for cluster in clusters)
        return clusters

    async def get(self, cluster_id: str | UUID) -> ClusterInfo:
        """Read one cluster. Safe to repeat and to cancel.

        Raises:
            InvalidArgumentError: ``cluster_id`` is not a UUID; nothing was sent.
            NotFoundError: There is no such cluster.
        """
        id = checked_cluster_id(cluster_id)
        return await ClusterContext(self._transport, self._cache, id, None, self._options).read_cluster()


class Cluster:
    """The users and databases of one cluster. ``DatabaseClient.cluster`` returns it, without any I/O.

    Attributes:
        users: The calls on its users.
        dbs: The calls on its databases.
    """

    def __init__(self, context: ClusterContext) -> None:
        self._context = context
        self.users: UsersAPI = UsersAPI(context)
        self.dbs: DatabasesAPI = DatabasesAPI(context)

    def __repr__(self) -> str:
        return f"<Cluster {self.id} {self.engine or 'engine not known yet'}>"

    @property
    def id(self) -> str:
        """The cluster's UUID."""
        return self._context.cluster_id

    @property
    def engine(self) -> Engine | str | None:
        """The engine that the client has read, or else the one that you passed, or None."""
        return self._context.engine

    async def info(self) -> ClusterInfo:
        """Read the cluster. Safe to repeat and to cancel.

        Raises:
            NotFoundError: There is no such cluster.
        """
        return await self._context.read_cluster()

    def with_options(
        self,
        *,
        max_wait: float | EllipsisType | None = ...,
        timeout: float | EllipsisType = ...,
        retry: RetryPolicy | EllipsisType = ...,
        headers: Mapping[str, str] | EllipsisType = ...,
    ) -> Cluster:
        """Return this handle with other options for its calls, as ``DatabaseClient.with_options`` does."""
        options = changed(self._context.options, max_wait=max_wait, timeout=timeout, retry=retry, headers=headers)
        del headers  # a header may be a secret, and a traceback can show local variables
        check_options(options)
        return Cluster(self._context._replace(options=options))

    async def uri_for(
        self,
        user: User,
        database: str | None = None,
        *,
        private: bool = False,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> str:
        """Return the URI for ``user`` and ``database``, as ``Connection.uri_for`` does.

        The client reads the cluster once, and remembers its connection.

        Args:
            user: As ``create``, ``ensure``, ``get`` or ``reset_auth`` returned it, with its password.
            database: None for the connection's default database.
            private: Whether to use the host in the cluster's VPC.
            ca_file: As for ``Connection.uri_for``.

        Raises:
            InvalidArgumentError: The user's password or the host is unknown, or an argument is invalid.
            UnsupportedOperationError: The engine has no users.
            NotFoundError: There is no such cluster.
        """
        check = Connection(host="localhost", engine=self.engine or Engine.PG)  # before anything is sent
        check.uri_for(user, database, ca_file=ca_file)
        connections, key = self._context.cache.connections, (self.id, private)
        if key not in connections:
            info = await self.info()
            found = info.private_connection if private else info.connection
            if found is None or not found.host:
                raise InvalidArgumentError(f"the cluster {self.id} has no such connection (is it still being created?)")
            connections[key] = found
        return connections[key].uri_for(user, database, ca_file=ca_file)

    async def ca(self) -> str:
        """Read the certificate of the cluster's certificate authority (CA).

        The client sends this request once, and remembers the answer. Safe to repeat and to cancel.

        Returns:
            One or more certificates as PEM. Write them to a file for ``uri_for(ca_file=...)``.

        Raises:
            NotFoundError: There is no such cluster.
            InvalidResponseError: The answer has no certificate.
        """
        return await self._context.read_ca()

    async def wait_online(self, *, timeout: float = 900.0) -> ClusterInfo:  # noqa: ASYNC109 - the error names it
        """Wait until the cluster is online. A new one takes some minutes. Safe to repeat and to cancel.

        It reads the cluster at once, then at growing intervals of 1 to 30 s: 40 requests in 900 s. For the first 60 s a
        404 means "not there yet", unless this client has read the cluster before.

        Args:
            timeout: Seconds, including the waits for the rate limit.

        Returns:
            The cluster, which is online.

        Raises:
            ClusterNotOnlineError: It is not online after ``timeout`` seconds; ``status`` is the last one that was read.
            NotFoundError: There is no such cluster.
            InvalidArgumentError: ``timeout`` is not a positive number; nothing was sent.
        """
        check_seconds("timeout", timeout)
        status: ClusterStatus | str | None = None
        start = monotonic()
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                for wait in until_online():
                    try:
                        cluster = await self.info()
                    except NotFoundError:
                        if self._context.was_read or monotonic() - start > _NEW_CLUSTER:
                            raise
                    else:
                        status = cluster.status
                        if status == ClusterStatus.ONLINE:
                            return cluster
                    await self._context.transport.sleep(wait)
        except TimeoutError:
            if not limit.expired():  # it is a read's RequestTimeoutError
                raise
        raise ClusterNotOnlineError(
            f"cluster {self.id} is not online after {timeout:g} s: {status or 'the API returned no status'}",
            status=status,
        )


def for_work(
    cluster: Cluster, stats: RequestStats, maintenance: MaintenanceWait | None = None, label: str | None = None
) -> Cluster:
    """Return ``cluster`` for the work on one name, in a run if there is ``maintenance``; ``label`` is of its events."""
    context = cluster._context.with_stats(stats, maintenance)  # pyright: ignore[reportPrivateUsage]  # of the class above
    return Cluster(context._replace(options=context.options._replace(label=label)))
