"""Read an HTTP response into a model, or find out why the call failed. Pure, but it may close the connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

from .._headers import retry_after
from .._json import UNREADABLE, ClusterEngine, decode, decode_page, parse
from .._masking import Secrets
from ..engines import is_case_sensitive
from ..errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    DatabaseClientError,
    InvalidResponseError,
    NameTakenError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    RateLimitError,
    ServerError,
    UnprocessableEntityError,
)
from ..models import ClusterInfo, Database, User
from .call import Call
from .retry import LOST_STATUSES, FailedTry, Failure, error_of, was_lost

T = TypeVar("T")

# Success statuses that do not confirm a DELETE: 202 means "not done yet"; 205 and 206 make no sense for a DELETE.
_NOT_DONE = frozenset({202, 205, 206})
# The API or a gateway timed out. The server may still work on the request.
_TIMED_OUT_STATUSES = frozenset({408, 504, 522, 524})
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
_TAKEN = ("already exists", "name is not available")
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_MAX_LINE = 500  # characters of an id, a message or a request id
_MAX_ERROR = 1 << 16  # bytes of an error that the client decodes


class Response(NamedTuple):
    """The response to ``call``, not decoded yet."""

    call: Call
    status: int
    headers: Mapping[str, str]
    body: bytes
    earlier: Sequence[FailedTry]  # the tries before this one
    secrets: Secrets
    # Closes the connection, even if it is back in the pool: a response that does not fit may belong to an earlier call.
    close: Callable[[], object]

    def __repr__(self) -> str:
        return f"<Response {self.status}>"  # the body may hold a secret

    @property
    def request_id(self) -> str | None:
        """The id that the provider's support asks for, or None: an error's own wins over the one in the headers."""
        given = self._error_members().get("request_id") if self.status >= 400 else None
        return self.secrets.line(given or self.headers.get("x-request-id", ""), _MAX_LINE) or None

    def read(self, model: type[T]) -> T:
        """Return the ``model`` in the response, and refuse one that is about something else."""
        try:
            value = decode(self.body, self.call.operation.key, model)
        except UNREADABLE:
            value = None
        if value is None:  # not in the handler, where it would be chained: errors of cattrs quote credentials
            raise self._undecodable()
        found = asked = None
        if isinstance(value, (User, Database)):
            found, asked = value.name, self.call.name
        elif isinstance(value, (ClusterInfo, ClusterEngine)):
            found, asked = value.id, self.call.cluster_id
        if found is not None and asked is not None and found != asked:
            is_exact = asked is self.call.name and is_case_sensitive(self.call.engine, self.call.operation.on)
            if is_exact or spelling(found) != spelling(asked):
                raise self.invalid(f"is about {self.secrets.line(found, 100)!r}, not {asked[:100]!r}")
        return value

    def read_page(self, model: type[T]) -> tuple[list[T], str | None]:
        """Return the models on this page of a list, and the URL of the next page or None."""
        operation = self.call.operation
        try:
            return decode_page(self.body, operation.key, model, operation.key_alias)
        except UNREADABLE:
            pass
        raise self._undecodable()

    def read_json(self) -> Any:
        """Return the JSON of the response, or None if it has no body."""
        try:
            return parse(self.body) if self.body.strip() and self.status != 404 else None
        except UNREADABLE:
            pass
        raise self._undecodable()

    def read_nothing(self) -> None:
        """Check that the response confirms the operation: the documented 204, or another success without a body."""
        if self.status == 404:
            return
        if self.status in _NOT_DONE or self.body.strip():
            raise self.invalid("is not empty, but should be" if self.body else "does not confirm that it is done")

    def invalid(self, problem: str) -> DatabaseClientError:
        """Make the error for a success that does not fit, with the message "the answer" followed by ``problem``."""
        self.close()
        failed = self._unusable(f"the answer ({self.status}) {problem}")
        return error_of(self.call, (*self.earlier, failed), self.secrets)

    def failed_try(self, wait: float | None) -> FailedTry | None:
        """Return how the call failed, or None if it succeeded; ``wait`` is for how long a 429 stops all calls."""
        status = self.status
        if 200 <= status < 300:
            return None
        if status == 404 and self.call.operation.method == "DELETE" and was_lost(self.earlier):
            return None  # an earlier try, whose answer was lost, deleted it
        if status < 400:
            return self._undocumented()
        members, asked = self._error_members(), retry_after(self.headers)
        id, message = (self.secrets.line(members.get(key, ""), _MAX_LINE) for key in ("id", "message"))
        kind = _BY_STATUS.get(status, ServerError if status >= 500 else APIError)
        says_taken = any(text in f"{id} {message}".lower() for text in _TAKEN)
        if not self.call.operation.idempotent and says_taken and kind in (ConflictError, UnprocessableEntityError):
            kind = NameTakenError
        error = kind(
            f"{status} {': '.join(filter(None, (id, message))) or _PHRASES.get(status, 'an unknown status')}",
            status=status,
            id=id,
            message=message,
            request_id=self.request_id,
            retry_after=(wait if asked is None else asked) if kind in (RateLimitError, ServerError) else None,
        )
        failure = Failure.FINAL
        if status == 429:
            failure = Failure.THROTTLED
        elif status in LOST_STATUSES:
            failure = Failure.LOST
        applied = failure is Failure.LOST or kind is ServerError
        return FailedTry(failure, error, may_have_applied=applied, timed_out=status in _TIMED_OUT_STATUSES)

    def _undocumented(self) -> FailedTry:
        """Return the failure of a response that is neither a success nor an error, such as a redirect."""
        self.close()
        said = "which is not documented"
        if "location" in self.headers:
            where = self.secrets.line(_host(self.headers["location"]), 200)
            said = f"a redirect to {where}, not followed because the token is only for base_url"
        return self._unusable(f"answered {self.status}, {said}")

    def _unusable(self, text: str) -> FailedTry:
        return FailedTry(Failure.FINAL, InvalidResponseError(text, status=self.status), may_have_applied=True)

    def _error_members(self) -> dict[str, str]:
        """Return the texts of an error's JSON, unmasked."""
        if len(self.body) > _MAX_ERROR:
            return {}
        try:
            members = parse(self.body)
        except (ValueError, RecursionError):
            return {}
        if not isinstance(members, dict):
            return {}
        return {str(key): value for key, value in members.items() if isinstance(value, str)}

    def _undecodable(self) -> DatabaseClientError:
        key = self.call.operation.key
        return self.invalid(f"is not the documented JSON object with {key!r}" if key else "is not JSON")


def spelling(name: str) -> str:
    """Return ``name`` without case and surrounding white space, which a server may change."""
    return name.strip().casefold()


def _host(location: str) -> str:
    return location.partition("://")[2].partition("/")[0].rpartition("@")[2] or "another path"
