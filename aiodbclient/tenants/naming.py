"""The names of a tenant's database, logins and owner role. Pure.

A tenant has two logins, so that ``rotate`` can change from one to the other. The first has the tenant's name. The name
of the second is derived from it: ``alpha`` gives ``alpha_53ce71e1b09c4582_b``, with a digest of the whole name, so that
long names which are cut to the same beginning still differ. The owner role is named so too. A tenant's own name must
not have that form; so no tenant has a name of another.
"""

from __future__ import annotations

import re
from hashlib import blake2b

from attrs import frozen

from .._request.paths import check_name
from ..engines import MYSQL, POSTGRESQL, Engine, guard_tenants
from ..errors import InvalidArgumentError

_DERIVED = re.compile(r"_[0-9a-f]{16}_(a|b|owner)")
_MAX_BYTES = 63  # PostgreSQL cuts longer names short (NAMEDATALEN)
_MAX_USER = 32  # characters; MySQL 8 manual, "Identifier Length Limits" and 6.2.3 "Grant Tables"
_MAX_SCHEMA = 64  # characters; same

# Names of what comes with a cluster or an engine. No tenant may own, reset or delete that.
_RESERVED = frozenset(
    {
        *("doadmin", "do-readonly", "_dodb", "defaultdb", "avnadmin"),
        *("postgres", "template0", "template1", "public", "none", "current_user", "current_role", "session_user"),
        *("mysql", "sys", "information_schema", "performance_schema", "root"),
        *("admin", "local", "config"),
    }
)


@frozen
class Names:
    """The names of what a tenant has on a cluster.

    Attributes:
        tenant: The tenant.
        database: Its database; None on Kafka and OpenSearch.
        logins: Its two logins. The first is made by ``provision``, the second by the first ``rotate``.
        owner: The role that owns its database. Only PostgreSQL has it.
    """

    tenant: str
    database: str | None
    logins: tuple[str, str]
    owner: str

    def other(self, login: str) -> str:
        """The login that is not ``login``."""
        first, second = self.logins
        return second if login == first else first


def check_tenant(name: object) -> str:
    """Return ``name`` if it can be a tenant's name on some engine.

    Raises:
        InvalidArgumentError: It is no string, or none that a URL can carry.
    """
    check_name(name)
    assert isinstance(name, str)
    return name


def names_of(tenant: str, engine: Engine | str, prefix: str = "") -> Names:
    """Return the names of ``tenant`` on a cluster of ``engine``.

    Args:
        tenant: The tenant.
        engine: The cluster's engine.
        prefix: What the names begin with.

    Raises:
        InvalidArgumentError: With its prefix the name is too long for the engine, reserved, of the form of a derived
            name, or has a character that the engine's patterns cannot hold.
        UnsupportedOperationError: The engine can have no tenants, or is not known.
    """
    by_prefix = guard_tenants(engine).tenants == "prefix"
    whole = prefix + check_tenant(tenant)
    check_name(whole)
    if whole.lower() in _RESERVED or whole.lower().startswith("pg_"):
        raise InvalidArgumentError(f"{whole!r} belongs to the cluster and cannot be a tenant's; nothing was sent")
    if _DERIVED.search(whole):
        raise InvalidArgumentError(
            f"{whole!r} has the form of the second login that tenants get, and cannot be a tenant's; nothing was sent"
        )
    if engine in POSTGRESQL and len(whole.encode()) > _MAX_BYTES:
        raise InvalidArgumentError(f"{whole!r} is longer than the {_MAX_BYTES} bytes of PostgreSQL; nothing was sent")
    if engine in MYSQL and len(whole) > _MAX_SCHEMA:
        raise InvalidArgumentError(f"{whole!r} is longer than the {_MAX_SCHEMA} characters of MySQL; nothing was sent")
    if by_prefix and not re.fullmatch(r"[a-zA-Z0-9_-]+", whole):
        # The dot ends the prefix of a tenant's topics or indexes, so it cannot be within.
        raise InvalidArgumentError(
            f"{whole!r}: on {engine} a tenant's name has letters, digits, _ and - alone; nothing was sent"
        )
    fits = engine not in MYSQL or len(whole) <= _MAX_USER
    first = whole if fits else _derived(whole, engine, "a")
    return Names(
        tenant,
        None if by_prefix else whole,
        (first, _derived(whole, engine, "b")),
        _derived(whole, engine, "owner"),
    )


def _derived(whole: str, engine: Engine | str, what: str) -> str:
    digest = blake2b(whole.encode(), digest_size=8).hexdigest()
    ending = f"_{digest}_{what}"
    if engine in MYSQL:
        return whole[: _MAX_USER - len(ending)] + ending
    return whole.encode()[: _MAX_BYTES - len(ending)].decode(errors="ignore") + ending
