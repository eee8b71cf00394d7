"""Check names, ids and tags before they go into a URL. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlencode
from uuid import UUID

from ..errors import InvalidArgumentError

CLUSTERS = "/v2/databases"

_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def checked_cluster_id(cluster_id: object) -> str:
    """Return ``cluster_id`` as the API writes it. Raises InvalidArgumentError if it is not a UUID."""
    text = str(cluster_id) if isinstance(cluster_id, str | UUID) else ""
    if not re.fullmatch(_UUID, text, re.IGNORECASE):
        raise InvalidArgumentError(f"a cluster id is a UUID (with hyphens), not {cluster_id!r}; nothing was sent")
    return text.lower()


def check_name(name: object) -> None:
    """Refuse a name that cannot be a segment of a URL's path."""
    # Proxies and URL libraries resolve dots: a DELETE of the user ``..`` would delete the cluster.
    if not isinstance(name, str):
        raise InvalidArgumentError(f"a name is a string, not {name!r}; nothing was sent")
    if name in ("", ".", "..") or "\0" in name:
        raise InvalidArgumentError(f"{name!r} cannot be the name of a user or a db in a URL's path; nothing was sent")
    if not name.isascii():
        _check_encodable(name, repr(name))


def tag_query(tag_name: str | None) -> str:
    """Return the query for the clusters with a tag; empty for None. Raises InvalidArgumentError if it is not text."""
    if tag_name is None:
        return ""
    if not isinstance(tag_name, str):
        raise InvalidArgumentError(f"tag_name must be a string or None, not {tag_name!r}; nothing was sent")
    if not tag_name.isascii():
        _check_encodable(tag_name, f"tag_name={tag_name!r}")
    return f"?{urlencode({'tag_name': tag_name})}"


def _check_encodable(text: str, what: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidArgumentError(f"{what} cannot be encoded as UTF-8; nothing was sent")
