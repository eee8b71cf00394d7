"""Check request bodies against the API description, and keep the settings that the engine uses. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, cast

from attrs import frozen

from ..engines import Capabilities
from ..models import KafkaPermission, MongoRole, MySQLAuthPlugin, OpenSearchPermission
from ._answers import Refusal

JSON = dict[str, Any]

# The shape of a body: a type, a tuple of the possible values, a list of one shape, or an object, in which "!" marks a
# required member. Members that are not listed are ignored.
_NAMED = {"name!": str}
_PLUGIN = {"mysql_settings": {"auth_plugin!": tuple(MySQLAuthPlugin)}}
_PRODUCE_CONSUME = "produce_consume"  # as godo's tests spell it
_SETTINGS = {
    "pg_allow_replication": bool,
    "acl": [{"topic!": str, "permission!": (*KafkaPermission, _PRODUCE_CONSUME), "id": str}],
    "opensearch_acl": [{"index": str, "permission": tuple(OpenSearchPermission)}],
    "mongo_user_settings": {"databases": [str], "role": tuple(MongoRole)},
}
_NEW_USER = {**_NAMED, **_PLUGIN, "readonly": bool, "settings": _SETTINGS}
_TYPES = {str: "a string", bool: "a boolean", list: "a list", dict: "a JSON object"}


@frozen
class RequestedUser:
    """A user to create, with only the ``auth_plugin`` and ``settings`` that the cluster's engine uses."""

    name: str
    auth_plugin: str | None
    settings: JSON


def parse(raw: bytes) -> Any:
    """Parse a body, None for an empty one, and refuse invalid JSON with 400."""
    if not raw:
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise Refusal(400, "the request body is not valid JSON") from None


def name_in(body: Any) -> str | None:
    """The ``name`` in a body, which may be otherwise invalid; None if it has no name."""
    name = cast(JSON, body).get("name") if isinstance(body, dict) else None
    return name if isinstance(name, str) else None


def name_of(body: Any) -> str:
    """The ``name`` in the body of a create; an invalid one is refused with 422."""
    _check(body, _NAMED)
    name: str = body["name"]
    if not name or "\0" in name:
        raise Refusal(422, "name must not be empty and must not contain NUL")
    if not is_text(name):
        raise Refusal(422, "name must be valid unicode")
    return name


def is_text(name: str) -> bool:
    """Whether ``name`` is valid unicode."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def new_user(engine: str, body: Any) -> RequestedUser:
    """The body of users.create; settings of another engine are checked, then ignored as at the provider."""
    name = name_of(body)
    _check(body, _NEW_USER)
    chosen = _settings_for(engine, body.get("settings", {}))
    if body.get("readonly") and "readonly" in _used_by(engine) and not chosen:
        # "admin" gives access to every database (API description, mongo_user_settings.databases)
        chosen = {"mongo_user_settings": {"databases": ["admin"], "role": MongoRole.READ_ONLY.value}}
    return RequestedUser(name, auth_plugin(engine, body), chosen)


def auth_plugin(engine: str, body: Any) -> str | None:
    """``mysql_settings.auth_plugin`` of a create or reset_auth; None if it is absent or the engine is not MySQL."""
    _check(body, _PLUGIN)
    used = "mysql_settings" in body and "mysql_settings" in _used_by(engine)
    return body["mysql_settings"]["auth_plugin"] if used else None


def new_settings(engine: str, body: Any) -> JSON:
    """The ``settings`` of an update that ``engine`` uses."""
    _check(body, {"settings!": _SETTINGS})
    return _settings_for(engine, body["settings"])


def _settings_for(engine: str, given: JSON) -> JSON:
    used = _used_by(engine)
    chosen = {key: given[key] for key in _SETTINGS if key in given and f"settings.{key}" in used}
    if "acl" in chosen:
        chosen["acl"] = [
            {**rule, "permission": KafkaPermission.PRODUCECONSUME.value}
            if rule["permission"] == _PRODUCE_CONSUME
            else rule
            for rule in chosen["acl"]
        ]
    return chosen


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
