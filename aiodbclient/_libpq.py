"""Parse libpq connection strings and errors, so that no message quotes a password. Pure."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ._hosts import is_host


def options_of(dsn: str) -> dict[str, Any] | None:
    """Return the options of the connection string ``dsn``, or None if it is invalid.

    If the password in a URI has an unescaped ``@`` or ``/``, libpq takes a part of it for the host, the port or the
    database, and quotes that in its errors. So this refuses such a URI.
    """
    if "\0" in dsn:
        return None
    try:
        options = dict(conninfo_to_dict(dsn))
    except psycopg.ProgrammingError:  # it may quote the DSN
        return None
    host, port = str(options.get("host", "")), str(options.get("port", ""))
    ends_in_host = "@" in host and not host.startswith("@")  # @ begins the name of an abstract socket
    ends_in_port = not port.replace(",", "").isdecimal() and port != ""
    is_invalid = not all(is_host(each) for each in host.split(",") if each and not each.startswith(("/", "@")))
    return None if ends_in_host or ends_in_port or is_invalid else options


def one_line(error: Exception) -> str:
    """Return the message of ``error`` on one line."""
    return " ".join(str(error).split()) or type(error).__name__
