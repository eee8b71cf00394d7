"""``Registry``: the clusters of a sandbox. It adds, stops and restores them, each with the ``Backend`` it needs."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import MutableMapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..engines import MYSQL, POSTGRESQL, Engine
from ._access import Reach
from ._backends import PRIMARY, Backend, MemoryBackend
from ._clusters import NewCluster, SandboxCluster
from ._data import Data, mapping
from ._embedded import DRIVERS, POOL, RESERVED, EmbeddedPostgres, SandboxCA, can_embed
from ._faults import Faults


class Registry:
    """The clusters of a sandbox."""

    def __init__(self, reach: Reach, faults: Faults) -> None:
        self._reach = reach
        self._faults = faults
        self.running: dict[str, SandboxCluster] = {}  # by id
        self._taken: dict[str, str] = {}  # ids by name, from the moment in which ``add`` begins
        self._restored: set[str] = set()  # names that were restored and not yet added in this run
        self._is_open = False
        self._data: Data | None = None
        self._kept: MutableMapping[str, Any] = {}
        self._authority = SandboxCA({})

    async def open(self, data: Data | None) -> None:
        """Start the clusters stored in ``data``, and store those that are added from now on."""
        self._data = data
        self._kept = mapping(data, "clusters")
        self._authority = SandboxCA(mapping(data, "authority"))
        self._is_open = True
        for name, record in self._kept.items():
            if not record["dsn"]:  # the server of a DSN may have moved: ``add`` must pass the DSN again
                await self._restore(name, record)

    async def close(self) -> None:
        """Stop and forget all clusters, which ``data`` keeps."""
        self._is_open = False
        clusters = list(self.running.values())
        self._faults.detach()
        for forgotten in (self.running, self._taken, self._restored):
            forgotten.clear()
        try:
            await asyncio.gather(*(cluster.backend.stop() for cluster in clusters))
        finally:
            self._data, self._kept, self._authority = None, {}, SandboxCA({})

    async def add(self, new: NewCluster) -> str:
        """Add a cluster, or find a restored one with the same name and engine, and return its id."""
        name = self._free_name(new.engine) if new.name is None else new.name
        if name in self._restored:
            return self._kept_id(name, new)
        if not name or name in self._taken:
            raise ValueError(f"a cluster named {name!r} exists already" if name else "name must not be empty")
        cluster_id = _uuid(new.cluster_id or self._kept.get(name, {}).get("id"))
        if cluster_id in self._taken.values():
            raise ValueError(f"a cluster with the id {cluster_id} exists already")
        cluster = self._made(new, name, cluster_id)
        self._taken[name] = cluster_id
        try:
            await self._start(cluster)
        except BaseException:
            self._taken.pop(name, None)
            raise
        if new.online_after > 0:
            cluster.set_status("creating", new.online_after)
        kind = "memory" if isinstance(cluster.backend, MemoryBackend) else "postgres"
        self._kept[name] = cluster.record() | {"backend": kind}
        return cluster_id

    async def _start(self, cluster: SandboxCluster) -> None:
        try:
            await cluster.backend.start()
            if not self._is_open:
                raise RuntimeError("the sandbox stopped before the cluster was added")
        except BaseException:
            await cluster.backend.stop()
            raise
        if cluster.backend.embedded is not None:
            self._faults.attach(cluster.id, cluster.backend.embedded)
        self.running[cluster.id] = cluster

    async def _restore(self, name: str, record: dict[str, Any]) -> None:
        cluster = self._made(NewCluster.restored(record), name, record["id"], created_at=record["created_at"])
        self._taken[name] = cluster.id
        self._restored.add(name)
        await self._start(cluster)

    def _made(self, new: NewCluster, name: str, cluster_id: str, **identity: str) -> SandboxCluster:
        return SandboxCluster(cluster_id, name, self._backend(new, name, cluster_id), new, **identity)

    def _backend(self, new: NewCluster, name: str, cluster_id: str) -> Backend:
        """The backend that ``new`` asks for, not yet started; a driver is imported only when a cluster needs it."""
        _check(new)
        engine = Engine.parse(new.engine)
        authority = self._authority if new.tls else None
        if engine in POSTGRESQL and (
            new.dsn is not None or new.backend == "postgres" or (new.backend is None and can_embed())
        ):
            _require("sandbox", *(DRIVERS if new.dsn is None else ["psycopg"]))
            from ._postgres import PostgresBackend

            secrets = mapping(self._data, f"secrets of {cluster_id}")
            is_new = PRIMARY not in secrets
            server = self._embedded(new, cluster_id, authority, is_new) if new.dsn is None else new.dsn
            return PostgresBackend(server, secrets, open_public=new.dsn is None and _before_15(new.version))
        if engine in MYSQL and new.dsn is not None:
            _require("sandbox-mysql", "aiomysql")
            from ._mysql import MySQLBackend

            return MySQLBackend(new.dsn, mapping(self._data, f"secrets of {cluster_id}"))
        if new.connections is not None or new.password_encryption is not None:
            raise ValueError("only an embedded PostgreSQL has connections and password_encryption")
        if new.dsn is not None or new.backend == "postgres":
            raise ValueError(f"a {engine} cluster can only be in memory")
        users, dbs = mapping(self._data, f"users of {cluster_id}"), mapping(self._data, f"dbs of {cluster_id}")
        return MemoryBackend(engine, name, authority, users, dbs)

    def _embedded(
        self, new: NewCluster, cluster_id: str, authority: SandboxCA | None, is_new: bool
    ) -> EmbeddedPostgres:
        settings: dict[str, str] = {}
        if new.connections is not None:
            settings["max_connections"] = str(new.connections + RESERVED)
        if new.password_encryption is not None:
            settings["password_encryption"] = new.password_encryption
        server = EmbeddedPostgres(
            authority,
            kept=mapping(self._data, f"server of {cluster_id}"),
            data=None if self._data is None else self._data.folder / f"postgres-{cluster_id}",
            is_new=is_new,
            in_memory=POOL.is_open,
            reach=self._reach,
            programs=None if new.server is None else Path(new.server),
            settings=settings,
        )
        return POOL.take(server)

    def _kept_id(self, name: str, new: NewCluster) -> str:
        """The id of a restored cluster that is added for the first time in this run."""
        kept = self.running[self._taken[name]]
        if kept.engine != new.engine or (new.cluster_id is not None and _uuid(new.cluster_id) != kept.id):
            raise ValueError(f"{name!r} is stored as a {kept.engine} cluster with the id {kept.id}")
        self._restored.discard(name)
        return kept.id

    def _free_name(self, engine: str) -> str:
        taken = self._taken.keys() - self._restored
        return next(name for number in itertools.count(1) if (name := f"{engine}-{number}") not in taken)


def _uuid(given: str | None) -> str:
    if given is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(given))
    except ValueError:
        raise ValueError(f"cluster_id must be a UUID, not {given!r}") from None


def _require(extra: str, *modules: str) -> None:
    """Raise RuntimeError, with the command to install it, if a module is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise RuntimeError(f"this needs {module}: pip install 'aiodbclient[{extra}]'")


def _check(new: NewCluster) -> None:
    if new.dsn is not None and new.backend is not None:
        raise ValueError("pass dsn or backend, not both")
    if new.dsn is not None and (new.connections is not None or new.password_encryption is not None):
        raise ValueError("connections and password_encryption are not supported with dsn: set them on the server")
    if new.server is not None and new.backend != "postgres":
        raise ValueError('server is the folder of programs for backend="postgres"; pass that too')
    if new.dsn is not None and not new.tls:
        raise ValueError("tls=False is not supported with dsn: the server of the DSN decides about TLS")
    if new.connections is not None and new.connections < 1:
        raise ValueError(f"connections must be at least 1, not {new.connections}")
    if new.password_encryption not in (None, "scram-sha-256", "md5"):
        raise ValueError(f"password_encryption must be 'scram-sha-256' or 'md5', not {new.password_encryption!r}")
    if not new.online_after >= 0:
        raise ValueError(f"online_after must be at least 0, not {new.online_after}")
    if new.backend not in (None, "memory", "postgres"):
        raise ValueError(f"backend must be 'memory' or 'postgres', not {new.backend!r}")


def _before_15(version: str | None) -> bool:
    major = (version or "").partition(".")[0]
    return major.isdecimal() and int(major) < 15
