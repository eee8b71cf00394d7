"""Parse libpq connection strings and errors, so that no message quotes a password. Pure."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ._hosts import is_host


def options_of(dsn: str) -> dict[str, Any] | None:
    """Return the options of the connection string ``dsn``, or None if it is invalid.

    If the password in a URI has an unescaped ``@`` or ``/``, libpq takes a part of it for the host, the port or the
    database. It connects to that host, and quotes it in its errors. So this refuses a URI with an unescaped ``@`` in
    one of these.
    """
    if "\0" in dsn:
        return None
    try:
        options = dict(conninfo_to_dict(dsn))
    except psycopg.ProgrammingError:  # it may quote the DSN
        return None
    hosts, port = str(options.get("host", "")).split(","), str(options.get("port", ""))
    names = (*hosts, str(options.get("dbname", "")))
    is_uri = dsn.startswith(("postgresql://", "postgres://"))
    has_second_at = is_uri and any("@" in name and name in dsn for name in names)  # an escaped one is %40 in the URI
    ends_in_port = not port.replace(",", "").isdecimal() and port != ""
    # A path is the folder of a socket, and @ begins the name of an abstract one.
    is_invalid = not all(is_host(host) for host in hosts if host and not host.startswith(("/", "@")))
    return None if has_second_at or ends_in_port or is_invalid else options


def one_line(error: Exception) -> str:
    """Return the message of ``error`` on one line."""
    return " ".join(str(error).split()) or type(error).__name__
