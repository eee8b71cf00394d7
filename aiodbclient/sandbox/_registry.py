"""``Registry``: the clusters of a sandbox, each with the ``Backend`` that it needs."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from importlib.util import find_spec
from pathlib import Path

from ..engines import MYSQL, POSTGRESQL, Engine
from ._backends import Backend, MemoryBackend
from ._clusters import NewCluster, SandboxCluster
from ._embedded import POOL, RESERVED, EmbeddedPostgres, can_embed


class Registry:
    """The clusters of a sandbox, whose servers listen at the address ``bind``."""

    def __init__(self, bind: str) -> None:
        self._bind = bind
        self.running: dict[str, SandboxCluster] = {}  # by id
        self._taken: dict[str, str] = {}  # ids by name, from the moment in which ``add`` begins
        self.is_open = False

    async def close(self) -> None:
        self.is_open = False
        clusters = list(self.running.values())
        self.running.clear()
        self._taken.clear()
        await asyncio.gather(*(cluster.backend.stop() for cluster in clusters))

    async def add(self, new: NewCluster) -> str:
        free = (f"{new.engine}-{number}" for number in itertools.count(1))
        name = next(each for each in free if each not in self._taken) if new.name is None else new.name
        if not name or name in self._taken:
            raise ValueError(f"a cluster named {name!r} exists already" if name else "name must not be empty")
        cluster_id = _uuid(new.cluster_id)
        if cluster_id in self._taken.values():
            raise ValueError(f"a cluster with the id {cluster_id} exists already")
        cluster = SandboxCluster(cluster_id, name, self._backend(new, name), new)
        self._taken[name] = cluster_id
        try:
            await cluster.backend.start()
            if not self.is_open:
                raise RuntimeError("the sandbox stopped before the cluster was added")
        except BaseException:
            self._taken.pop(name, None)
            await cluster.backend.stop()
            raise
        if new.online_after is not None:
            cluster.set_status("creating", new.online_after)
        self.running[cluster_id] = cluster
        return cluster_id

    def _backend(self, new: NewCluster, name: str) -> Backend:
        """The backend that ``new`` asks for, not yet started, whose driver is imported only when a cluster needs it."""
        _check(new)
        engine = Engine.parse(new.engine)
        is_dsn = new.server is not None and "://" in new.server
        if engine in POSTGRESQL and (
            new.server is not None or new.backend == "postgres" or (new.backend is None and can_embed())
        ):
            _require("psycopg", "trustme")
            from ._postgres import PostgresBackend

            return PostgresBackend(new.server or "" if is_dsn else self._embedded(new))
        if engine in MYSQL and is_dsn:
            _require("pymysql")
            from ._mysql import MySQLBackend

            return MySQLBackend(new.server or "")
        if new.connections is not None or new.password_encryption is not None:
            raise ValueError("only a PostgreSQL that the sandbox starts has connections and password_encryption")
        if engine in MYSQL and new.server is not None:
            raise ValueError(
                "server of a mysql cluster must be the URL of a running server, mysql://USER:PASSWORD@HOST:PORT, not a "
                "folder; without it the cluster is in memory"
            )
        if new.server is not None or new.backend == "postgres":
            raise ValueError(f"a {engine} cluster can only be in memory")
        return MemoryBackend(engine, name)

    def _embedded(self, new: NewCluster) -> EmbeddedPostgres:
        settings: dict[str, str] = {}
        if new.connections is not None:
            settings["max_connections"] = str(new.connections + RESERVED)
        if new.password_encryption is not None:
            settings["password_encryption"] = new.password_encryption
        # The server has a working folder of its own.
        programs = None if new.server is None else Path(new.server).absolute()
        return POOL.take(EmbeddedPostgres(self._bind, programs, settings, in_memory=POOL.is_open))


def _uuid(given: str | None) -> str:
    if given is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(given))
    except ValueError:
        raise ValueError(f"cluster_id must be a UUID, not {given!r}") from None


def _require(*modules: str) -> None:
    """Raise RuntimeError, with the command to install it, if a module is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise RuntimeError(f"this needs {module}: pip install 'aiodbclient[sandbox]'")


def _check(new: NewCluster) -> None:
    if new.server is not None and new.backend == "memory":
        raise ValueError("pass server or backend='memory', not both")
    if new.server is not None and "://" in new.server and (new.connections or new.password_encryption) is not None:
        raise ValueError("connections and password_encryption are not supported with a DSN: set them on the server")
    if new.connections is not None and new.connections < 1:
        raise ValueError(f"connections must be at least 1, not {new.connections}")
    if new.password_encryption not in (None, "scram-sha-256", "md5"):
        raise ValueError(f"password_encryption must be 'scram-sha-256' or 'md5', not {new.password_encryption!r}")
    if new.online_after is not None and not new.online_after >= 0:
        raise ValueError(f"online_after must be at least 0, not {new.online_after}")
    if new.backend not in (None, "memory", "postgres"):
        raise ValueError(f"backend must be 'memory' or 'postgres', not {new.backend!r}")
