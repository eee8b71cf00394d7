"""Which names of hosts a resolver takes, and which URLs have another host than their author meant. Pure."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

# In a URI they end the host, begin its options, name a second host or stand for another character.
_NEVER_IN_A_HOST = frozenset(" /@?&=#%,;\\'\"")


def is_host(text: str | None) -> bool:
    """Whether ``text`` can be the name or address of a host. For other texts Python's sockets raise UnicodeError."""
    if not text or not text.isprintable() or not _NEVER_IN_A_HOST.isdisjoint(text):
        return False
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return True


def has_late_at(url: str) -> bool:
    """Whether ``url`` has an ``@`` after its host. Raises ValueError if it is not a URL.

    If a password has an ``@`` and then an unescaped ``/``, ``?`` or ``#``, a part of it becomes the host, and the ``@``
    that was to end the password comes later. The value of an option may have an ``@``.
    """
    parts = urlsplit(url)
    return "@" in parts.path + parts.query.partition("=")[0] + parts.fragment


def mysql_parts(url: str) -> SplitResult | None:
    """Return the parts of ``url`` if it names a MySQL server, with its host, a valid port if any, and a user."""
    try:
        parts, late = urlsplit(url), has_late_at(url)
        is_mysql = parts.scheme in ("mysql", "mariadb") and (parts.port is None or parts.port > 0)
        if is_mysql and is_host(parts.hostname) and parts.username and not late:
            return parts
    except ValueError:  # its message may quote the password
        pass
    return None
