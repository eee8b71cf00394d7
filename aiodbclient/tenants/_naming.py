"""The names of a tenant's database, logins and roles. Pure.

A tenant has two logins, so that ``rotate`` can change from one to the other. The first has the tenant's name. The name
of the second is derived from it: ``alpha`` gives ``alpha_53ce71e1b09c4582_b``. It has a digest of the whole name, so
that long names with the same truncated beginning differ. The name of the owner role is derived too. A tenant's name
must not have that form, so it never equals a derived name of another tenant.
"""

from __future__ import annotations

import re
from enum import StrEnum
from hashlib import blake2b

from attrs import frozen

from .._request.paths import check_name
from ..engines import MYSQL, POSTGRESQL, Engine, guard_tenants
from ..errors import InvalidArgumentError


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
_LOGINS = {Role.OWNER: ("a", "b"), Role.WRITER: ("wa", "wb"), Role.READER: ("ra", "rb")}
_ENDINGS = tuple(ending for both in _LOGINS.values() for ending in both)
_DERIVED = re.compile(f"_[0-9a-f]{{16}}_({'|'.join((*_ENDINGS, *Role))})")
OF_A_GROUP = f"_[0-9a-f]{{16}}_({'|'.join(Role)})$"  # the end of the names of PostgreSQL's roles, also for its ``~``
_OF_A_ROLE = re.compile(f"(.+)_([0-9a-f]{{16}})_({'|'.join(ROLES)})", re.DOTALL)
_HAS_DIGEST = re.compile(r"-(?=([0-9a-f]{8}))")
# What the topics and indexes of a tenant can begin with: Kafka's org.apache.kafka.common.internals.Topic, and
# OpenSearch's manual, "Create index", which has no upper case.
_PREFIXED: dict[str, tuple[re.Pattern[str], str]] = {
    Engine.KAFKA: (re.compile(r"[a-zA-Z0-9_-]+"), "letters, digits, _ and - alone"),
    Engine.OPENSEARCH: (
        re.compile(r"[a-z0-9][a-z0-9_-]*"),
        "a letter or digit first, and lower-case letters, digits, _ and - alone",
    ),
}
_MAX_BYTES = 63  # PostgreSQL truncates longer names (NAMEDATALEN)
_MAX_USER = 32  # characters; MySQL 8 manual, "Identifier Length Limits" and 6.2.3 "Grant Tables"
_MAX_SCHEMA = 64  # characters; same

# Names that belong to the cluster or engine. No tenant may own, reset or delete these.
_RESERVED = frozenset(
    {
        *("doadmin", "do-readonly", "_dodb", "defaultdb", "avnadmin"),
        *("postgres", "template0", "template1", "public", "none", "current_user", "current_role", "session_user"),
        *("mysql", "sys", "information_schema", "performance_schema", "root"),
        *("mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys", "debian-sys-maint"),
        *("unauthenticated user", "event_scheduler", "system user"),  # how MySQL lists its own threads
        *("admin", "local", "config"),
    }
)


@frozen(kw_only=True)
class Names:
    """The names of a tenant's objects on a cluster, for one of its roles."""

    tenant: str
    role: Role
    whole: str  # the tenant's name with the prefix of the ``Tenants``
    objects: str | None  # what the names of its topics or indexes begin with, on Kafka and OpenSearch
    database: str | None  # None on Kafka and OpenSearch
    logins: tuple[str, str]  # of the role: ``provision`` creates the first, the first ``rotate`` creates the second
    family: frozenset[str]  # the logins of all roles of the tenant
    owner_logins: tuple[str, str]
    owner: str  # PostgreSQL: the role that owns the database
    group: str  # PostgreSQL: the role that has the rights; its members are the logins; the owner's is ``owner``
    groups: tuple[str, ...]  # PostgreSQL: the roles with the rights of its writers and readers
    record: str  # the name of the record in the store

    @property
    def roles(self) -> frozenset[str]:
        """PostgreSQL: all roles of the tenant, its logins among them."""
        return self.family | {self.owner, *self.groups}

    def other(self, login: str) -> str:
        """The login that is not ``login``."""
        first, second = self.logins
        return second if login == first else first


def check_tenant(name: object) -> str:
    """Return ``name`` if it can be a tenant's name on some engine."""
    check_name(name)
    assert isinstance(name, str)
    if not name.strip():
        raise InvalidArgumentError(f"{name!r} only has spaces, and cannot be a tenant's name; nothing was sent")
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


def is_derived(name: str) -> bool:
    """Whether a name has the form of one that is derived from a tenant's, such as its second login."""
    return _DERIVED.search(name) is not None


def names_of(tenant: str, engine: Engine | str, prefix: str = "", role: Role = Role.OWNER) -> Names:
    """Return the names of ``tenant`` on a cluster of ``engine``."""
    by_prefix = guard_tenants(engine).tenants == "prefix"
    whole = prefix + check_tenant(tenant)
    check_name(whole)
    if whole.lower() in _RESERVED or whole.lower().startswith("pg_"):
        raise InvalidArgumentError(f"{whole!r} belongs to the cluster and cannot be a tenant's; nothing was sent")
    if engine in MYSQL and re.match(r"test(_|$)", whole, re.IGNORECASE):
        # The server compares the case of schemas or not, as lower_case_table_names says.
        raise InvalidArgumentError(
            f"{whole!r} is invalid as a tenant's name: MariaDB opens the schema test, and those whose names begin with "
            "test_, to every login; nothing was sent"
        )
    if is_derived(whole):
        raise InvalidArgumentError(
            f"{whole!r} has the form of a name that is derived from a tenant's, such as its second login, and cannot "
            "be a tenant's; nothing was sent"
        )
    if engine in POSTGRESQL and len(whole.encode()) > _MAX_BYTES:
        raise InvalidArgumentError(f"{whole!r} is longer than the {_MAX_BYTES} bytes of PostgreSQL; nothing was sent")
    if engine in MYSQL and len(whole) > _MAX_SCHEMA:
        raise InvalidArgumentError(f"{whole!r} is longer than the {_MAX_SCHEMA} characters of MySQL; nothing was sent")
    if by_prefix:
        _check_prefix(whole, engine)
    logins = {each: _logins(whole, engine, each) for each in Role}
    return Names(
        tenant=tenant,
        role=role,
        whole=whole,
        objects=f"{whole}-{_digest(whole)[:8]}." if by_prefix else None,
        database=None if by_prefix else whole,
        logins=logins[role],
        family=frozenset(login for both in logins.values() for login in both),
        owner_logins=logins[Role.OWNER],
        owner=_derived(whole, engine, "owner"),
        group=_derived(whole, engine, role),
        groups=tuple(_derived(whole, engine, each) for each in ROLES),
        record=record_name(tenant, role),
    )


def _logins(whole: str, engine: Engine | str, role: Role) -> tuple[str, str]:
    fits = engine not in MYSQL or len(whole) <= _MAX_USER
    first, second = (_derived(whole, engine, ending) for ending in _LOGINS[role])
    return whole if fits and role is Role.OWNER else first, second


def _check_prefix(whole: str, engine: Engine | str) -> None:
    """Refuse a name with which ``Names.objects`` would be no prefix of its own. Raises InvalidArgumentError."""
    # The pattern of ``alpha`` is ``alpha-5306d220.*``. As a regular expression it also matches the names of a tenant
    # whose own name begins with ``alpha-5306d220``. A dot in a name would end the prefix early.
    pattern, allowed = _PREFIXED[engine]
    if not pattern.fullmatch(whole):
        raise InvalidArgumentError(f"{whole!r}: on {engine} a tenant's name has {allowed}; nothing was sent")
    if any(match[1] == _digest(whole[: match.start()])[:8] for match in _HAS_DIGEST.finditer(whole)):
        raise InvalidArgumentError(f"{whole!r} begins as the topics of another tenant do; nothing was sent")


def _derived(whole: str, engine: Engine | str, what: str) -> str:
    ending = f"_{_digest(whole)}_{what}"
    if engine in MYSQL:
        return whole[: _MAX_USER - len(ending)] + ending
    return whole.encode()[: _MAX_BYTES - len(ending)].decode(errors="ignore") + ending


def _digest(name: str) -> str:
    return blake2b(name.encode(errors="surrogatepass"), digest_size=8).hexdigest()
