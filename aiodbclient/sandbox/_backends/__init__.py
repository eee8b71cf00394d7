"""``Backend``: the server behind a cluster, in memory or a real one. ``backend_of`` chooses it.

Each implementation has a module: ``memory``, ``postgres`` and ``mysql``. ``provider`` has what the provider's servers
have besides PostgreSQL's and MySQL's own.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

from attrs import field, frozen
from attrs.converters import optional

from ...engines import MYSQL, POSTGRESQL, Engine
from .._embedded import POOL, RESERVED, EmbeddedPostgres, can_embed
from .._protocol import JSON, Refusal, RequestedUser

PRIMARY = "doadmin"
DEFAULT_DB = "defaultdb"


@frozen
class ClusterOptions:
    """The arguments of ``Sandbox.add_cluster``, which describes them."""

    engine: str = field(converter=str)
    name: str | None
    backend: str | None
    server: str | None = field(converter=optional(os.fspath), repr=False)
    connections: int | None
    password_encryption: str | None
    version: str | None
    tags: list[str] = field(converter=list)
    cluster_id: str | None
    online_after: float | None

    def __attrs_post_init__(self) -> None:
        if self.server is not None and self.backend == "memory":
            raise ValueError("pass server or backend='memory', not both")
        if self.has_url and (self.connections or self.password_encryption) is not None:
            raise ValueError("connections and password_encryption are not supported with a DSN: set them on the server")
        if self.connections is not None and self.connections < 1:
            raise ValueError(f"connections must be at least 1, not {self.connections}")
        if self.password_encryption not in (None, "scram-sha-256", "md5"):
            raise ValueError(f"password_encryption must be 'scram-sha-256' or 'md5', not {self.password_encryption!r}")
        if self.online_after is not None and not self.online_after >= 0:
            raise ValueError(f"online_after must be at least 0, not {self.online_after}")
        if self.backend not in (None, "memory", "postgres"):
            raise ValueError(f"backend must be 'memory' or 'postgres', not {self.backend!r}")

    @property
    def has_url(self) -> bool:
        """Whether ``server`` is the URL of a server that runs already."""
        return self.server is not None and "://" in self.server


class Primary(NamedTuple):
    """Where ``doadmin`` logs in."""

    scheme: str
    host: str | None  # None for this machine
    port: int
    database: str
    password: str | None
    ssl: bool


class Backend(Protocol):
    """The server behind one cluster, whose methods raise Refusal and return users as the API does."""

    # The caller refuses invalid names, and the deletion of the primary user.

    version: str  # of the server, once it has started
    embedded: EmbeddedPostgres | None = None  # the server, if the sandbox runs it

    async def start(self) -> None:
        """Start the server, or connect to it; its caller calls ``stop``, also if that fails."""
        return  # nothing to do in memory

    async def stop(self) -> None:
        """Stop what ``start`` started, also if it failed."""
        return

    def primary(self) -> Primary: ...
    def ca(self) -> str | None:
        """The certificates that verify the server, or new ones if it has no TLS, as PEM; None if none are known."""

    async def users(self) -> list[JSON]: ...
    async def user(self, name: str) -> JSON: ...
    async def create_user(self, new: RequestedUser) -> JSON: ...
    async def update_user(self, name: str, settings: JSON) -> JSON: ...
    async def reset_auth(self, name: str, auth_plugin: str | None) -> JSON: ...
    async def delete_user(self, name: str) -> None: ...
    async def dbs(self) -> list[str]: ...
    async def create_db(self, name: str) -> None: ...
    async def delete_db(self, name: str) -> None: ...


def backend_of(options: ClusterOptions, name: str, bind: str) -> Backend:
    """The backend that the options ask for, not yet started, whose driver is imported only when a cluster needs it.

    A server that the sandbox starts listens at the address ``bind``.
    """
    engine, server = Engine.parse(options.engine), options.server
    if engine in POSTGRESQL and (
        server is not None or options.backend == "postgres" or (options.backend is None and can_embed())
    ):
        _require("psycopg", "trustme")
        from .postgres import PostgresBackend

        return PostgresBackend(server if server is not None and options.has_url else _embedded(options, bind))
    if engine in MYSQL and server is not None and options.has_url:
        _require("pymysql")
        from .mysql import MySQLBackend

        return MySQLBackend(server)
    if options.connections is not None or options.password_encryption is not None:
        raise ValueError("only a PostgreSQL that the sandbox starts has connections and password_encryption")
    if engine in MYSQL and server is not None:
        raise ValueError(
            "server of a mysql cluster must be the URL of a running server, mysql://USER:PASSWORD@HOST:PORT, not a "
            "folder; without it the cluster is in memory"
        )
    if server is not None or options.backend == "postgres":
        raise ValueError(f"a {engine} cluster can only be in memory")
    from .memory import MemoryBackend

    return MemoryBackend(engine, name)


def _embedded(options: ClusterOptions, bind: str) -> EmbeddedPostgres:
    settings: dict[str, str] = {}
    if options.connections is not None:
        settings["max_connections"] = str(options.connections + RESERVED)
    if options.password_encryption is not None:
        settings["password_encryption"] = options.password_encryption
    # The server has a working folder of its own.
    programs = None if options.server is None else Path(options.server).absolute()
    return POOL.acquire(EmbeddedPostgres(bind, programs, settings, in_memory=POOL.is_open))


def _require(*modules: str) -> None:
    """Raise RuntimeError, with the command to install it, if a module is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise RuntimeError(f"this needs {module}: pip install 'aiodbclient[sandbox]'")


def new_password() -> str:
    """A password in the provider's style, which the MEDIUM policy of MySQL's validate_password accepts."""
    while True:
        drawn = secrets.token_urlsafe(15)
        if any(map(str.isdigit, drawn)) and any(map(str.islower, drawn)):
            return "AVNS_" + drawn


def derived_password(user: str, password: str) -> str:
    """The password of ``doadmin`` on the server of a DSN, which is the same each time."""
    digest = hmac.new(password.encode(), f"aiodbclient sandbox {PRIMARY} {user}".encode(), hashlib.sha256)
    return f"AVNS_{digest.hexdigest()[:20]}x0"


def new_ca() -> str:
    """Make the certificate of an authority, for a server without TLS: the provider has one for each cluster."""
    try:
        import trustme
    except ModuleNotFoundError:
        raise Refusal(501, "this needs trustme: pip install 'aiodbclient[sandbox]'") from None
    return trustme.CA(organization_name="aiodbclient sandbox").cert_pem.bytes().decode()
