"""``RecordedRequest``: a received request, for tests to inspect. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from attrs import define

from ..models import USER_SECRETS

_SECRET_KEYS = frozenset({*USER_SECRETS, "token", "uri"})
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})
_MASK = "********"


@define
class RecordedRequest:
    """One received request.

    Attributes:
        method: The HTTP method.
        path: The path and query as received, still percent-encoded.
        operation: The operation, such as ``"users.create"``; None if the API has no such operation.
        cluster: The id of the cluster; None if the request names none.
        name: The user or db, decoded, from the path or, for a create, from the body; None if the request names none.
        at: When it arrived, as unix time in seconds.
        headers: The headers, with lower-case names and masked credentials.
        body: The JSON text with secrets masked; None if there was no body, it was not JSON, or the request had no valid
            token.
        status: The status of the answer; None until it is answered, or if the connection was cut instead.
    """

    method: str
    path: str
    operation: str | None
    cluster: str | None
    name: str | None
    at: float
    headers: dict[str, str]
    body: str | None = None
    status: int | None = None

    @property
    def json(self) -> Any:
        """``body``, parsed, or None."""
        return None if self.body is None else json.loads(self.body)


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Copy ``headers`` with lower-case names and masked credentials."""
    return {key.lower(): _MASK if key.lower() in _SECRET_HEADERS else value for key, value in headers.items()}


def masked_json(value: Any) -> str | None:
    """The JSON text of ``value`` with secrets masked; None for None."""
    return None if value is None else json.dumps(_masked(value))


def _masked(value: Any, depth: int = 20) -> Any:
    """Copy ``value`` with secrets masked, without what is nested deeper than any body of the API."""
    if depth == 0:
        return "..."
    if isinstance(value, dict):
        members = cast(dict[str, Any], value)
        return {key: _MASK if key in _SECRET_KEYS else _masked(member, depth - 1) for key, member in members.items()}
    if isinstance(value, list):
        return [_masked(member, depth - 1) for member in cast(Iterable[Any], value)]
    return value
