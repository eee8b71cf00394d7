"""The operations of the API that this package supports, one per line. Pure."""

from __future__ import annotations

from enum import Enum, auto
from urllib.parse import quote

from .paths import CLUSTERS


class Kind(Enum):
    """The kinds of operation, by how ``retry.RULES`` treats their failures."""

    READ = auto()
    UPDATE = auto()
    DELETE = auto()
    RESET_AUTH = auto()
    CREATE = auto()


class Operation:
    """One operation of the API."""

    def __init__(self, name: str, method: str, template: str, kind: Kind, key: str = "", other_key: str = "") -> None:
        self.name = name  # in errors, logs and events
        self.method = method
        self.template = template  # the path, with the placeholders ``{cluster}`` and ``{name}``
        self.kind = kind
        self.key = key  # the member of the answer that holds the result; empty if the answer has no body
        self.other_key = other_key  # the same by another sentence of the API description
        self.on: str = name.partition(".")[0]
        self.writes: bool = kind is not Kind.READ

    def path(self, cluster_id: str = "", name: str = "") -> str:
        """Return the percent-encoded path for a ``name`` that ``check_name`` accepts."""
        plain = name.isalnum() and name.isascii()  # this check is faster than quote()
        return self.template.replace("{cluster}", cluster_id).replace("{name}", name if plain else quote(name, safe=""))


_CLUSTER = CLUSTERS + "/{cluster}"
_USERS, _USER = _CLUSTER + "/users", _CLUSTER + "/users/{name}"
_DBS, _DB = _CLUSTER + "/dbs", _CLUSTER + "/dbs/{name}"

LIST_CLUSTERS = Operation("clusters.list", "GET", CLUSTERS, Kind.READ, "databases")
GET_CLUSTER = Operation("clusters.get", "GET", _CLUSTER, Kind.READ, "database")
GET_CA = Operation("clusters.ca", "GET", _CLUSTER + "/ca", Kind.READ, "ca")
LIST_USERS = Operation("users.list", "GET", _USERS, Kind.READ, "users")
CREATE_USER = Operation("users.create", "POST", _USERS, Kind.CREATE, "user")
GET_USER = Operation("users.get", "GET", _USER, Kind.READ, "user")
UPDATE_USER = Operation("users.update", "PUT", _USER, Kind.UPDATE, "user")
DELETE_USER = Operation("users.delete", "DELETE", _USER, Kind.DELETE)
RESET_AUTH = Operation("users.reset_auth", "POST", _USER + "/reset_auth", Kind.RESET_AUTH, "user")
LIST_DBS = Operation("dbs.list", "GET", _DBS, Kind.READ, "dbs", "databases")
CREATE_DB = Operation("dbs.create", "POST", _DBS, Kind.CREATE, "db")
GET_DB = Operation("dbs.get", "GET", _DB, Kind.READ, "db")
DELETE_DB = Operation("dbs.delete", "DELETE", _DB, Kind.DELETE)
