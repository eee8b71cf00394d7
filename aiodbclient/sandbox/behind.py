"""What is behind a cluster: a server, or dictionaries. Drivers are imported here, when a cluster needs one."""

from __future__ import annotations

from importlib.util import find_spec

from ..engines import Engine
from . import embedded
from .authority import Authority
from .backends import Backend, MemoryBackend
from .data import Data, mapping
from .requirements import require

_DRIVERS = ("psycopg", "trustme")  # what an embedded PostgreSQL needs beside itself


def behind(
    engine: Engine | str,
    cluster: str,
    cluster_id: str,
    *,
    dsn: str | None,
    backend: str | None,
    tls: bool,
    version: str | None,
    authority: Authority,
    data: Data | None,
) -> Backend:
    """What ``add_cluster`` says of ``dsn``, ``backend`` and ``tls``, not started yet."""
    if dsn is not None and backend is not None:
        raise ValueError("give dsn or backend, not both")
    if dsn is not None and not tls:
        raise ValueError("tls=False cannot be had with dsn: whether there is TLS is for the server to say")
    if backend not in (None, "memory", "postgres"):
        raise ValueError(f"backend must be 'memory' or 'postgres', not {backend!r}")
    secrets = mapping(data, f"secrets of {cluster_id}")
    if engine in (Engine.PG, Engine.ADVANCED_PG):
        if backend is None and dsn is None and embedded.binaries() and all(map(find_spec, _DRIVERS)):
            backend = "postgres"
        if dsn is not None:
            require("psycopg", "sandbox")
            from .postgres import PostgresBackend

            return PostgresBackend(engine, dsn, secrets)
        if backend == "postgres":
            for module in _DRIVERS:
                require(module, "sandbox")
            from .postgres import PostgresBackend

            signing = authority if tls else None
            kept = mapping(data, f"server of {cluster_id}")
            folder = None if data is None else data.folder / f"postgres-{cluster_id}"
            server = embedded.EmbeddedPostgres(signing, kept, folder)
            return PostgresBackend(
                engine, None, secrets, embedded=server, authority=signing, open_public=_before_15(version)
            )
    elif engine in (Engine.MYSQL, Engine.ADVANCED_MYSQL) and dsn is not None:
        require("pymysql", "sandbox-mysql")
        from .mysql import MySQLBackend

        return MySQLBackend(engine, dsn, secrets)
    if dsn is not None or backend == "postgres":
        raise ValueError(f"a {engine} cluster can only be in memory")
    users, dbs = mapping(data, f"users of {cluster_id}"), mapping(data, f"dbs of {cluster_id}")
    return MemoryBackend(engine, cluster, authority if tls else None, users, dbs)


def _before_15(version: str | None) -> bool:
    major = (version or "").partition(".")[0]
    return major.isdecimal() and int(major) < 15
