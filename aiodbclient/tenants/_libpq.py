"""Parse libpq connection strings and errors, so that no message quotes a password. Pure."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from .._dsn import is_host
from ..errors import InvalidArgumentError


def options_of(dsn: str, name: str) -> dict[str, Any]:
    """Return the options of the connection string ``dsn``, or raise InvalidArgumentError with its ``name``."""
    options = None
    # If the password in a URI has an unescaped ``@`` or ``/``, libpq takes a part of it for the host, the port or the
    # database, connects to that host, and quotes it in its errors.
    if "\0" not in dsn and not _has_second_at(dsn):
        with suppress(psycopg.ProgrammingError, UnicodeError):  # they may quote the DSN
            options = dict(conninfo_to_dict(dsn))
            if not _is_place(str(options.get("host", "")), str(options.get("port", ""))):
                options = None
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


def _is_place(hosts: str, port: str) -> bool:
    # A path is the folder of a socket, and @ begins the name of an abstract one.
    are_hosts = all(is_host(host) for host in hosts.split(",") if host and not host.startswith(("/", "@")))
    return are_hosts and (not port or port.replace(",", "").isdecimal())


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
