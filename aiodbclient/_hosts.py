"""Which names of hosts a resolver takes. Pure."""

from __future__ import annotations


def is_host(text: str | None) -> bool:
    """Whether ``text`` can be the name or address of a host. For other texts Python's sockets raise UnicodeError."""
    if not text or not text.isprintable() or any(character in text for character in " /@"):
        return False
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return True
