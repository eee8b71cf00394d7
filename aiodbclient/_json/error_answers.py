"""Make the exception for an answer that is not a success. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple, cast

from .._headers import retry_after
from ..errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InvalidResponseError,
    NameTakenError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    RateLimitError,
    ServerError,
    UnprocessableEntityError,
)
from .masking import Secrets
from .parsing import parsed

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
# The API description documents no error for a taken name. For a user the API answers "already exists", for a connection
# pool "pool name is not available" (terraform-provider-digitalocean #925).
_TAKEN = ("exists", "taken", "in use", "duplicate", "not available")
_LINE = 500  # characters of an id, a message or a request id
_LONGEST_ERROR = 1 << 20  # bytes of an error that the client decodes


def excerpt(body: bytes, secrets: Secrets) -> str:
    """Return the beginning of ``body`` as text: at most 2,000 characters, with secrets masked."""
    return secrets.masked(body[:_LONGEST_ERROR].decode("utf-8", "replace"))


class ErrorText(NamedTuple):
    """The documented members of an error answer, each on one line and without secrets. Empty if missing."""

    id: str
    message: str
    request_id: str


def header_request_id(headers: Mapping[str, str], secrets: Secrets) -> str:
    """Return the request id of an answer's headers, or an empty string."""
    given = headers.get("x-request-id")
    return secrets.line(given, _LINE) if given else ""


def error_text(headers: Mapping[str, str], body: bytes, secrets: Secrets) -> ErrorText:
    """Return the texts of an error answer. A request id in the body wins over one in the headers."""
    members = _members(body)
    id, message, request_id = (
        secrets.line(text, _LINE) if (text := members.get(key)) else "" for key in ("id", "message", "request_id")
    )
    if not message and not id:
        message = secrets.line(body[:_LONGEST_ERROR].decode("utf-8", "replace"), 200)
    return ErrorText(id, message, request_id or header_request_id(headers, secrets))


def error_from_answer(
    what: str, status: int, headers: Mapping[str, str], texts: ErrorText, *, to_create: bool
) -> APIError:
    """Return the exception for an answer with a status of 400 or more, ``to_create`` if to a create."""
    said = ": ".join(part for part in (texts.id, texts.message) if part) or _reason(status)
    text = f"{what}: {status} {said}{f' (request id {texts.request_id})' if texts.request_id else ''}"
    error_type = _BY_STATUS.get(status, ServerError if status >= 500 else APIError)
    if to_create and error_type in (ConflictError, UnprocessableEntityError) and _says_taken(texts):
        error_type = NameTakenError
    error = error_type(text, status=status, id=texts.id, message=texts.message, request_id=texts.request_id or None)
    if isinstance(error, RateLimitError | ServerError):
        error.retry_after = retry_after(headers)
    return error


def undocumented_status(
    what: str, status: int, headers: Mapping[str, str], body: bytes, secrets: Secrets
) -> InvalidResponseError:
    """Return the exception for an answer that is neither a success nor an error, such as a redirect."""
    said = "which is not documented"
    if "location" in headers:
        where = secrets.line(_host(headers["location"]), 200)
        said = f"a redirect to {where}, not followed because the token is only for base_url"
    return InvalidResponseError(f"{what}: answered {status}, {said}", status=status, body=excerpt(body, secrets))


def _says_taken(texts: ErrorText) -> bool:
    text = f"{texts.id} {texts.message}".lower()
    return any(word in text for word in _TAKEN)


def _members(body: bytes) -> dict[str, str]:
    if len(body) > _LONGEST_ERROR:
        return {}
    try:
        decoded = parsed(body)
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
