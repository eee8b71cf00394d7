"""Read an HTTP answer into a model. Pure, except that it may close the connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .._json.converter import SHAPE_ERRORS, ClusterEngine, decoded, decoded_page
from .._json.error_answers import (
    ErrorText,
    error_from_answer,
    error_text,
    excerpt,
    header_request_id,
    undocumented_status,
)
from .._json.masking import Secrets
from .._json.parsing import MOST_VALUES, TooManyValuesError, parsed
from ..engines import is_case_sensitive
from ..errors import DatabaseClientError, InvalidResponseError
from ..models import Cluster, Database, User
from .call import Call
from .operations import Kind

T = TypeVar("T")

# Success statuses that do not confirm a DELETE: 202 means "not done yet"; 205 and 206 make no sense for a DELETE.
_NOT_DONE = frozenset({202, 205, 206})
_WITH_CREDENTIALS = (User, Cluster)


class Response:
    """The unread answer to ``call``.

    If the answer does not fit the call, it raises InvalidResponseError and closes the connection. The answer may be a
    late one to an earlier request, and then every later request on this connection would get the wrong answer.
    """

    __slots__ = ("_close", "_error", "_secrets", "body", "call", "headers", "status")

    def __init__(
        self,
        call: Call,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        secrets: Secrets,
        close: Callable[[], object],
    ) -> None:
        self.call = call
        self.status = status
        self.headers = headers
        self.body = body
        self._secrets = secrets
        self._close = close  # closes the connection, even if it is back in the pool
        self._error: ErrorText | None = None

    @property
    def request_id(self) -> str | None:
        """The id that the provider's support asks for, or None."""
        if self.status < 400:
            return header_request_id(self.headers, self._secrets) or None
        return self._error_text().request_id or None

    def read(self, model: type[T]) -> T:
        """Return the ``model`` in the answer."""
        value = self._decoded(lambda: decoded(self.body, self.call.operation.key, model))
        if model in _WITH_CREDENTIALS:
            self._secrets.keep(self.body)
        self._check_subject(value)
        return value

    def read_page(self, model: type[T]) -> tuple[list[T], str | None]:
        """Return the models on this page of a list, and the URL of the next page or None."""
        operation = self.call.operation
        page = self._decoded(lambda: decoded_page(self.body, operation.key, model, operation.other_key))
        if model in _WITH_CREDENTIALS:
            self._secrets.keep(self.body)
        return page

    def read_json(self) -> Any:
        """Return the JSON of the answer, or None if it has no body."""
        if not self.body.strip():
            return None
        value = self._decoded(lambda: parsed(self.body))
        self._secrets.keep(self.body)
        return value

    def read_nothing(self) -> None:
        """Check that the answer confirms the operation: the documented 204, or another success without a body."""
        if self.status in _NOT_DONE or self.body.strip():
            raise self.invalid("is not empty, as documented" if self.body else "does not confirm that it is done")

    def error(self) -> DatabaseClientError:
        """Make the exception for an answer that is not a success."""
        if self.status >= 400:
            to_create = self.call.operation.kind is Kind.CREATE
            return error_from_answer(self.call.what, self.status, self.headers, self._error_text(), to_create=to_create)
        self._close()
        return undocumented_status(self.call.what, self.status, self.headers, self.body, self._secrets)

    def invalid(self, problem: str) -> InvalidResponseError:
        """Make the error for a success that does not fit. Its message is "the answer" followed by ``problem``."""
        self._close()
        error = InvalidResponseError(
            f"{self.call.what}: the answer ({self.status}) {problem}",
            status=self.status,
            body=excerpt(self.body, self._secrets),
        )
        self.call.complete(error)
        return error

    def _error_text(self) -> ErrorText:
        # Cached: both the event and the exception need it.
        if self._error is None:
            self._error = error_text(self.headers, self.body, self._secrets)
        return self._error

    def _decoded(self, decode: Callable[[], T]) -> T:  # not a partial: its repr would show the body
        try:
            return decode()
        except TooManyValuesError:
            problem = f"holds more than {MOST_VALUES:,} values"
        except MemoryError:
            problem = "does not fit into memory"
        except SHAPE_ERRORS:
            key = self.call.operation.key
            problem = f"is not the documented JSON object with {key!r}" if key else "is not JSON"
        # Not in the handlers, where it would be chained: errors of the decoder and of cattrs quote credentials.
        raise self.invalid(problem)

    def _check_subject(self, value: object) -> None:
        found: str | None
        if isinstance(value, User | Database):
            found, asked = value.name, self.call.name
        elif isinstance(value, Cluster | ClusterEngine):
            found, asked = value.id, self.call.cluster_id
        else:
            return
        if found is None or asked is None or found == asked:
            return
        is_exact = asked is self.call.name and is_case_sensitive(self.call.engine, self.call.operation.on)
        if is_exact or spelling(found) != spelling(asked):
            raise self.invalid(f"is about {self._secrets.line(found, 100)!r}, not {asked!r}")


def spelling(name: str) -> str:
    """Return ``name`` without case and surrounding white space, which a server may change."""
    return name.strip().casefold()
