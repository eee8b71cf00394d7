"""``DatabaseOptions``: what a new tenant's database on PostgreSQL begins with. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from attrs import frozen

from ..engines import MYSQL, Engine
from ..errors import InvalidArgumentError
from ._naming import check_tenant

_EXTENSION = re.compile(r"[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*")
_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*")
_VALUE = re.compile("[^\0\ud800-\udfff]*")  # what PostgreSQL can store
# They would apply to the administrator's sessions too, or load code.
_FORBIDDEN = {"role", "session_authorization", "session_preload_libraries", "local_preload_libraries"}
_MAX_NAME = 63


@frozen(kw_only=True)
class DatabaseOptions:
    """The options of ``Tenants`` that MySQL does not have."""

    template: Mapping[str, str] = MappingProxyType({})  # a tenant of each cluster, by the cluster's id
    extensions: tuple[tuple[str, str | None], ...] = ()  # each with its schema. None: its own, or ``public``
    settings: tuple[tuple[str, str], ...] = ()

    @classmethod
    def checked(
        cls, clusters: Collection[str], template: object, extensions: object, settings: object
    ) -> DatabaseOptions:
        """Check what ``Tenants`` was given, or raise InvalidArgumentError."""
        by_cluster = template if isinstance(template, Mapping) else dict.fromkeys(clusters, template)
        if template is not None and {*by_cluster} != {*clusters}:
            raise InvalidArgumentError(f"template must name a tenant for each cluster, and is {template!r:.200}")
        templates = {} if template is None else {id: check_tenant(name) for id, name in by_cluster.items()}
        if isinstance(extensions, str) or not isinstance(extensions, Collection):
            raise InvalidArgumentError(f"extensions must be a list of names, or a mapping, not {extensions!r:.200}")
        if not isinstance(settings, Mapping):
            raise InvalidArgumentError(f"settings must be a mapping of names to values, not {settings!r:.200}")
        schemas = extensions if isinstance(extensions, Mapping) else dict.fromkeys(extensions)
        for name, schema in schemas.items():
            _check("an extension", name, _EXTENSION)
            if schema is not None:
                _check(f"the schema of the extension {name!r}", schema, _SCHEMA)
        for name, value in settings.items():
            _check("a setting", name, _SETTING)
            if name.lower() in _FORBIDDEN:
                raise InvalidArgumentError(f"settings has {name!r}, which no tenant's database may have")
            if not isinstance(value, str) or not _VALUE.fullmatch(value):
                raise InvalidArgumentError(f"the setting {name!r} must be a string, such as '30s', not {value!r:.200}")
        return cls(template=templates, extensions=tuple(schemas.items()), settings=tuple(settings.items()))

    def check_engine(self, engine: Engine | str | None) -> None:
        """Raise InvalidArgumentError if an option is given and the engine is MySQL."""
        for name, what in (("template", "templates"), ("extensions", "extensions"), ("settings", "settings")):
            if engine in MYSQL and getattr(self, name):
                raise InvalidArgumentError(f"{name}= needs PostgreSQL: tenants on MySQL have no {what}")


def _check(what: str, name: object, pattern: re.Pattern[str]) -> None:
    if not isinstance(name, str) or not pattern.fullmatch(name) or len(name) > _MAX_NAME:
        raise InvalidArgumentError(f"{name!r:.200} is invalid as the name of {what}")
