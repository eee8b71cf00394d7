"""``NewCluster``: what a cluster is made of, and its ``Backend``. A driver is imported only when a cluster needs it."""

from __future__ import annotations

from pathlib import Path

from attrs import field, fields, frozen
from attrs.converters import optional

from ..engines import MYSQL, POSTGRESQL, Engine
from ._backends import Backend, MemoryBackend, require
from ._data import Data, mapping
from ._embedded import DRIVERS, POOL, EmbeddedPostgres, can_embed
from ._reach import Reach, SandboxCA
from ._validation import JSON


@frozen
class NewCluster:
    """A cluster to add. ``Sandbox.add_cluster`` describes the fields, and has the same defaults."""

    engine: str = field(converter=str)
    name: str | None = None
    dsn: str | None = field(default=None, repr=False)
    backend: str | None = None
    server: str | None = field(default=None, converter=optional(str))
    tls: bool = True
    version: str | None = None
    num_nodes: int = 1
    region: str = "nyc3"
    size: str = "db-s-1vcpu-1gb"
    tags: list[str] = field(factory=list[str], converter=list)
    cluster_id: str | None = None
    online_after: float = 0.0

    def record(self) -> JSON:
        """The fields to store for ``restored``. The DSN is not stored: its server may have moved by then."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return kept | {"dsn": self.dsn is not None}

    @staticmethod
    def restored(record: JSON) -> NewCluster:
        """Create it from a stored record. The record of an older sandbox may lack fields."""
        return NewCluster(**{name: record[name] for name in _KEPT if name in record})


_NOT_KEPT = {"name", "dsn", "cluster_id", "online_after"}  # the cluster stores its name and id itself
_KEPT: list[str] = [attribute.name for attribute in fields(NewCluster) if attribute.name not in _NOT_KEPT]


def behind(
    new: NewCluster, name: str, cluster_id: str, authority: SandboxCA, data: Data | None, reach: Reach
) -> Backend:
    """Return the backend that ``new`` asks for, not yet started. Without ``data`` it stores nothing."""
    _check(new)
    engine = Engine.parse(new.engine)
    signing = authority if new.tls else None
    if engine in POSTGRESQL:
        if new.dsn is not None:
            require("psycopg", "sandbox")
            from ._postgres import PostgresBackend

            return PostgresBackend(engine, new.dsn, mapping(data, f"secrets of {cluster_id}"))
        if new.backend == "postgres" or (new.backend is None and can_embed()):
            for module in DRIVERS:
                require(module, "sandbox")
            from ._postgres import PostgresBackend

            folder = None if data is None else data.folder / f"postgres-{cluster_id}"
            kept = mapping(data, f"server of {cluster_id}")
            programs = None if new.server is None else Path(new.server)
            server = EmbeddedPostgres(signing, kept, folder, in_memory=POOL.is_open, reach=reach, programs=programs)
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


def _before_15(version: str | None) -> bool:
    major = (version or "").partition(".")[0]
    return major.isdecimal() and int(major) < 15
