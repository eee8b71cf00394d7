"""The operations of the API that this package supports, one per line, and checks of what goes into a path. Pure."""

from __future__ import annotations

import re
from types import EllipsisType
from urllib.parse import quote, urlencode
from uuid import UUID

from attrs import Factory, field, frozen

from .._checks import shown
from ..errors import InvalidArgumentError


@frozen(eq=False)
class Operation:
    """One operation of the API."""

    name: str  # in errors, logs and events
    method: str
    template: str  # the path, with the placeholders ``{cluster}`` and ``{name}``
    key: str = ""  # the member of the answer that holds the result; empty if the answer has no body
    key_alias: str = ""  # another name of that member, which the API description has too
    idempotent: bool = True  # whether it is sent again after a lost answer; False for creates
    writes: bool = field(init=False, default=Factory(lambda self: self.method not in ("GET", "HEAD"), takes_self=True))

    @property
    def on(self) -> str:
        """What it is about: ``clusters``, ``users`` or ``dbs``."""
        return self.name.partition(".")[0]

    def path(self, cluster_id: str = "", name: str | EllipsisType = ...) -> str:
        """Return the path. Raise InvalidArgumentError if ``name`` is not a valid segment of it."""
        path = self.template.replace("{cluster}", cluster_id)
        if name is ...:
            return path
        plain = isinstance(name, str) and name.isascii() and name.isalnum()  # faster than quote()
        return path.replace("{name}", name if plain else segment(name))


CLUSTERS = "/v2/databases"
_CLUSTER = CLUSTERS + "/{cluster}"
_USERS, _USER = _CLUSTER + "/users", _CLUSTER + "/users/{name}"
_DBS, _DB = _CLUSTER + "/dbs", _CLUSTER + "/dbs/{name}"

LIST_CLUSTERS = Operation("clusters.list", "GET", CLUSTERS, "databases")
GET_CLUSTER = Operation("clusters.get", "GET", _CLUSTER, "database")
GET_CA = Operation("clusters.ca", "GET", _CLUSTER + "/ca", "ca")
LIST_USERS = Operation("users.list", "GET", _USERS, "users")
CREATE_USER = Operation("users.create", "POST", _USERS, "user", idempotent=False)
GET_USER = Operation("users.get", "GET", _USER, "user")
UPDATE_USER = Operation("users.update", "PUT", _USER, "user")
DELETE_USER = Operation("users.delete", "DELETE", _USER)
RESET_AUTH = Operation("users.reset_auth", "POST", _USER + "/reset_auth", "user")  # the password is read back
LIST_DBS = Operation("dbs.list", "GET", _DBS, "dbs", "databases")
CREATE_DB = Operation("dbs.create", "POST", _DBS, "db", idempotent=False)
GET_DB = Operation("dbs.get", "GET", _DB, "db")
DELETE_DB = Operation("dbs.delete", "DELETE", _DB)

_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def checked_cluster_id(cluster_id: object) -> str:
    """Return ``cluster_id`` as the API writes it, or raise InvalidArgumentError if it is not a UUID."""
    text = str(cluster_id) if isinstance(cluster_id, str | UUID) else ""
    if not re.fullmatch(_UUID, text, re.IGNORECASE):
        raise InvalidArgumentError(f"a cluster id is a UUID (with hyphens), not {shown(cluster_id)}; nothing was sent")
    return text.lower()


def segment(name: object) -> str:
    """Percent-encode ``name``. Raise InvalidArgumentError if it is not a valid segment of a URL's path."""
    # Proxies and URL libraries resolve dots: a DELETE of the user ``..`` would delete the cluster.
    if not isinstance(name, str):
        raise InvalidArgumentError(f"a name is a string, not {shown(name)}; nothing was sent")
    if re.search(r"[\x00-\x1f\x7f-\x9f]", name):  # such as the end of a line in a file
        raise InvalidArgumentError(f"the name {shown(name)} has a control character; nothing was sent")
    if name in ("", ".", ".."):
        raise InvalidArgumentError(
            f"{shown(name)} cannot be the name of a user or a db in a URL's path; nothing was sent"
        )
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{shown(name)} cannot be encoded as UTF-8; nothing was sent") from None


def tag_query(tag_name: str | None) -> str:
    """Return the query for the clusters with a tag, empty for None, or raise InvalidArgumentError if it is no text."""
    if tag_name is None:
        return ""
    if not isinstance(tag_name, str):
        raise InvalidArgumentError(f"tag_name must be a string or None, not {shown(tag_name)}; nothing was sent")
    try:
        return f"?{urlencode({'tag_name': tag_name})}"
    except UnicodeEncodeError:
        problem = f"tag_name={shown(tag_name)} cannot be encoded as UTF-8; nothing was sent"
        raise InvalidArgumentError(problem) from None
