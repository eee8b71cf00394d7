"""The API's protocol: the operation of a method and path, a request and its body, and the answer. Pure."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from http import HTTPStatus
from typing import Any, Literal, cast
from urllib.parse import unquote

from attrs import Factory, define, field, frozen

from ..engines import MYSQL, POSTGRESQL, Capabilities
from ..models import KafkaPermission, MongoRole, MySQLAuthPlugin, OpenSearchPermission

JSON = dict[str, Any]

# Keyed by the segments after /v2/databases; {} matches any segment.
_ROUTES: dict[tuple[str, ...], dict[str, str]] = {
    (): {"GET": "clusters.list"},
    ("{}",): {"GET": "clusters.get"},
    ("{}", "ca"): {"GET": "clusters.ca"},
    ("{}", "users"): {"GET": "users.list", "POST": "users.create"},
    ("{}", "users", "{}"): {"GET": "users.get", "PUT": "users.update", "DELETE": "users.delete"},
    ("{}", "users", "{}", "reset_auth"): {"POST": "users.reset_auth"},
    ("{}", "dbs"): {"GET": "dbs.list", "POST": "dbs.create"},
    ("{}", "dbs", "{}"): {"GET": "dbs.get", "DELETE": "dbs.delete"},
}

OPERATIONS = frozenset(operation for methods in _ROUTES.values() for operation in methods.values())


@frozen
class Route:
    """The target of a request; without ``operation``, ``allow`` has the methods that the path supports, if any."""

    operation: str | None = None
    cluster: str | None = None
    name: str | None = None
    allow: str | None = None


NO_ROUTE = Route()


def match(method: str, raw_path: str) -> Route:
    """Find the route of ``raw_path``, still percent-encoded and with its query."""
    # Split before it is decoded, ``a%2Fb`` is the single name ``a/b``, and ``a%252Fb`` is ``a%2Fb``.
    segments = raw_path.partition("?")[0].split("/")
    if segments[:3] != ["", "v2", "databases"]:
        return NO_ROUTE
    # At the provider, DELETE destroys a cluster, with or without a trailing slash. Here both are a 405.
    if method == "DELETE" and len(segments) == 5 and not segments[4]:
        segments.pop()
    rest = segments[3:]
    key = tuple("{}" if place in (0, 2) else segment for place, segment in enumerate(rest))
    methods = _ROUTES.get(key)
    if methods is None:
        return NO_ROUTE
    cluster = rest[0].lower() if rest else None
    # Invalid UTF-8 becomes surrogates. No name has those, so the answer is a 404.
    name = unquote(rest[2], errors="surrogateescape") if len(rest) > 2 else None
    operation = methods.get(method)
    return Route(operation, cluster, name, None if operation else ", ".join(methods))


# The shape of a body: a type, a tuple of the possible values, a list of one shape, or an object, in which "!" marks a
# required member. Members that are not listed are ignored.
_NAMED = {"name!": str}
_PLUGIN = {"mysql_settings": {"auth_plugin!": tuple(MySQLAuthPlugin)}}
_SETTINGS = {
    "pg_allow_replication": bool,
    "acl": [{"topic!": str, "permission!": tuple(KafkaPermission), "id": str}],
    "opensearch_acl": [{"index": str, "permission": tuple(OpenSearchPermission)}],
    "mongo_user_settings": {"databases": [str], "role": tuple(MongoRole)},
}
_USER = {**_NAMED, **_PLUGIN, "readonly": bool, "settings": _SETTINGS}
_TYPES = {str: "a string", bool: "a boolean", list: "a list", dict: "a JSON object"}


@frozen
class RequestedUser:
    """A user to create, with only the ``auth_plugin`` and ``settings`` that the cluster's engine uses."""

    name: str
    auth_plugin: str | None
    settings: JSON


def parse_json(raw: bytes) -> Any:
    """Parse a body, None for an empty one, and refuse invalid JSON with 400."""
    if not raw:
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise Refusal(400, "the request body is not valid JSON") from None


def name_of(body: Any) -> str | None:
    """The ``name`` in a body, which may be otherwise invalid; None if it has no name."""
    name = cast(JSON, body).get("name") if isinstance(body, dict) else None
    return name if isinstance(name, str) else None


def parse_name(engine: str, kind: Literal["user", "database"], body: Any) -> str:
    """The ``name`` in the body of a create; one that is invalid, or that ``engine`` would truncate, is a 422."""
    _check(body, _NAMED)
    name: str = body["name"]
    if not name or "\0" in name:
        raise Refusal(422, "name must not be empty and must not contain NUL")
    if not is_text(name):
        raise Refusal(422, "name must be valid unicode")
    if engine in MYSQL:
        limit = 32 if kind == "user" else 64
        if len(name) > limit:  # MySQL refuses it (manual, "Identifier Length Limits")
            raise Refusal(422, f"{kind} name must have at most {limit} characters")
        return name
    limit = 63 if engine in POSTGRESQL else 255  # PostgreSQL truncates a longer name (NAMEDATALEN)
    if len(name.encode()) > limit:
        raise Refusal(422, f"{kind} name must have at most {limit} bytes")
    return name


def is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_user(engine: str, body: Any) -> RequestedUser:
    """The body of users.create; settings of another engine are checked, then ignored as at the provider."""
    name = parse_name(engine, "user", body)
    _check(body, _USER)
    chosen = _settings_for(engine, body.get("settings", {}))
    if body.get("readonly") and "readonly" in _used_by(engine) and not chosen:
        # "admin" gives access to every database (API description, mongo_user_settings.databases)
        chosen = {"mongo_user_settings": {"databases": ["admin"], "role": MongoRole.READ_ONLY.value}}
    return RequestedUser(name, parse_auth_plugin(engine, body), chosen)


def parse_auth_plugin(engine: str, body: Any) -> str | None:
    """``mysql_settings.auth_plugin`` of a create or reset_auth; None if it is absent or the engine is not MySQL."""
    _check(body, _PLUGIN)
    used = "mysql_settings" in body and "mysql_settings" in _used_by(engine)
    return body["mysql_settings"]["auth_plugin"] if used else None


def parse_settings(engine: str, body: Any) -> JSON:
    """The ``settings`` of an update that ``engine`` uses."""
    _check(body, {"settings!": _SETTINGS})
    return _settings_for(engine, body["settings"])


def _settings_for(engine: str, given: JSON) -> JSON:
    used = _used_by(engine)
    return {key: given[key] for key in _SETTINGS if key in given and f"settings.{key}" in used}


def _used_by(engine: str) -> Collection[str]:
    capabilities = Capabilities.of(engine)
    return capabilities.user_settings if capabilities else ()


def _check(value: Any, shape: Any, where: str = "") -> None:
    """Refuse with 422 a value of another shape."""
    if isinstance(shape, tuple):
        if value not in shape:
            raise Refusal(422, f"{where} must be one of {', '.join(cast(tuple[str, ...], shape))}")
        return
    kind: Any = list if isinstance(shape, list) else dict if isinstance(shape, dict) else shape
    if not isinstance(value, kind):
        raise Refusal(422, f"{where or 'the request body'} must be {_TYPES[kind]}")
    if isinstance(shape, list):
        for place, each in enumerate(value):
            _check(each, shape[0], f"{where}[{place}]")
    elif isinstance(shape, dict):
        for key, member in cast(JSON, shape).items():
            name = key.removesuffix("!")
            path = f"{where}.{name}" if where else name
            if name in value:
                _check(value[name], member, path)
            elif name != key:
                raise Refusal(422, f"{path} is required")


@define
class RecordedRequest:
    """One received request.

    Attributes:
        method: The HTTP method.
        path: The path and query as received, still percent-encoded.
        operation: The operation, such as ``"users.create"``; None if the API has no such operation.
        cluster: The id of the cluster; None if the request names none.
        name: The user or db, decoded, from the path or, for a create, from the body; None if the request names none.
        at: When it arrived, as unix time in seconds.
        headers: The headers, with lower-case names.
        body: The body; None if there was none.
        status: The status of the answer; None until it is answered, or if the connection was cut instead.
    """

    method: str
    path: str
    operation: str | None
    cluster: str | None
    name: str | None
    at: float
    headers: dict[str, str] = field(repr=False)  # one has the token
    body: str | None = None
    status: int | None = None

    @property
    def json(self) -> Any:
        """``body``, parsed, or None."""
        return None if self.body is None else json.loads(self.body)


@define
class Answer:
    """An answer of the API.

    Attributes:
        status: The HTTP status.
        body: The JSON body, or bytes to send as they are; None for no body.
        headers: The headers, besides those that HTTP itself needs.
    """

    status: int
    body: Any = None
    headers: dict[str, str] = Factory(dict[str, str])


# The ids come from the examples in the API description (401, 404, 429, 500); the others follow its rule, "a
# short identifier corresponding to the HTTP status code".
_IDS = {500: "server_error", 422: "unprocessable_entity"}  # http.HTTPStatus has another name for 422 from 3.13 on


def error(status: int, message: str = "", headers: dict[str, str] | None = None) -> Answer:
    """An answer with the documented error body: ``id``, ``message`` ("": the phrase) and a new ``request_id``."""
    slug = _IDS.get(status) or reason_phrase(status).lower().replace(" ", "_")
    body = {"id": slug, "message": message or reason_phrase(status), "request_id": str(uuid.uuid4())}
    return Answer(status, body, headers or {})


def reason_phrase(status: int) -> str:
    """The reason phrase of the status; "Unknown" if it has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class Refusal(Exception):
    """Raised by an operation, to answer with ``status`` and the documented error body."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


def not_found() -> Refusal:
    """The 404 of the API description, the same for clusters, users and dbs."""
    return Refusal(404, "The resource you requested could not be found.")


def name_taken(kind: str) -> Refusal:
    """The answer to a create with a taken name, as the provider's for a pool (terraform-provider-digitalocean #925)."""
    return Refusal(422, f"{kind} name is not available")
