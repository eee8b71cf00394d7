"""Choose the ``Backend`` of a new cluster. A driver is imported only when a cluster needs it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..engines import MYSQL, POSTGRESQL, Engine
from . import _embedded as embedded
from ._authority import SandboxCA
from ._backends import Backend, MemoryBackend
from ._data import Data, mapping
from ._options import NewCluster
from ._reach import Reach
from ._requirements import require
from ._warm import POOL

_DRIVERS = ("psycopg", "trustme")  # what an embedded PostgreSQL needs besides itself


def behind(
    new: NewCluster, name: str, cluster_id: str, authority: SandboxCA, data: Data | None, reach: Reach
) -> Backend:
    """Return the backend that ``new`` asks for, not yet started.

    Args:
        new: The cluster. Its ``name`` and ``cluster_id`` may be None and are ignored.
        name: The cluster's name.
        cluster_id: The cluster's id.
        authority: Signs the certificate of a server with TLS.
        data: Stores the content of the cluster; None stores nothing.
        reach: Where clients reach a server that the sandbox starts.

    Raises:
        ValueError: The options contradict each other.
        RuntimeError: A package is missing.
    """
    _check(new)
    engine = Engine.parse(new.engine)
    signing = authority if new.tls else None
    if engine in POSTGRESQL:
        if new.dsn is not None:
            require("psycopg", "sandbox")
            from ._postgres import PostgresBackend

            return PostgresBackend(engine, new.dsn, mapping(data, f"secrets of {cluster_id}"))
        if new.backend == "postgres" or (new.backend is None and _can_embed()):
            for module in _DRIVERS:
                require(module, "sandbox")
            from ._postgres import PostgresBackend

            folder = None if data is None else data.folder / f"postgres-{cluster_id}"
            kept = mapping(data, f"server of {cluster_id}")
            programs = None if new.server is None else Path(new.server)
            server = embedded.EmbeddedPostgres(
                signing, kept, folder, in_memory=POOL.is_open, reach=reach, programs=programs
            )
            secrets = mapping(data, f"secrets of {cluster_id}")
            return PostgresBackend(engine, POOL.take(server), secrets, open_public=_before_15(new.version))
    elif engine in MYSQL and new.dsn is not None:
        require("aiomysql", "sandbox-mysql")
        from ._mysql import MySQLBackend

        return MySQLBackend(engine, new.dsn, mapping(data, f"secrets of {cluster_id}"))
    if new.dsn is not None or new.backend == "postgres":
        raise ValueError(f"a {engine} cluster can only be in memory")
    users, dbs = mapping(data, f"users of {cluster_id}"), mapping(data, f"dbs of {cluster_id}")
    return MemoryBackend(engine, name, signing, users, dbs)


def _check(new: NewCluster) -> None:
    if new.dsn is not None and new.backend is not None:
        raise ValueError("pass dsn or backend, not both")
    if new.server is not None and new.backend != "postgres":
        raise ValueError('server is the folder of programs for backend="postgres"; pass that too')
    if new.dsn is not None and not new.tls:
        raise ValueError("tls=False is not supported with dsn: the server of the DSN decides about TLS")
    if new.backend not in (None, "memory", "postgres"):
        raise ValueError(f"backend must be 'memory' or 'postgres', not {new.backend!r}")


def _can_embed() -> bool:
    return embedded.binaries() is not None and all(map(find_spec, _DRIVERS))


def _before_15(version: str | None) -> bool:
    major = (version or "").partition(".")[0]
    return major.isdecimal() and int(major) < 15
