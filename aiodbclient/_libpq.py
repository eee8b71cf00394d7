"""What PostgreSQL's library takes and says: connection strings, read so that no message quotes a password. Pure."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ._hosts import is_host


def options_of(dsn: str) -> dict[str, Any] | None:
    """The options of the connection string ``dsn``, or None where it is none, or not one that can be right.

    In a URI whose password has a bare ``@`` or ``/``, libpq takes some of the password for the host, the port or the
    database, and its errors quote those. So such a URI is refused before it is used.
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
    """The message of ``error``, which libpq writes in several lines."""
    return " ".join(str(error).split()) or type(error).__name__
