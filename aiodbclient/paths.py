"""Names and ids in the API's paths. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote
from uuid import UUID

from .errors import InvalidArgumentError

CLUSTERS = "/v2/databases"

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def checked_cluster_id(cluster_id: object) -> str:
    """``cluster_id`` in the API's spelling. Raises InvalidArgumentError where it is not a UUID."""
    text = str(cluster_id) if isinstance(cluster_id, str | UUID) else ""
    if not _UUID.fullmatch(text):
        raise InvalidArgumentError(f"a cluster id is a UUID (with hyphens), not {cluster_id!r}; nothing was sent")
    return text.lower()


def segment(name: object) -> str:
    """``name`` as exactly one percent-encoded path segment.

    Raises InvalidArgumentError for what no segment can say: an empty name; ``.`` and ``..``, which proxies and URL
    libraries resolve (a DELETE of the user ``..`` would be a DELETE of the cluster); a NUL; lone surrogates, which
    UTF-8 cannot encode.
    """
    if not isinstance(name, str):
        raise InvalidArgumentError(f"a name is a string, not {name!r}; nothing was sent")
    if name in ("", ".", "..") or "\0" in name:
        raise InvalidArgumentError(f"{name!r} cannot be the name of a user or a db in a URL's path; nothing was sent")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        problem = f"{name!r} cannot be encoded as UTF-8; nothing was sent"
    raise InvalidArgumentError(problem)
