"""An answer, and the model that it holds. Pure, but for the connection that it may close."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from .._json.converter import SHAPE_ERRORS, ClusterEngine, decoded, decoded_page
from .._json.error_answers import (
    ErrorText,
    error_from_answer,
    error_text,
    excerpt,
    header_request_id,
    undocumented_status,
)
from .._json.masking import Secrets, credentials_in
from .._json.parsing import MOST_VALUES, TooManyValuesError, parsed
from ..errors import DatabaseClientError, InvalidResponseError
from ..models import Cluster, Database, User
from .call import Call

T = TypeVar("T")

# Successes that do not mean that a DELETE is done: 202 is not done yet, 205 and 206 fit no DELETE.
_NOT_DONE = frozenset({202, 205, 206})

_PASSWORD = attrgetter("password")  # of a User; a list may be long
_TOO_MUCH = "is more than there is memory for"
_TOO_MANY = f"holds more than {MOST_VALUES:,} values"


class Closable(Protocol):
    """What an answer came through."""

    def close(self) -> None:
        """Close it, also where it is kept for the next request."""


class Answer:
    """An answer to ``call``, not read yet.

    An answer that does not fit is refused with InvalidResponseError, and its connection is closed: if it was the late
    answer to an earlier request, every later request on it would get the answer to the one before.
    """

    __slots__ = ("_connection", "_secrets", "_told", "body", "call", "headers", "status")

    def __init__(
        self,
        call: Call,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        secrets: Secrets,
        connection: Closable | None,
    ) -> None:
        self.call = call
        self.status = status
        self.headers = headers
        self.body = body
        self._secrets = secrets
        self._connection = connection
        self._told: ErrorText | None = None

    @property
    def request_id(self) -> str | None:
        """What the provider's support asks for, or None."""
        if self.status < 400:
            return header_request_id(self.headers, self._secrets) or None
        return self._error_text().request_id or None

    def read(self, model: type[T]) -> T:
        """The ``model`` that the answer holds.

        Raises:
            InvalidResponseError: It has another shape, or is about another user, db or cluster than was asked for.
        """
        # The error is raised outside of the handlers: what a decoder or cattrs raises quotes the answer, and its
        # credentials.
        try:
            value = decoded(self.body, self.call.operation.key, model)
        except TooManyValuesError:
            problem = _TOO_MANY
        except SHAPE_ERRORS:
            problem = self._other_shape
        except MemoryError:
            problem = _TOO_MUCH
        else:
            self._check_subject(value)
            return value
        raise self.invalid(problem)

    def read_page(self, model: type[T]) -> tuple[list[T], str | None]:
        """As ``read``, for a page of a list: its models, and the URL of the next page, or None."""
        try:
            page, following = decoded_page(self.body, self.call.operation.key, model)
        except TooManyValuesError:
            problem = _TOO_MANY
        except SHAPE_ERRORS:
            problem = self._other_shape
        except MemoryError:
            problem = _TOO_MUCH
        else:
            if model is User:
                self._secrets.learn_list(list(map(_PASSWORD, page)))
            return page, following
        raise self.invalid(problem)

    def read_json(self) -> Any:
        """The JSON of the answer, or None if it has no body.

        Raises:
            InvalidResponseError: The body is not JSON.
        """
        if not self.body.strip():
            return None
        try:
            value = parsed(self.body)
        except TooManyValuesError:
            problem = _TOO_MANY
        except (ValueError, RecursionError):
            problem = "is not JSON"
        except MemoryError:
            problem = _TOO_MUCH
        else:
            self._secrets.learn(credentials_in(value))
            return value
        raise self.invalid(problem)

    def read_nothing(self) -> None:
        """Check that the answer says "done": it is the documented 204, or another success without a body.

        Raises:
            InvalidResponseError: It is another answer, such as the page of a proxy that let nothing through.
        """
        if self.status in _NOT_DONE or self.body.strip():
            raise self.invalid("is not empty, as documented" if self.body else "does not say that it is done")

    def error(self) -> DatabaseClientError:
        """The exception for an answer that is not a success."""
        if self.status >= 400:
            return error_from_answer(self.call.what, self.status, self.headers, self._error_text())
        self._close()
        return undocumented_status(self.call.what, self.status, self.headers, self.body, self._secrets)

    def invalid(self, problem: str) -> InvalidResponseError:
        """The error for a success that is refused; its text is "the answer" and then ``problem``."""
        self._close()
        error = InvalidResponseError(
            f"{self.call.what}: the answer ({self.status}) {problem}",
            status=self.status,
            body=excerpt(self.body, self._secrets),
        )
        self.call.complete(error)
        return error

    def _error_text(self) -> ErrorText:
        # Read once, since the event and the exception need it.
        if self._told is None:
            self._told = error_text(self.headers, self.body, self._secrets)
        return self._told

    @property
    def _other_shape(self) -> str:
        return f"is not the documented JSON object with {self.call.operation.key!r}"

    def _check_subject(self, value: object) -> None:
        found: str | None
        if isinstance(value, User):
            self._secrets.learn((value.password, value.access_key))
            found, asked = value.name, self.call.name
        elif isinstance(value, Database):
            found, asked = value.name, self.call.name
        elif isinstance(value, Cluster):
            self._secrets.learn(_passwords(value))
            found, asked = value.id, self.call.cluster_id
        elif isinstance(value, ClusterEngine):
            found, asked = value.id, self.call.cluster_id
        else:
            return
        if found is None or asked is None or found == asked:
            return
        if (self.call.exact_name and asked is self.call.name) or not is_same_name(found, asked):
            raise self.invalid(f"is about {self._secrets.line(found, 100)!r}, not {asked!r}")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def is_same_name(found: str, asked: str) -> bool:
    """Whether an answer's name is the one that was asked for, but for case and white space at its ends."""
    return found.strip().casefold() == asked.strip().casefold()


def _passwords(cluster: Cluster) -> list[str | None]:
    connections = (
        cluster.connection,
        cluster.private_connection,
        cluster.standby_connection,
        cluster.standby_private_connection,
        cluster.ui_connection,
        cluster.schema_registry_connection,
    )
    return [connection.password for connection in connections if connection is not None] + [
        user.password for user in cluster.users
    ]
