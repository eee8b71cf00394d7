"""The exceptions of this package, except those of tenants and ``BulkError``. Pure.

``DatabaseClientError`` is the base class. Its ``may_have_applied`` says whether the call may have taken effect although
it failed. If it is false, you can send the call again.

```text
DatabaseClientError
    ConfigurationError            InvalidArgumentError (a ValueError)
    UnsupportedOperationError     MaxWaitError
    ClusterNotOnlineError (a TimeoutError)                        InvalidResponseError
    TransportError
        ConnectError              ConnectionLostError             RequestTimeoutError (a TimeoutError)
    APIError
        BadRequestError           AuthenticationError             PermissionDeniedError
        NotFoundError             ConflictError                   PreconditionFailedError
        UnprocessableEntityError  RateLimitError                  ServerError
            NameTakenError (a ConflictError and an UnprocessableEntityError)
```

No message and no attribute holds a password or a token. They quote nothing of the API's answers but the id, the message
and the request id of an error. In these they mask the token, the provider's passwords (``AVNS_...``) and the values of
``password``. A traceback with local variables does not show these secrets either, unless code that you gave to your
``aiohttp.ClientSession`` raised the exception.
"""

from __future__ import annotations


class DatabaseClientError(Exception):
    """The base class of the exceptions of this package, but ``BulkError``.

    The message describes the whole call: "it was not sent" means that no try of it was sent.

    Attributes:
        may_have_applied: Whether the call may have taken effect on the server although it failed.
        tries: The number of tries. One that could not connect counts too.
        advice: What a program can do now. It is the end of the message; empty if the message has none.
    """

    def __init__(self, message: str, *, may_have_applied: bool = False, advice: str = "") -> None:
        super().__init__(message)
        self.may_have_applied = may_have_applied
        self.tries: int = 0
        self.advice = advice

    def __str__(self) -> str:
        text = f"{super().__str__()}: {self.advice}" if self.advice else super().__str__()
        return f"{text} (after {self.tries} tries)" if self.tries > 1 else text


class ConfigurationError(DatabaseClientError):
    """The setup or the use of the client is invalid.

    The token is missing, is not valid in a header, or would be sent without encryption; or the client is closed, or was
    first used on another event loop.
    """


class InvalidArgumentError(DatabaseClientError, ValueError):
    """An argument is invalid. Nothing was sent."""


class UnsupportedOperationError(DatabaseClientError):
    """The cluster's engine does not support this. Nothing was sent, except to read the engine if it was unknown.

    Attributes:
        engine: The engine of the cluster.
        operation: What is not supported, like ``"users.create"``.
    """

    def __init__(self, message: str, *, engine: str = "", operation: str = "") -> None:
        super().__init__(message)
        self.engine = engine
        self.operation = operation


class TransportError(DatabaseClientError):
    """The client got no complete answer."""


class ConnectError(TransportError):
    """The last try could not connect. The message says whether an earlier try was sent."""


class ConnectionLostError(TransportError):
    """The connection broke after the request was, or may have been, sent."""


class RequestTimeoutError(TransportError, TimeoutError):
    """The client got no complete answer within ``timeout`` seconds."""


class ClusterNotOnlineError(DatabaseClientError, TimeoutError):
    """The cluster was not online in time.

    Attributes:
        status: The last status that the API returned, or None.
    """

    def __init__(self, message: str, *, status: str | None = None, may_have_applied: bool = False) -> None:
        super().__init__(message, may_have_applied=may_have_applied)
        self.status = status


class InvalidResponseError(DatabaseClientError):
    """The answer is not what the API documents for this request.

    It is HTML, truncated JSON, other JSON, or a redirect; it is larger than 32 MiB; or it is about another user,
    database or cluster. Or the client could not read the new password after a reset.

    Attributes:
        status: The HTTP status, or 0 if the error is not about one answer.
    """

    def __init__(self, message: str, *, status: int = 0, may_have_applied: bool = False) -> None:
        super().__init__(message, may_have_applied=may_have_applied)
        self.status = status


class APIError(DatabaseClientError):
    """The API answered with an error.

    Attributes:
        status: The HTTP status.
        id: The API's short name of the error, at most 500 characters on one line; empty if there is none.
        message: The API's explanation, with the same bounds.
        request_id: The id that the provider's support asks for, or None.
        retry_after: Of a RateLimitError or ServerError: seconds until you should try again, or None.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int = 0,
        id: str = "",
        message: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
        may_have_applied: bool = False,
        advice: str = "",
    ) -> None:
        super().__init__(text, may_have_applied=may_have_applied, advice=advice)
        self.status = status
        self.id = id
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after


class BadRequestError(APIError):
    """400: the API could not read the request."""


class AuthenticationError(APIError):
    """401: the token is missing, wrong or expired."""


class PermissionDeniedError(APIError):
    """403: the token lacks a scope that this operation needs."""


class NotFoundError(APIError):
    """404: no such cluster, user or database.

    The API can answer this for a moment after a create (terraform-provider-digitalocean #493).
    """


class ConflictError(APIError):
    """409: the state of the user or database does not allow the operation."""


class PreconditionFailedError(APIError):
    """412: the cluster is not in a state that allows the operation."""


class UnprocessableEntityError(APIError):
    """422: the API refuses the content, such as an invalid setting."""


class NameTakenError(ConflictError, UnprocessableEntityError):
    """409 or 422: the name is taken: a user or database of this name exists."""


class RateLimitError(APIError):
    """429: the API's rate limit is used up."""


class ServerError(APIError):
    """5xx: the API failed, possibly after it did the work."""


class MaxWaitError(DatabaseClientError):
    """The call would wait longer than ``max_wait`` for the rate limit or, on MongoDB, for other user writes.

    The last try was not sent. ``may_have_applied`` describes the earlier tries.

    Attributes:
        retry_after: Seconds until you should try again, or None if that is not known.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, may_have_applied: bool = False) -> None:
        super().__init__(message, may_have_applied=may_have_applied)
        self.retry_after = retry_after
