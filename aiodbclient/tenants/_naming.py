"""The names of a tenant's database, logins and roles. Pure.

Each login of a tenant is new: ``alpha`` has ``alpha_9628f5f54850_00015c3e``, a rotation gives it
``alpha_9628f5f54850_0002f07a``. The twelve digits are a digest of the whole name of the database, so that long names
with the same truncated beginning differ. Then come a counter of four digits, over all logins that the tenant ever had,
and four random digits. So no name is used twice, and a login that was ended cannot come back. A tenant's name must not
have that form, so it never equals a login or a role of another tenant.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from enum import StrEnum
from hashlib import blake2b

from attrs import frozen

from ..engines import MYSQL, SQL_ENGINES, Engine
from ..errors import InvalidArgumentError, UnsupportedOperationError
from .errors import GrantError


class Role(StrEnum):
    """The rights of a tenant's login in the tenant's database.

    Attributes:
        OWNER: All rights on what is in the database.
        WRITER: Read and change data. It creates no tables.
        READER: Read data.
    """

    OWNER = "owner"
    WRITER = "writer"
    READER = "reader"


LIMITED_ROLES = tuple(role for role in Role if role is not Role.OWNER)  # a tenant always has an owner
OF_A_GROUP = f"_[0-9a-f]{{12}}_({'|'.join(Role)})$"  # the end of the names of PostgreSQL's roles, also for its ``~``
_DERIVED = re.compile(rf"_[0-9a-f]{{12}}_([0-9a-f]{{8}}|{'|'.join(Role)})\Z")  # the end of logins' and roles' names
_LAST_NUMBER = 0xFFFF
_ALLOWED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MAX_NAME = 63  # PostgreSQL truncates longer names (NAMEDATALEN)
_MAX_USER = 32  # MySQL 8 manual, "Identifier Length Limits" and 6.2.3 "Grant Tables"
_MAX_SCHEMA = 64  # same
_ENDING = len("_") + 12 + len("_") + 8

# Names of the cluster or an engine. No tenant may own, reset or delete these.
_RESERVED = frozenset(
    {
        *("do-readonly", "defaultdb", "avnadmin", "metrics_user_telegraf"),
        *("postgres", "template0", "template1", "public", "none", "current_user", "current_role", "session_user"),
        *("mysql", "sys", "information_schema", "performance_schema", "root", "event_scheduler"),
        *("mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys", "debian-sys-maint"),
        *("admin", "local", "config"),
    }
)
_RESERVED_BEGINNINGS = ("pg_", "doadmin", "_doadmin", "_dodb")


@frozen(kw_only=True)
class Names:
    """The names of a tenant's objects on a cluster."""

    tenant: str
    database: str  # the tenant's name with the prefix of the ``Tenants``
    stem: str  # with which the names of its logins and roles begin
    login_pattern: str  # a regular expression of the databases for the names of its logins
    owner: str  # PostgreSQL: the role without LOGIN that owns what is in the database

    @property
    def groups(self) -> tuple[str, ...]:
        """PostgreSQL: the roles without LOGIN that have the rights of its writers and readers."""
        return tuple(map(self.group, LIMITED_ROLES))

    def group(self, role: Role) -> str:
        """PostgreSQL: the role without LOGIN whose members are the logins of ``role``."""
        return f"{self.stem}{role}"

    def is_login(self, name: str) -> bool:
        return re.search(self.login_pattern, name) is not None

    def is_ours(self, name: str) -> bool:
        return self.is_login(name) or name in (self.owner, *self.groups)

    def number(self, login: str) -> int:
        """The counter in a login's name; 0 for an adopted one, which may have another form."""
        return int(login[len(self.stem) :][:4], 16) if self.is_login(login) else 0

    def next_logins(self, others: Iterable[str], count: int = 1) -> list[str]:
        """Names for new logins, after all ``others`` that the tenant ever had."""
        last = max(map(self.number, others), default=0)
        if last + count > _LAST_NUMBER:
            raise GrantError(f"tenant {self.tenant!r} has had {_LAST_NUMBER:,} logins", tenant=self.tenant)
        return [f"{self.stem}{last + each:04x}{secrets.token_hex(2)}" for each in range(1, count + 1)]


def guard_tenants(engine: Engine | str) -> None:
    """Refuse an engine that does not support tenants."""
    if engine not in SQL_ENGINES:
        reason = f"tenants need PostgreSQL or MySQL, and the cluster has {engine}; nothing was created"
        raise UnsupportedOperationError(reason, engine=engine, operation="tenants")


def check_tenant(name: object) -> str:
    """Return ``name`` if it can be a tenant's name on some engine."""
    if not isinstance(name, str):
        raise InvalidArgumentError(f"a tenant's name is a string, not {name!r:.200}; nothing was sent")
    if not _ALLOWED.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r:.200} is invalid as a tenant's name: use ASCII letters, digits, _, - and ., beginning with a "
            "letter, a digit or _; nothing was sent"
        )
    return name


def names_of(tenant: str, engine: Engine | str, prefix: str = "") -> Names:
    """Return the names of ``tenant`` on an engine with SQL, or raise InvalidArgumentError if it can have none."""
    database = check_tenant(prefix + check_tenant(tenant))
    on_mysql = engine in MYSQL
    most = _MAX_SCHEMA if on_mysql else _MAX_NAME
    reason = ""
    if is_reserved(database):
        reason = "it is reserved"
    elif is_derived(database):
        reason = "it has the form of a tenant's login"
    elif len(database) > most:
        reason = f"it is longer than the {most} characters of {'MySQL' if on_mysql else 'PostgreSQL'}"
    if reason:
        raise InvalidArgumentError(f"{database!r} is invalid as a tenant's name: {reason}; nothing was sent")
    digest = blake2b(database.encode(), digest_size=6).hexdigest()
    stem = f"{database[: (_MAX_USER if on_mysql else _MAX_NAME) - _ENDING]}_{digest}_"
    return Names(
        tenant=tenant,
        database=database,
        stem=stem,
        login_pattern=f"^{re.escape(stem)}[0-9a-f]{{8}}$",
        owner=f"{stem}{Role.OWNER}",
    )


def is_derived(name: str) -> bool:
    """Whether a name has the form of a tenant's logins and roles."""
    return _DERIVED.search(name) is not None


def is_reserved(name: str) -> bool:
    """Whether the name of a database or login is reserved for the cluster or an engine."""
    return name.lower() in _RESERVED or name.lower().startswith(_RESERVED_BEGINNINGS)
