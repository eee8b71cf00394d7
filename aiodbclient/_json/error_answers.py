"""From an answer that is not a success to the exception that says so. Pure."""

from __future__ import annotations

import json
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
from .masking import Secrets

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
_LINE = 500  # characters of an id, a message or a request id
_LONGEST_ERROR = 1 << 20  # bytes of an error that are decoded


def excerpt(body: bytes, secrets: Secrets) -> str:
    """The beginning of ``body`` as text, at most 2,000 characters, with secrets masked."""
    return secrets.masked(body[:_LONGEST_ERROR].decode("utf-8", "replace"))


def request_id(status: int, headers: Mapping[str, str], body: bytes, secrets: Secrets) -> str | None:
    """The id that the provider's support asks for, from an error's body or else a header; None if neither tells it."""
    told = _members(body).get("request_id") if status >= 400 else None
    return secrets.line(told or headers.get("x-request-id", ""), _LINE) or None


def error_from_answer(
    what: str, status: int, headers: Mapping[str, str], body: bytes, secrets: Secrets
) -> DatabaseClientError:
    """The exception for an answer with a status that is not 2xx.

    Args:
        what: How its text names the call.
        status: HTTP's.
        headers: The answer's, found whatever the case of their names.
        body: The answer's.
        secrets: What its text must not tell.
    """
    if status < 400:
        said = "which is not documented"
        if "location" in headers:
            where = secrets.line(_host(headers["location"]), 200)
            said = f"a redirect to {where}, not followed since the token is for base_url alone"
        return InvalidResponseError(f"{what}: answered {status}, {said}", status=status, body=excerpt(body, secrets))
    members = _members(body)
    id, message = (secrets.line(members.get(key, ""), _LINE) for key in ("id", "message"))
    if not message and not id:
        message = secrets.line(body[:_LONGEST_ERROR].decode("utf-8", "replace"), 200)
    said = ": ".join(part for part in (id, message) if part) or _reason(status)
    id_of_request = request_id(status, headers, body, secrets)
    text = f"{what}: {status} {said}{f' (request id {id_of_request})' if id_of_request else ''}"
    error_type = _BY_STATUS.get(status, ServerError if status >= 500 else APIError)
    error = error_type(text, status=status, id=id, message=message, request_id=id_of_request)
    if isinstance(error, RateLimitError | ServerError):
        error.retry_after = retry_after(headers)
    return error


def _members(body: bytes) -> dict[str, str]:
    if len(body) > _LONGEST_ERROR:
        return {}
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
