"""Find the operation for a method and a raw path, and split lists into pages. Pure.

The path is split before it is decoded, so ``a%2Fb`` is the single name ``a/b``, and ``a%252Fb`` is ``a%2Fb``.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs, unquote, urlencode

from attrs import frozen

from ._answers import SandboxAnswer

# Keyed by the segments after /v2/databases; {} matches any segment.
_ROUTES: dict[tuple[str, ...], dict[str, str]] = {
    (): {"GET": "clusters.list"},
    ("{}",): {"GET": "clusters.get"},
    ("{}", "ca"): {"GET": "clusters.ca"},
    ("{}", "users"): {"GET": "users.list", "POST": "users.create"},
    ("{}", "users", "{}"): {"GET": "users.get", "PUT": "users.update", "DELETE": "users.delete"},
    ("{}", "users", "{}", "reset_auth"): {"POST": "users.reset_auth"},
    ("{}", "dbs"): {"GET": "dbs.list", "POST": "dbs.create"},
    ("{}", "dbs", "{}"): {"GET": "dbs.get", "DELETE": "dbs.delete"},
}

OPERATIONS = frozenset(operation for methods in _ROUTES.values() for operation in methods.values())
LISTS = frozenset(operation for operation in OPERATIONS if operation.endswith(".list"))


@frozen
class Route:
    """The target of a request; without ``operation``, ``allow`` has the methods that the path supports, if any."""

    operation: str | None = None
    cluster: str | None = None
    name: str | None = None
    allow: str | None = None


NOWHERE = Route()


def match(method: str, raw_path: str) -> Route:
    """Find the route of ``raw_path``, still percent-encoded and with its query."""
    segments = raw_path.partition("?")[0].split("/")
    if segments[:3] != ["", "v2", "databases"]:
        return NOWHERE
    # At the provider, DELETE destroys a cluster, with or without a trailing slash. Here both are a 405.
    if method == "DELETE" and len(segments) == 5 and not segments[4]:
        segments.pop()
    rest = segments[3:]
    if "" in rest:
        return NOWHERE
    key = tuple("{}" if place in (0, 2) else segment for place, segment in enumerate(rest))
    methods = _ROUTES.get(key)
    if methods is None:
        return NOWHERE
    cluster = rest[0].lower() if rest else None
    # Invalid UTF-8 becomes surrogates. No name has those, so the answer is a 404.
    name = unquote(rest[2], errors="surrogateescape") if len(rest) > 2 else None
    operation = methods.get(method)
    return Route(operation, cluster, name, None if operation else ", ".join(methods))


def paged(answer: SandboxAnswer, url: str, query_string: str, page_size: int) -> SandboxAnswer:
    """Reduce the list in ``answer`` to the requested page, with ``links`` to others as in the provider's lists."""
    query = parse_qs(query_string)
    page = _number(query, "page", 1)
    size = min(_number(query, "per_page", page_size), page_size)
    assert answer.payload is not None
    [(key, everything)] = answer.payload.items()
    last = max(1, -(-len(everything) // size))
    numbers: dict[str, int] = {}
    if page > 1:
        numbers |= {"first": 1, "prev": page - 1}
    if page < last:
        numbers |= {"next": page + 1, "last": last}
    links = {label: _link(url, query, page=number, per_page=size) for label, number in numbers.items()}
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
