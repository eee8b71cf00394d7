"""Split lists into pages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

from ._answers import SandboxAnswer

LISTS = {
    "clusters.list": "databases",
    "users.list": "users",
    "dbs.list": "dbs",
    "topics.list": "topics",
    "indexes.list": "indexes",
}
"""The operations that return a list, with the key of the list in the answer."""


def paged(answer: SandboxAnswer, key: str, url: str, query_string: str, page_size: int) -> SandboxAnswer:
    """Reduce the list to the requested page, with ``links`` to other pages as in the provider's lists.

    Args:
        answer: The answer with the whole list.
        key: The key of the list.
        url: The URL of the request, without its query.
        query_string: The query.
        page_size: The length of a page, unless the query asks for less.
    """
    query = parse_qs(query_string)
    page = _number(query, "page", 1)
    size = min(_number(query, "per_page", page_size), page_size)
    assert answer.payload is not None
    everything: list[Any] = answer.payload[key]
    last = max(1, -(-len(everything) // size))
    links: dict[str, str] = {}
    for label, number, there in (
        ("first", 1, page > 1),
        ("prev", page - 1, page > 1),
        ("next", page + 1, page < last),
        ("last", last, page < last),
    ):
        if there:
            links[label] = _link(url, query, page=number, per_page=size)
    answer.payload = {
        key: everything[(page - 1) * size : page * size],
        "links": {"pages": links} if links else {},
        "meta": {"total": len(everything)},
    }
    return answer


def endless(answer: SandboxAnswer, url: str, query_string: str) -> SandboxAnswer:
    """Add a link to a next page, whichever page was requested."""
    query = parse_qs(query_string)
    assert answer.payload is not None
    answer.payload["links"] = {"pages": {"next": _link(url, query, page=_number(query, "page", 1) + 1)}}
    return answer


def _number(query: Mapping[str, list[str]], key: str, default: int) -> int:
    given = query.get(key, [""])[0]
    return max(1, int(given)) if given.isascii() and given.isdigit() and len(given) < 10 else default


def _link(url: str, query: Mapping[str, list[str]], **numbers: int) -> str:
    return f"{url}?{urlencode({name: values[0] for name, values in query.items()} | numbers)}"
