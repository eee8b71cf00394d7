"""The topics of a Kafka tenant and the indexes of an OpenSearch tenant. Their names begin with ``Names.objects``.

When the API deletes a login, these stay. So the next tenant of the same name could read them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .._request.pages import PER_PAGE, is_usual
from .._request.waits import waits
from ..clusters import ClusterClient, request_below
from ..engines import Engine
from ..errors import InvalidResponseError, NotFoundError
from ._naming import Names

# The path of the API that lists them, and the member with the name.
_LISTS: Mapping[str, tuple[str, str]] = {Engine.KAFKA: ("topics", "name"), Engine.OPENSEARCH: ("indexes", "index_name")}
_PATTERN = re.compile(r"[*?,]")  # OpenSearch reads these as a pattern or a list. No name of an index has them.
_MOST_PAGES = 1_000
_LISTED_AFTER_DELETION = 30.0  # s for which a deleted topic may still be listed: Kafka deletes it in the background


async def list_objects(cluster: ClusterClient, engine: Engine | str) -> list[str]:
    """List the names of all topics or indexes of a cluster. On an engine with databases the list is empty."""
    return await _listed(cluster, *_LISTS[engine]) if engine in _LISTS else []


def objects_of(names: Names, listed: Iterable[str]) -> list[str]:
    """Filter ``listed`` for the tenant's topics or indexes."""
    prefix = names.objects
    return [name for name in listed if prefix and name.startswith(prefix) and not _PATTERN.search(name)]


async def leftovers(cluster: ClusterClient, engine: Engine | str, names: Names) -> list[str]:
    """List the tenant's topics or indexes. Raises as ``list_objects``."""
    return objects_of(names, await list_objects(cluster, engine))


async def delete_leftovers(cluster: ClusterClient, engine: Engine | str, names: Names) -> list[str]:
    """Delete the tenant's topics or indexes, and wait until none is listed. Safe to repeat and to cancel."""
    deleted = set[str]()
    for wait in waits(_LISTED_AFTER_DELETION):
        await asyncio.sleep(wait)
        left = await leftovers(cluster, engine, names)
        if not left:
            return []
        for name in left:
            if name not in deleted:
                with suppress(NotFoundError):
                    await request_below(cluster, "DELETE", _LISTS[engine][0], name)
                deleted.add(name)
    return await leftovers(cluster, engine, names)


async def _listed(cluster: ClusterClient, kind: str, member: str) -> list[str]:
    found: list[str] = []
    params: Mapping[str, list[str]] | None = None
    for _ in range(_MOST_PAGES):
        answer = await request_below(cluster, "GET", kind, params=params)
        try:
            found += [_text(each[member]) for each in answer[kind] or []]
            following = _following(answer)
        except (LookupError, TypeError, AttributeError, ValueError):
            break
        if following is None:
            return found
        if following == params:
            break
        if params is None and is_usual(found):
            following, found = {"per_page": [str(PER_PAGE)]}, []
        params = following
    raise InvalidResponseError(f"the API's list of {kind} has another form than it documents")


def _following(answer: Any) -> Mapping[str, list[str]] | None:
    """The query of the next page; None on the last page."""
    following = ((answer.get("links") or {}).get("pages") or {}).get("next")
    return parse_qs(urlsplit(_text(following)).query) if following else None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
