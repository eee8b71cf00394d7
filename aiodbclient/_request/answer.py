"""A successful answer, and the model that it holds. Pure."""

from __future__ import annotations

import json
from typing import TypeVar

from .._json.converter import SHAPE_ERRORS, decoded, decoded_page
from .._json.error_answers import excerpt
from ..errors import InvalidResponseError
from .call import Call

T = TypeVar("T")


class Answer:
    """A successful answer to ``call``, not read yet."""

    __slots__ = ("body", "call", "status")

    def __init__(self, call: Call, status: int, body: bytes) -> None:
        self.call = call
        self.status = status
        self.body = body

    def read(self, model: type[T]) -> T:
        """The ``model`` that the answer holds. Raises InvalidResponseError where it is not of that shape."""
        # The error is raised outside of the handler: what a decoder or cattrs raises quotes the answer, and its
        # credentials.
        key = self.call.operation.key
        assert key is not None
        try:
            return decoded(self.body, key, model)
        except SHAPE_ERRORS:
            pass
        raise self.invalid(f"is not the documented JSON object with {key!r}", body=excerpt(self.body))

    def read_page(self, model: type[T]) -> tuple[list[T], str | None]:
        """As ``read``, for a list: what is on this page, and the address of the next one, if there is one."""
        key = self.call.operation.key
        assert key is not None
        try:
            return decoded_page(self.body, key, model)
        except SHAPE_ERRORS:
            pass
        raise self.invalid(f"is not the documented JSON object with {key!r}", body=excerpt(self.body))

    def read_nothing(self) -> None:
        """See that the answer is the API's, which documents an empty one here.

        Raises InvalidResponseError where it holds anything but JSON, such as the page of a proxy that let nothing
        through.
        """
        if not self.body.strip():
            return
        try:
            json.loads(self.body)
        except (ValueError, RecursionError):
            pass
        else:
            return
        raise self.invalid("is not empty, as documented", body=excerpt(self.body))

    def invalid(self, problem: str, body: str = "") -> InvalidResponseError:
        """The error for an answer that cannot be taken: ``problem`` goes on after "the answer"."""
        error = InvalidResponseError(
            f"{self.call.what}: the answer ({self.status}) {problem}",
            status=self.status,
            body=body,
            may_have_applied=self.call.operation.writes,
        )
        error.tries = self.call.tries
        return error
