"""``MemoryBackend``: users and dbs in dictionaries."""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

from ...engines import MYSQL, POSTGRESQL, Engine
from ...models import MySQLAuthPlugin, UserRole
from .._protocol import JSON, Refusal, RequestedUser, name_taken, not_found
from . import DEFAULT_DB, PRIMARY, Backend, Primary, new_ca, new_password

MONGODB_READ_ONLY = "do-readonly"  # the second user of every MongoDB cluster


class Defaults(NamedTuple):
    """What the API returns of a cluster in memory."""

    version: str
    scheme: str
    database: str = ""
    port: int = 25060


_DEFAULTS: dict[str, Defaults] = {
    Engine.PG: Defaults("18.0", "postgresql", DEFAULT_DB),
    Engine.ADVANCED_PG: Defaults("18.0", "postgresql", DEFAULT_DB),
    Engine.MYSQL: Defaults("8.0.36", "mysql", DEFAULT_DB),
    Engine.ADVANCED_MYSQL: Defaults("8.0.36", "mysql", DEFAULT_DB),
    Engine.REDIS: Defaults("7.0.15", "rediss"),
    Engine.VALKEY: Defaults("8.0.0", "rediss"),
    Engine.MONGODB: Defaults("8.0.0", "mongodb+srv", "admin", 27017),
    Engine.KAFKA: Defaults("3.8.0", "kafka"),
    Engine.OPENSEARCH: Defaults("2.19.0", "https"),
}


class MemoryBackend(Backend):
    """Users and dbs in dictionaries; nothing listens at its address."""

    def __init__(self, engine: str, cluster: str) -> None:
        self.engine = engine
        self._host = f"{cluster}.db.invalid"  # a name that never resolves (RFC 6761)
        self._users: dict[str, JSON] = {}
        self._dbs: dict[str, None] = {}
        self._defaults = _DEFAULTS.get(engine, Defaults("1.0", engine))
        self.version = self._defaults.version
        settings = {"pg_allow_replication": True} if self.engine in POSTGRESQL else {}
        self._users[PRIMARY] = self._stored(self._new(PRIMARY, UserRole.PRIMARY, None, settings))
        if self.engine == Engine.MONGODB:
            self._users[MONGODB_READ_ONLY] = self._stored(self._new(MONGODB_READ_ONLY, UserRole.NORMAL, None, {}))
        if self._defaults.database:
            self._dbs[self._defaults.database] = None

    def primary(self) -> Primary:
        defaults, password = self._defaults, self._users[PRIMARY].get("password")
        return Primary(defaults.scheme, self._host, defaults.port, defaults.database, password, ssl=True)

    def ca(self) -> str:
        return new_ca()

    async def users(self) -> list[JSON]:
        return list(self._users.values())

    async def user(self, name: str) -> JSON:
        try:
            return self._users[name]
        except KeyError:
            raise not_found() from None

    async def create_user(self, new: RequestedUser) -> JSON:
        if new.name in self._users:
            raise name_taken("user")
        user = self._new(new.name, UserRole.NORMAL, new.auth_plugin, new.settings)
        self._users[new.name] = self._stored(user)
        return user

    async def update_user(self, name: str, settings: JSON) -> JSON:
        user = await self.user(name)
        updated = {**user, "settings": self._completed(settings)}
        self._users[name] = updated
        return updated

    async def reset_auth(self, name: str, auth_plugin: str | None) -> JSON:
        user = dict(await self.user(name))
        user["password"] = new_password()
        if auth_plugin:
            user["mysql_settings"] = {"auth_plugin": auth_plugin}
        if "access_key" in user:
            user.update(_certificate())
        self._users[name] = self._stored(user)
        return user

    async def delete_user(self, name: str) -> None:
        await self.user(name)
        if self.engine == Engine.MONGODB and name == MONGODB_READ_ONLY:
            raise Refusal(422, f"the user {MONGODB_READ_ONLY} cannot be deleted")
        del self._users[name]

    async def dbs(self) -> list[str]:
        return list(self._dbs)

    async def create_db(self, name: str) -> None:
        if name in self._dbs:
            raise name_taken("database")
        self._dbs[name] = None

    async def delete_db(self, name: str) -> None:
        if name not in self._dbs:
            raise not_found()
        if self.engine == Engine.MONGODB and name == self._defaults.database:
            raise Refusal(422, f"the database {name} cannot be deleted")
        del self._dbs[name]

    def _new(self, name: str, role: UserRole, auth_plugin: str | None, settings: JSON) -> JSON:
        user: JSON = {"name": name, "role": role.value, "password": new_password()}
        if self.engine in MYSQL:
            # the default as of MySQL 8.0 (API description, mysql_settings.auth_plugin)
            plugin = auth_plugin or MySQLAuthPlugin.CACHING_SHA2_PASSWORD.value
            user["mysql_settings"] = {"auth_plugin": plugin}
        if self.engine == Engine.KAFKA:
            user.update(_certificate())
        if settings or self.engine in POSTGRESQL:
            user["settings"] = self._completed(settings)
        return user

    def _stored(self, user: JSON) -> JSON:
        """What a read returns of ``user``: on MongoDB no password."""
        if self.engine != Engine.MONGODB:
            return user
        return {key: value for key, value in user.items() if key != "password"}

    def _completed(self, settings: JSON) -> JSON:
        """``settings`` as the API returns them: Kafka's ACLs with ids, PostgreSQL's replication with its default."""
        if self.engine in POSTGRESQL:
            return {"pg_allow_replication": False, **settings}
        if "acl" in settings:
            rules: list[JSON] = settings["acl"]
            return {"acl": [{**rule, "id": rule.get("id") or "acl" + secrets.token_hex(6)} for rule in rules]}
        return settings


def _certificate() -> dict[str, Any]:
    """A random certificate and key for a Kafka user, which look like PEM and do not work for TLS."""
    return {"access_cert": _pem("CERTIFICATE"), "access_key": _pem("PRIVATE KEY")}


def _pem(label: str) -> str:
    return f"-----BEGIN {label}-----\n{secrets.token_urlsafe(48)}\n-----END {label}-----\n"
