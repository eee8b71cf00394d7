"""``SandboxCluster``: one cluster as the API returns it, and how its reads lag behind."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import inf
from typing import Literal
from urllib.parse import quote

from attrs import Factory, define, field, fields, frozen
from attrs.converters import optional

from ..engines import capabilities_of
from ..models import USER_SECRETS
from ._access import READ_TAGS, VIEW_CREDENTIALS
from ._backends import PRIMARY, Backend, Primary
from ._protocol import JSON, Refusal, not_found

# The part of a URI that requires TLS, for libpq and for MySQL.
_TLS_QUERIES = {"postgresql": "?sslmode=require", "mysql": "?ssl-mode=REQUIRED"}
_USER_WRITES = frozenset({"users.create", "users.update", "users.reset_auth", "users.delete"})
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
    """How long reads of a cluster return an older state."""

    def __init__(self) -> None:
        self._born: dict[tuple[str, str], float] = {}  # when each user and db was created
        self._empty: dict[str, float] = {}  # until when the password of a user is read as ""
        self._ghosts: dict[str, tuple[float, JSON]] = {}  # until when a deleted user is listed

    def users(self, users: list[JSON]) -> list[JSON]:
        """``users`` as a list returns them now, with deleted users that are still listed."""
        now = time.monotonic()
        names = {user["name"] for user in users}
        self._ghosts = {name: ghost for name, ghost in self._ghosts.items() if now < ghost[0] and name not in names}
        return [self.user(user) for user in users] + [ghost for _, ghost in self._ghosts.values()]

    def user(self, user: JSON, empty_for: float | None = None) -> JSON:
        """``user`` as an answer returns it now. ``empty_for``: a new password, which stays "" for so many seconds."""
        now = time.monotonic()
        if empty_for is not None:
            self._empty[user["name"]] = now + empty_for
        return {**user, "password": ""} if now < self._empty.get(user["name"], 0.0) and "password" in user else user

    def keep_listed(self, user: JSON, seconds: float) -> None:
        """List ``user`` for the next ``seconds``, even if it is deleted."""
        self._ghosts[user["name"]] = time.monotonic() + seconds, user

    def created(self, kind: str, name: str) -> None:
        """Record that a user or db was created now."""
        self._born[kind, name] = time.monotonic()
        if kind == "users":
            self._empty.pop(name, None)  # of a deleted user of this name

    def refuse_unseen(self, kind: str, name: str, seconds: float) -> None:
        """Refuse with 404 a user or db that was created less than ``seconds`` ago."""
        if time.monotonic() - self._born.get((kind, name), -inf) < seconds:
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

    def ca(self) -> str:
        """The certificates that verify its server, as PEM."""
        try:
            pem = self.backend.ca()
        except ModuleNotFoundError as error:
            raise Refusal(501, f"this needs {error.name}: pip install 'aiodbclient[sandbox]'") from None
        if pem is not None:
            return pem
        if self.backend.primary().ssl:
            raise Refusal(404, "the CA is not known: add ssl-ca=FILE or sslrootcert=FILE to the DSN of the server")
        raise not_found()

    @contextmanager
    def working(self, operation: str, *, overlap_fails: bool) -> Generator[None]:
        """Count user writes; with ``overlap_fails``, refuse a second one if the engine allows one at a time."""
        writes = operation in _USER_WRITES
        if writes and overlap_fails and self._user_writes >= capabilities_of(self.engine).concurrent_user_writes == 1:
            raise Refusal(500, "Unexpected server-side error")
        self._user_writes += writes
        try:
            yield
        finally:
            self._user_writes -= writes


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
