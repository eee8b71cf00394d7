"""The names of a tenant's database, logins and roles. Pure.

A tenant has two logins, so that ``rotate`` can change from one to the other. The first has the tenant's name. The name
of the second is derived from it: ``alpha`` gives ``alpha_53ce71e1b09c4582_b``. It has a digest of the whole name, so
that long names with the same truncated beginning differ. The name of the owner role is derived too. A tenant's name
must not have that form, so it never equals a derived name of another tenant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b

from attrs import frozen

from ..engines import MYSQL, Engine
from ..errors import InvalidArgumentError
from ._guard import guard_tenants, is_derived


class Role(StrEnum):
    """The rights of a tenant's login in the tenant's database.

    Attributes:
        OWNER: All rights: it owns the database.
        WRITER: Read and change data. It creates no tables.
        READER: Read data.
    """

    OWNER = "owner"
    WRITER = "writer"
    READER = "reader"


ROLES = tuple(role for role in Role if role is not Role.OWNER)  # those that a tenant may have besides its owner
# How the names of the two logins of each role end.
_LOGINS: Mapping[Role, tuple[str, str]] = {
    Role.OWNER: ("a", "b"),
    Role.WRITER: ("wa", "wb"),
    Role.READER: ("ra", "rb"),
}
_TEMPORARY = "t"  # how the name of the temporary login ends
_ENDINGS = (*(ending for both in _LOGINS.values() for ending in both), _TEMPORARY, *Role)  # see ``is_derived``
OF_A_GROUP = f"_[0-9a-f]{{16}}_({'|'.join(Role)})$"  # the end of the names of PostgreSQL's roles, also for its ``~``
_OF_A_ROLE = re.compile(f"(.+)_([0-9a-f]{{16}})_({'|'.join(ROLES)})")
_ALLOWED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MAX_NAME = 63  # PostgreSQL truncates longer names (NAMEDATALEN)
_MAX_USER = 32  # MySQL 8 manual, "Identifier Length Limits" and 6.2.3 "Grant Tables"
_MAX_SCHEMA = 64  # same

# Names that belong to the cluster or engine. No tenant may own, reset or delete these.
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
    """The names of a tenant's objects on a cluster, for one of its roles."""

    tenant: str
    role: Role
    record: str  # the name of the record in the store
    database: str  # the tenant's name with the prefix of the ``Tenants``
    logins: tuple[str, str]  # of the role: ``provision`` creates the first, the first ``rotate`` creates the second
    owner_logins: tuple[str, str]  # of the owner
    all_logins: frozenset[str]  # of all roles
    temporary: str  # the login that dumps a database
    owner: str  # PostgreSQL: the role that owns the database
    group: str  # PostgreSQL: the role that has the rights; its members are the logins; the owner's is ``owner``
    groups: tuple[str, ...]  # PostgreSQL: the roles with the rights of its writers and readers

    @property
    def everything(self) -> frozenset[str]:
        """PostgreSQL: all roles of the tenant, with and without LOGIN."""
        return self.all_logins | {self.temporary, self.owner, *self.groups}

    def other(self, login: str) -> str:
        """The login that is not ``login``."""
        first, second = self.logins
        return second if login == first else first


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


def record_name(tenant: str, role: Role) -> str:
    """The name of the store's record for a tenant's role. It never equals a tenant's name."""
    return tenant if role is Role.OWNER else f"{tenant}_{_digest(tenant)}_{role}"


def tenant_of(record: str) -> tuple[str, Role]:
    """The tenant and the role of a record, by the record's name."""
    match = _OF_A_ROLE.fullmatch(record)
    if match is not None and match[2] == _digest(match[1]):
        return match[1], Role(match[3])
    return record, Role.OWNER


def names_of(tenant: str, engine: Engine | str, prefix: str = "", role: Role = Role.OWNER) -> Names:
    """Return the names of ``tenant`` on a cluster of ``engine``."""
    guard_tenants(engine)
    database = check_tenant(prefix + check_tenant(tenant))
    on_mysql = engine in MYSQL
    _refuse(database, on_mysql=on_mysql)
    most, digest = _MAX_USER if on_mysql else _MAX_NAME, _digest(database)
    derived = {what: f"{database[: most - 18 - len(what)]}_{digest}_{what}" for what in _ENDINGS}
    logins = {each: (derived[first], derived[second]) for each, (first, second) in _LOGINS.items()}
    if len(database) <= most:
        logins[Role.OWNER] = database, logins[Role.OWNER][1]
    return Names(
        tenant=tenant,
        role=role,
        record=record_name(tenant, role),
        database=database,
        logins=logins[role],
        owner_logins=logins[Role.OWNER],
        all_logins=frozenset().union(*logins.values()),
        temporary=derived[_TEMPORARY],
        owner=derived[Role.OWNER],
        group=derived[role],
        groups=tuple(derived[each] for each in ROLES),
    )


def _refuse(name: str, *, on_mysql: bool) -> None:
    """Refuse a name, with its prefix, that no tenant may have. Raises InvalidArgumentError."""
    if is_reserved(name):
        reason = "it belongs to the cluster"
    elif is_derived(name):
        reason = "it has the form of a name that is derived from a tenant's, such as its second login"
    elif len(name) > (most := _MAX_SCHEMA if on_mysql else _MAX_NAME):
        reason = f"it is longer than the {most} characters of {'MySQL' if on_mysql else 'PostgreSQL'}"
    else:
        return
    raise InvalidArgumentError(f"{name!r} is invalid as a tenant's name: {reason}; nothing was sent")


def is_reserved(name: str) -> bool:
    """Whether a database or login belongs to the cluster or engine."""
    return name.lower() in _RESERVED or name.lower().startswith(_RESERVED_BEGINNINGS)


def _digest(name: str) -> str:
    return blake2b(name.encode(errors="surrogatepass"), digest_size=8).hexdigest()
