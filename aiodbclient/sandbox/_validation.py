"""Check request bodies against the API description, and keep the settings that the engine uses. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any, cast

from attrs import frozen

from ..engines import Capabilities
from ..models import KafkaPermission, MongoRole, MySQLAuthPlugin, OpenSearchPermission
from ._answers import Refusal

JSON = dict[str, Any]


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
    name = _object(body, "the request body").get("name")
    if not isinstance(name, str):
        raise Refusal(422, "name is required and must be a string")
    if not name or "\0" in name:
        raise Refusal(422, "name must not be empty and must not contain NUL")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Refusal(422, "name must be valid unicode") from None
    return name


def new_user(engine: str, body: Any) -> RequestedUser:
    """The body of users.create; settings of another engine are checked, then ignored as at the provider."""
    name = name_of(body)
    plugin = auth_plugin(engine, body)
    chosen = settings(engine, body)
    read_only = body.get("readonly", False)
    _expect(isinstance(read_only, bool), "readonly must be a boolean")
    if read_only and "readonly" in _used_by(engine) and not chosen:
        # "admin" gives access to every database (API description, mongo_user_settings.databases)
        chosen = {"mongo_user_settings": {"databases": ["admin"], "role": MongoRole.READ_ONLY.value}}
    return RequestedUser(name, plugin, chosen)


def auth_plugin(engine: str, body: Any) -> str | None:
    """``mysql_settings.auth_plugin`` of a create or reset_auth; None if it is absent or the engine is not MySQL."""
    members = _object(body, "the request body")
    if "mysql_settings" not in members:
        return None
    plugin = _object(members["mysql_settings"], "mysql_settings").get("auth_plugin")
    _one_of(plugin, MySQLAuthPlugin, "mysql_settings.auth_plugin")
    return plugin if "mysql_settings" in _used_by(engine) else None


def settings(engine: str, body: Any, *, required: bool = False) -> JSON:
    """The ``settings`` of a create or update that ``engine`` uses."""
    members = _object(body, "the request body")
    if "settings" not in members:
        _expect(not required, "settings is required")
        return {}
    given = _object(members["settings"], "settings")
    for key, check in _SETTINGS.items():
        if key in given:
            check(given[key])
    used = _used_by(engine)
    chosen = {key: given[key] for key in _SETTINGS if key in given and f"settings.{key}" in used}
    if "acl" in chosen:
        chosen["acl"] = [{**rule, "permission": _kafka_permission(rule["permission"])} for rule in chosen["acl"]]
    return chosen


def _used_by(engine: str) -> Collection[str]:
    capabilities = Capabilities.of(engine)
    return capabilities.user_settings if capabilities else ()


def _replication(value: Any) -> None:
    _expect(isinstance(value, bool), "settings.pg_allow_replication must be a boolean")


def _kafka_acl(value: Any) -> None:
    for place, rule in enumerate(_list(value, "settings.acl")):
        where = f"settings.acl[{place}]"
        members = _object(rule, where)
        _expect(isinstance(members.get("topic"), str), f"{where}.topic is required and must be a string")
        _one_of(_kafka_permission(members.get("permission")), KafkaPermission, f"{where}.permission")
        _expect(isinstance(members.get("id", ""), str), f"{where}.id must be a string")


def _kafka_permission(given: Any) -> Any:
    """Kafka's permission as the API description spells it. godo's tests spell it "produce_consume"."""
    return KafkaPermission.PRODUCECONSUME.value if given == "produce_consume" else given


def _opensearch_acl(value: Any) -> None:
    for place, rule in enumerate(_list(value, "settings.opensearch_acl")):
        where = f"settings.opensearch_acl[{place}]"
        members = _object(rule, where)
        _expect(isinstance(members.get("index", ""), str), f"{where}.index must be a string")
        if "permission" in members:
            _one_of(members["permission"], OpenSearchPermission, f"{where}.permission")


def _mongo(value: Any) -> None:
    where = "settings.mongo_user_settings"
    members = _object(value, where)
    for name in _list(members.get("databases", []), f"{where}.databases"):
        _expect(isinstance(name, str), f"{where}.databases must be a list of strings")
    if "role" in members:
        _one_of(members["role"], MongoRole, f"{where}.role")


_SETTINGS: dict[str, Callable[[Any], None]] = {
    "pg_allow_replication": _replication,
    "acl": _kafka_acl,
    "opensearch_acl": _opensearch_acl,
    "mongo_user_settings": _mongo,
}


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise Refusal(422, message)


def _object(value: Any, what: str) -> JSON:
    _expect(isinstance(value, dict), f"{what} must be a JSON object")
    return cast(JSON, value)


def _list(value: Any, what: str) -> list[Any]:
    _expect(isinstance(value, list), f"{what} must be a list")
    return cast(list[Any], value)


def _one_of(
    value: Any, choices: type[MySQLAuthPlugin | KafkaPermission | OpenSearchPermission | MongoRole], what: str
) -> None:
    allowed = [member.value for member in choices]
    _expect(value in allowed, f"{what} must be one of {', '.join(allowed)}")
