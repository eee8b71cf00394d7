"""``SandboxCluster``: one cluster as the API returns it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from math import inf
from typing import Literal
from urllib.parse import quote

from attrs import Factory, define, field

from ..engines import capabilities_of
from ..models import USER_SECRETS
from ._backends import PRIMARY, Backend, ClusterOptions, Primary
from ._protocol import JSON, Refusal
from ._tokens import READ_TAGS, VIEW_CREDENTIALS

# The part of a URI that says whether the server has TLS, for libpq and for MySQL.
_QUERIES = {
    ("postgresql", True): "?sslmode=require",
    ("postgresql", False): "?sslmode=disable",
    ("mysql", True): "?ssl-mode=REQUIRED",
    ("mysql", False): "?ssl-mode=DISABLED",
}
_WRITE_SECONDS = 0.005  # long enough for writes to overlap
_USER_WRITES = frozenset({"users.create", "users.update", "users.reset_auth", "users.delete"})
# All clusters are in one network and one project, as in an account with the defaults.
_NETWORK = "d455e75d-4858-4eec-8c95-da2f0a5f93a7"
_PROJECT = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"
Status = Literal["creating", "online", "resizing", "migrating", "forking"]


def redacted(user: JSON, scopes: frozenset[str]) -> JSON:
    """``user`` as a token with these scopes sees it."""
    if VIEW_CREDENTIALS in scopes:
        return user
    return {key: value for key, value in user.items() if key not in USER_SECRETS}


@define(eq=False)
class SandboxCluster:
    """A cluster of the sandbox, with the options that it was added with."""

    id: str
    name: str
    backend: Backend = field(repr=False)
    options: ClusterOptions = field(repr=False)
    created_at: str = Factory(lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    _status: Status = field(default="online", init=False)
    _online_at: float = field(default=inf, init=False)  # monotonic seconds
    _user_writes: int = field(default=0, init=False)
    _ca: str | None = field(default=None, init=False, repr=False)

    @property
    def engine(self) -> str:
        return self.options.engine

    @property
    def status(self) -> Status:
        return "online" if time.monotonic() >= self._online_at else self._status

    def set_status(self, status: Status, online_after: float | None) -> None:
        self._status = status
        self._online_at = inf if online_after is None else time.monotonic() + online_after

    async def document(self, scopes: frozenset[str], host: str) -> JSON:
        """The cluster as ``clusters.get`` returns it to a client that reaches this machine at ``host``."""
        credentials = VIEW_CREDENTIALS in scopes
        capabilities = capabilities_of(self.engine)
        exact = self.options.version or self.backend.version
        primary = self.backend.primary()
        is_up = self.backend.embedded is None or not self.backend.embedded.is_shut_down
        host = primary.host or host
        private = f"private-{host}" if host.endswith(".invalid") else host  # no other name leads to a real server
        return {
            "id": self.id,
            "name": self.name,
            "engine": self.engine,
            "version": self.options.version or exact.partition(".")[0],
            "semantic_version": exact,
            "num_nodes": 1,
            "size": "db-s-1vcpu-1gb",
            "region": "nyc3",
            "status": self.status,
            "created_at": self.created_at,
            "private_network_uuid": _NETWORK,
            "project_id": _PROJECT,
            "tags": self.options.tags if READ_TAGS in scopes else None,
            "storage_size_mib": 61440,
            "db_names": await self.backend.dbs() if capabilities.dbs and is_up else None,
            "users": [redacted(user, scopes) for user in await self.backend.users()]
            if capabilities.users and is_up
            else None,
            "maintenance_window": {"day": "saturday", "hour": "08:45:12", "pending": False, "description": []},
            "rules": [],
            "connection": _connection(primary, host, credentials),
            "private_connection": _connection(primary, private, credentials),
        }

    def ca(self) -> str:
        """The certificates that verify its server, as PEM."""
        self._ca = self._ca or self.backend.ca()
        if self._ca is None:
            raise Refusal(404, "the CA is not known: add ssl-ca=FILE or sslrootcert=FILE to the DSN of the server")
        return self._ca

    @asynccontextmanager
    async def user_write(self, operation: str, *, overlap_fails: bool) -> AsyncGenerator[None]:
        """Where the engine allows one user write at a time, refuse a second one if ``overlap_fails``."""
        counts = operation in _USER_WRITES and capabilities_of(self.engine).concurrent_user_writes == 1
        if counts and overlap_fails and self._user_writes:
            raise Refusal(500, "Unexpected server-side error")
        self._user_writes += counts
        try:
            if counts:
                await asyncio.sleep(_WRITE_SECONDS)
            yield
        finally:
            self._user_writes -= counts


def _connection(primary: Primary, host: str, credentials: bool) -> JSON:
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
    return f"{scheme}://{login}@{host}:{primary.port}/{database}{_QUERIES.get((scheme, primary.ssl), '')}"
