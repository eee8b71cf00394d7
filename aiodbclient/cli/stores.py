"""Which store an operator means by ``--store``: a file, a PostgreSQL, or a store of somebody else's package."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import InvalidArgumentError, StoreError
from ..tenants import PostgresStore, SQLiteStore, Store

KEY_VARIABLE = "AIODBCLIENT_STORE_KEY"
ENTRY_POINTS = "aiodbclient.stores"
_POSTGRESQL = ("postgresql", "postgres")


def keys(variable: str = KEY_VARIABLE) -> list[str] | None:
    """The keys in an environment variable, with commas between them; None if there is none."""
    return [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()] or None


def make_store(where: str, key: list[str] | None) -> Store:
    """Return the store, not open yet. It is made when it is opened, if it does not exist.

    Args:
        where: A path, the URL of a PostgreSQL, or a URL whose scheme a package has an entry point for, in the group
            ``aiodbclient.stores``: a callable that takes the URL and the keys, and returns a ``Store``.
        key: The keys. The first encrypts.

    Raises:
        InvalidArgumentError: No package has a store for the scheme of the URL.
    """
    scheme = scheme_of(where)
    if scheme is None:
        return SQLiteStore(where, key=key)
    if scheme in _POSTGRESQL:
        return PostgresStore(where, key=key)
    found = entry_points(group=ENTRY_POINTS, name=scheme)
    if not found:
        others = "".join(f", {name}://" for name in sorted(entry_points(group=ENTRY_POINTS).names))
        raise InvalidArgumentError(
            f"--store {scheme}://... is not supported. It takes a file, postgresql://{others}; another package can add "
            f"stores by entry points of the group {ENTRY_POINTS}"
        )
    make: Callable[[str, list[str] | None], Store] = next(iter(found)).load()
    return make(where, key)


def check_exists(where: str) -> None:
    """Raise StoreError if the store is a file that does not exist. For commands that need what is in it."""
    if is_missing(where):
        raise StoreError(
            f"the store {where} does not exist: check --store. `aiodbclient tenants provision` makes a new one"
        )


def is_missing(where: str) -> bool:
    """Whether the store is a file that does not exist."""
    return scheme_of(where) is None and not Path(where).exists()


def scheme_of(where: str) -> str | None:
    """The scheme of a URL; None for a path."""
    return urlsplit(where).scheme if "://" in where else None
