"""``SandboxCluster``: one cluster as the API returns it. ``perform``: what each operation does to it."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import inf
from typing import Any, Literal
from urllib.parse import quote

from attrs import Factory, define, field, fields, frozen
from attrs.converters import optional

from ..engines import capabilities_of
from ..models import USER_SECRETS
from . import _protocol as protocol
from ._access import READ_TAGS, VIEW_CREDENTIALS
from ._backends import PRIMARY, Backend, Primary, check_name
from ._protocol import JSON, Refusal, SandboxAnswer, not_found

# The part of a URI that requires TLS, for libpq and for MySQL.
_TLS_QUERIES = {"postgresql": "?sslmode=require", "mysql": "?ssl-mode=REQUIRED"}
_SETTINGS = frozenset({"settings", "mysql_settings"})
# All clusters are in one network and one project, as in an account with the defaults.
_NETWORK = "d455e75d-4858-4eec-8c95-da2f0a5f93a7"
_PROJECT = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"
Status = Literal["creating", "online", "resizing", "migrating", "forking"]


@frozen
class NewCluster:
    """A cluster to add: the arguments of ``Sandbox.add_cluster``, which describes them, with the same defaults."""

    engine: str = field(converter=str)
    name: str | None = None
    dsn: str | None = field(default=None, repr=False)
    backend: str | None = None
    server: str | None = field(default=None, converter=optional(str))
    connections: int | None = None
    password_encryption: str | None = None
    tls: bool = True
    version: str | None = None
    num_nodes: int = 1
    region: str = "nyc3"
    size: str = "db-s-1vcpu-1gb"
    tags: list[str] = field(factory=list[str], converter=list)
    cluster_id: str | None = None
    online_after: float = 0.0

    def record(self) -> JSON:
        """The fields to store for ``restored``, without the DSN, whose server may have moved by then."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return kept | {"dsn": self.dsn is not None}

    @staticmethod
    def restored(record: JSON) -> NewCluster:
        """Create it from a stored record, in which fields may be missing if an older sandbox stored it."""
        return NewCluster(**{name: record[name] for name in _KEPT if name in record})


_NOT_KEPT = {"name", "dsn", "cluster_id", "online_after"}  # the cluster stores its name and id itself
_KEPT: list[str] = [attribute.name for attribute in fields(NewCluster) if attribute.name not in _NOT_KEPT]


@frozen
class View:
    """What a read may return: to a token with these scopes, with the settings of users or without."""

    scopes: frozenset[str]
    settings: bool = True

    def user(self, user: JSON) -> JSON:
        """``user`` as a read returns it."""
        return self.written({key: value for key, value in user.items() if self.settings or key not in _SETTINGS})

    def written(self, user: JSON) -> JSON:
        """``user`` as an update returns it, with its settings."""
        if VIEW_CREDENTIALS in self.scopes:
            return user
        return {key: value for key, value in user.items() if key not in USER_SECRETS}


class Lag:
    """The creation time of each user and db, and how long reads return an older state."""

    def __init__(self) -> None:
        self._born: dict[tuple[str, str], float] = {}
        self._empty: dict[str, float] = {}
        self._ghosts: dict[str, tuple[float, JSON]] = {}

    def users(self, users: list[JSON]) -> list[JSON]:
        """``users`` as a list returns them now, with deleted users that are still listed."""
        now = time.monotonic()
        names = {user["name"] for user in users}
        self._ghosts = {name: ghost for name, ghost in self._ghosts.items() if now < ghost[0] and name not in names}
        return [self.user(user) for user in users] + [ghost for _, ghost in self._ghosts.values()]

    def user(self, user: JSON) -> JSON:
        """``user`` as a read returns it now."""
        if time.monotonic() < self._empty.get(user["name"], 0.0) and "password" in user:
            return {**user, "password": ""}
        return user

    def empty_password(self, name: str, seconds: float) -> None:
        """Return the password of a user as "" for the next ``seconds``."""
        self._empty[name] = time.monotonic() + seconds

    def keep_listed(self, user: JSON, seconds: float) -> None:
        """List ``user`` for the next ``seconds``, even if it is deleted."""
        self._ghosts[user["name"]] = time.monotonic() + seconds, user

    def created(self, kind: str, name: str) -> None:
        """Record that a user or db was created now."""
        self._born[kind, name] = time.monotonic()

    def deleted(self, kind: str, name: str) -> None:
        """Forget a user or db, which a list may still show."""
        self._born.pop((kind, name), None)
        if kind == "users":
            self._empty.pop(name, None)

    def refuse_unseen(self, kind: str, name: str, seconds: float) -> None:
        """Refuse with 404 a user or db that was created less than ``seconds`` ago."""
        born = self._born.get((kind, name))
        if born is not None and time.monotonic() - born < seconds:
            raise not_found()


@define(eq=False)
class SandboxCluster:
    """A cluster of the sandbox, with the options that it was added with."""

    id: str
    name: str
    backend: Backend = field(repr=False)
    options: NewCluster = field(repr=False)
    created_at: str = Factory(lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    _status: Status = field(default="online", init=False)
    _online_at: float = field(default=inf, init=False)  # monotonic seconds
    _user_writes: int = field(default=0, init=False)
    lag: Lag = field(factory=Lag, init=False, repr=False)

    def record(self) -> JSON:
        """The fields to store."""
        return self.options.record() | {"id": self.id, "created_at": self.created_at}

    @property
    def engine(self) -> str:
        return self.options.engine

    @property
    def status(self) -> Status:
        return "online" if time.monotonic() >= self._online_at else self._status

    def set_status(self, status: Status, online_after: float | None) -> None:
        self._status = status
        self._online_at = inf if online_after is None else time.monotonic() + online_after

    async def users(self) -> list[JSON]:
        return self.lag.users(await self.backend.users())

    async def document(self, view: View) -> JSON:
        """The cluster as ``clusters.get`` returns it."""
        credentials = VIEW_CREDENTIALS in view.scopes
        capabilities = capabilities_of(self.engine)
        exact = self.options.version or self.backend.version
        primary = self.backend.primary()
        document: JSON = {
            "id": self.id,
            "name": self.name,
            "engine": self.engine,
            "version": self.options.version or exact.partition(".")[0],
            "semantic_version": exact,
            "num_nodes": self.options.num_nodes,
            "size": self.options.size,
            "region": self.options.region,
            "status": self.status,
            "created_at": self.created_at,
            "private_network_uuid": _NETWORK,
            "project_id": _PROJECT,
            "tags": self.options.tags if READ_TAGS in view.scopes else None,
            "storage_size_mib": 61440,
            "db_names": await self.backend.dbs() if capabilities.dbs else None,
            "users": [view.user(user) for user in await self.users()] if capabilities.users else None,
            "maintenance_window": {"day": "saturday", "hour": "08:45:12", "pending": False, "description": []},
            "rules": [],
            "connection": _connection(primary, "", credentials),
            "private_connection": _connection(primary, "private-", credentials),
        }
        if self.options.num_nodes > 1:
            document["standby_connection"] = _connection(primary, "replica-", credentials)
            document["standby_private_connection"] = _connection(primary, "private-replica-", credentials)
        return document

    @contextmanager
    def user_write(self, *, overlap_fails: bool) -> Generator[None]:
        """Count a user write, and with ``overlap_fails`` refuse a second one if the engine allows one at a time."""
        if overlap_fails and self._user_writes >= capabilities_of(self.engine).concurrent_user_writes == 1:
            raise Refusal(500, "Unexpected server-side error")
        self._user_writes += 1
        try:
            yield
        finally:
            self._user_writes -= 1


def _connection(primary: Primary, prefix: str, credentials: bool) -> JSON:
    """One connection of a cluster, with ``prefix`` before its host name, unless that is the host of a real server."""
    host = prefix + primary.host if primary.host.endswith(".invalid") else primary.host
    shown: JSON = {"database": primary.database, "host": host, "port": primary.port, "ssl": primary.ssl}
    if credentials:
        shown["user"] = PRIMARY
        if primary.password is not None:
            shown["password"] = primary.password
        shown["uri"] = _uri(primary, host)
    return shown


def _uri(primary: Primary, host: str) -> str:
    login = PRIMARY if primary.password is None else f"{PRIMARY}:{quote(primary.password, safe='')}"
    scheme, database = primary.scheme, quote(primary.database, safe="")
    if scheme == "mongodb+srv":  # its host is a DNS name; the SRV records there have the servers and ports
        return f"{scheme}://{login}@{host}/{database}?tls=true&authSource=admin"
    query = _TLS_QUERIES.get(scheme, "") if primary.ssl else ""
    return f"{scheme}://{login}@{host}:{primary.port}/{database}{query}"


def _ca(backend: Backend) -> str:
    try:
        pem = backend.ca()
    except ModuleNotFoundError as error:
        raise Refusal(501, f"this needs {error.name}: pip install 'aiodbclient[sandbox]'") from None
    if pem is not None:
        return pem
    if backend.primary().ssl:
        raise Refusal(404, "the CA is not known: add ssl-ca=FILE or sslrootcert=FILE to the DSN of the server")
    raise not_found()


async def perform(operation: str, cluster: SandboxCluster, name: str, body: Any, view: View) -> SandboxAnswer:
    """Run ``operation`` on ``cluster`` and return the answer, or raise Refusal."""
    capabilities = capabilities_of(cluster.engine)
    backend = cluster.backend
    kind = operation.partition(".")[0]
    if operation == "clusters.get":
        return SandboxAnswer(200, {"database": await cluster.document(view)})
    if operation == "clusters.ca":
        return SandboxAnswer(200, {"ca": {"certificate": b64encode(_ca(backend).encode()).decode()}})
    if "\0" in name or not protocol.is_text(name):
        raise not_found()
    if not (capabilities.users if kind == "users" else capabilities.dbs):
        # as the provider's answer for the pools of MySQL (terraformer #1905)
        raise Refusal(422, "operation is not supported for this cluster type")
    match operation:
        case "users.list":
            return SandboxAnswer(200, {"users": [view.user(user) for user in await cluster.users()]})
        case "users.get":
            return SandboxAnswer(200, {"user": view.user(cluster.lag.user(await backend.user(name)))})
        case "users.create":
            new = protocol.new_user(cluster.engine, body)
            check_name(cluster.engine, "user", new.name)
            user = await backend.create_user(new)
            cluster.lag.created("users", user["name"])
            return SandboxAnswer(201, {"user": user})
        case "users.update":
            settings = protocol.new_settings(cluster.engine, body)
            user = cluster.lag.user(await backend.update_user(name, settings))
            return SandboxAnswer(201, {"user": view.written(user)})
        case "users.reset_auth":
            plugin = protocol.auth_plugin(cluster.engine, body)
            return SandboxAnswer(200, {"user": await backend.reset_auth(name, plugin)})
        case "users.delete":
            if name == PRIMARY:
                raise Refusal(422, "the primary user cannot be deleted")
            await backend.delete_user(name)
            cluster.lag.deleted("users", name)
            return SandboxAnswer(204)
        case "dbs.list":
            return SandboxAnswer(200, {"dbs": [{"name": db} for db in await backend.dbs()]})
        case "dbs.get":
            if name not in await backend.dbs():
                raise not_found()
            return SandboxAnswer(200, {"db": {"name": name}})
        case "dbs.create":
            db = protocol.name_of(body)
            check_name(cluster.engine, "database", db)
            await backend.create_db(db)
            cluster.lag.created("dbs", db)
            return SandboxAnswer(201, {"db": {"name": db}})
        case "dbs.delete":
            await backend.delete_db(name)
            cluster.lag.deleted("dbs", name)
            return SandboxAnswer(204)
        case _:
            raise AssertionError(operation)
