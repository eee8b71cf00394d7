"""``SandboxAnswer``, the documented error body, and ``Refusal``, the exception that becomes an error answer. Pure."""

from __future__ import annotations

import json
import uuid
from http import HTTPStatus
from typing import Any

from attrs import Factory, define

# The ids come from the examples in the API description (401, 404, 429, 500); the others follow its rule, "a
# short identifier corresponding to the HTTP status code".
_IDS = {500: "server_error", 422: "unprocessable_entity"}  # http.HTTPStatus has another name for 422 from 3.13 on

# Answers of Cloudflare itself, the proxy in front of the provider's API (its documentation of 5xx errors).
_PROXY_PHRASES = {
    520: "Web server is returning an unknown error",
    521: "Web server is down",
    522: "Connection timed out",
    523: "Origin is unreachable",
    524: "A timeout occurred",
    525: "SSL handshake failed",
    526: "Invalid SSL certificate",
}

HTML = "<html>\n<head><title>{status} {phrase}</title></head>\n<body>\n<h1>{phrase}</h1>\n</body>\n</html>\n"


@define
class SandboxAnswer:
    """An answer of the API; without ``payload``, its JSON body, it has none."""

    status: int
    payload: dict[str, Any] | None = None
    headers: dict[str, str] = Factory(dict[str, str])

    @property
    def from_proxy(self) -> bool:
        """Whether only the proxy in front of the API uses its status."""
        return self.status in _PROXY_PHRASES

    def body(self) -> bytes:
        return b"" if self.payload is None else json.dumps(self.payload).encode()


class Refusal(Exception):
    """Raised by an operation, to answer with ``status`` and the documented error body."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def phrase(status: int) -> str:
    """The reason phrase of ``status``; "Unknown" if it has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return _PROXY_PHRASES.get(status, "Unknown")


def error(status: int, message: str, headers: dict[str, str] | None = None) -> SandboxAnswer:
    """An answer with the documented error body: ``id``, ``message`` and a new ``request_id``."""
    slug = _IDS.get(status) or phrase(status).lower().replace(" ", "_")
    return SandboxAnswer(
        status,
        {"id": slug, "message": message, "request_id": str(uuid.uuid4())},
        {} if headers is None else headers,
    )


def not_implemented() -> SandboxAnswer:
    """The provider's answer to an update of mongo_user_settings (terraform-provider-digitalocean #1387)."""
    return SandboxAnswer(501, {"id": "Not Implemented", "message": "Server Error", "request_id": str(uuid.uuid4())})


def not_found() -> Refusal:
    """The 404 of the API description, the same for clusters, users and dbs."""
    return Refusal(404, "The resource you requested could not be found.")


def name_taken(kind: str) -> Refusal:
    """The answer to a create with a taken name, as the provider's for a pool (terraform-provider-digitalocean #925)."""
    return Refusal(422, f"{kind} name is not available")


def unsupported() -> Refusal:
    """The answer for an engine without users or dbs, as the provider's for the pools of MySQL (terraformer #1905)."""
    return Refusal(422, "operation is not supported for this cluster type")
