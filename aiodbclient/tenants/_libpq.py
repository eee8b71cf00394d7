"""Parse libpq connection strings and errors, so that no message quotes a password. Pure."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from .._dsn import is_host
from ..errors import InvalidArgumentError


def options_of(dsn: str) -> dict[str, Any] | None:
    """Return the options of the connection string ``dsn``, or None if it is invalid."""
    # If the password in a URI has an unescaped ``@`` or ``/``, libpq takes a part of it for the host, the port or the
    # database, connects to that host, and quotes it in its errors.
    if "\0" in dsn or _has_second_at(dsn):
        return None
    try:
        options = dict(conninfo_to_dict(dsn))
    except (psycopg.ProgrammingError, UnicodeError):  # they may quote the DSN
        return None
    hosts, port = str(options.get("host", "")).split(","), str(options.get("port", ""))
    ends_in_port = not port.replace(",", "").isdecimal() and port != ""
    # A path is the folder of a socket, and @ begins the name of an abstract one.
    is_invalid = not all(is_host(host) for host in hosts if host and not host.startswith(("/", "@")))
    return None if ends_in_port or is_invalid else options


def checked_options(name: str, dsn: str) -> dict[str, Any]:
    """Return the options of the connection string ``dsn``. Raises InvalidArgumentError, which names its ``name``."""
    options = options_of(dsn)
    if options is None:
        raise InvalidArgumentError(
            f"{name} is not a connection string of PostgreSQL: postgresql://USER:PASSWORD@HOST/DB, with @ and / in the "
            "password written as %40 and %2F"
        )
    return options


def _has_second_at(dsn: str) -> bool:
    """Whether ``dsn`` is a URI with an ``@`` after its password, and not in the value of an option."""
    if not dsn.startswith(("postgresql://", "postgres://")):
        return False
    place = dsn.partition("://")[2]
    login, _, rest = place.partition("@")
    if "/" not in login:  # otherwise libpq sees no login
        place = rest
    return "@" in place.partition("?")[0]


def reason_of(error: Exception) -> str:
    """Return why it failed, without the server's DETAIL, which may quote a row."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return f"{error.diag.message_primary} (SQLSTATE {error.sqlstate})"
    return one_line(error)


def one_line(error: Exception) -> str:
    """Return the message of ``error`` on one line."""
    return " ".join(str(error).split()) or type(error).__name__
