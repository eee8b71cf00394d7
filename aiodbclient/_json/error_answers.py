"""From an answer that is not a success to the exception that says so. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import cast

from .._pacing.headers import retry_after
from ..errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    DatabaseClientError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    RateLimitError,
    ServerError,
    UnprocessableEntityError,
)

_BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: PreconditionFailedError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}
_KEPT = 2000

# A JSON member that holds a credential (cut short or not; in JSON, or in JSON within a JSON string), the credentials in
# a URL, and a bearer token.
_NAMES = "password|access_key|access_cert|uri|token"
_CREDENTIALS = (
    rf"""(?P<json>"(?:{_NAMES})"\s*:\s*)(?:"(?:[^"\\]|\\.)*"?|[\[{{][^\]}}]*)"""
    rf"""|(?P<quoted>\\"(?:{_NAMES})\\"\s*:\s*)\\"(?:[^"\\]|\\(?!"))*"""
    r"""|(?P<scheme>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://)[^\s"'<>]{0,1000}@"""
    r"""|(?P<bearer>bearer\s+)[^\s"'<>]+"""
)


def excerpt(body: bytes, token: str = "", limit: int = _KEPT) -> str:
    """The beginning of ``body`` as text, at most ``limit`` characters, with credentials and ``token`` masked."""
    # Masked before it is cut, so that a cut cannot hide a credential's beginning from the pattern.
    text = body[: 4 * _KEPT].decode("utf-8", "replace")
    if token:
        text = text.replace(token, "***")
    text = re.sub(
        _CREDENTIALS, lambda match: f"{match[match.lastgroup or 0]}***", text, flags=re.IGNORECASE | re.DOTALL
    )
    return text[:limit]


def error_from_answer(
    what: str, status: int, headers: Mapping[str, str], body: bytes, token: str = ""
) -> DatabaseClientError:
    """The exception for an answer with a status that is not 2xx. ``what`` names the request in its text."""
    if status < 400:
        said = "which is not documented"
        if "location" in headers:
            where = excerpt(_host(headers["location"]).encode(errors="replace"), token, 200)
            said = f"a redirect to {where}, not followed since the token is for base_url alone"
        return InvalidResponseError(
            f"{what}: answered {status}, {said}",
            status=status,
            body=excerpt(body, token),
        )
    members = _members(body)
    members.setdefault("request_id", headers.get("x-request-id", ""))
    id, message, request_id = (
        excerpt(members.get(key, "").encode(errors="replace"), token, 500) for key in ("id", "message", "request_id")
    )
    if not message and not id:
        message = " ".join(excerpt(body, token, 200).split())
    # On one line, so that an answer cannot write lines of its own into a log.
    said = " ".join(": ".join(part for part in (id, message) if part).split()) or _reason(status)
    text = f"{what}: {status} {said}{f' (request id {request_id})' if request_id else ''}"
    error_type = _BY_STATUS.get(status, ServerError if status >= 500 else APIError)
    error = error_type(text, status=status, id=id, message=message, request_id=request_id or None)
    if isinstance(error, RateLimitError | ServerError):
        error.retry_after = retry_after(headers)
    return error


def _members(body: bytes) -> dict[str, str]:
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(decoded, dict):
        return {}
    return {k: v for k, v in cast("dict[str, object]", decoded).items() if isinstance(v, str)}


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "an unknown status"


def _host(location: str) -> str:
    return location.partition("://")[2].partition("/")[0].rpartition("@")[2] or "another path"
