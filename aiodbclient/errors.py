"""Every exception that this package raises.

``DatabaseClientError`` is the root. ``may_have_applied`` tells whether the request may have taken effect although it
failed, which decides whether it can simply be sent again. No message, attribute or traceback holds a password or a
token.
"""

from __future__ import annotations


class DatabaseClientError(Exception):
    """The root of everything that this package raises.

    ``may_have_applied``: the request may have taken effect on the server although it failed.
    ``tries``: how many times it was sent or tried before giving up (0 where nothing was tried).
    """

    def __init__(self, message: str, *, may_have_applied: bool = False) -> None:
        super().__init__(message)
        self.may_have_applied = may_have_applied
        self.tries = 0

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} (after {self.tries} tries)" if self.tries > 1 else text


class ConfigurationError(DatabaseClientError):
    """The client cannot work as it was set up or is used: no token, a token over plain http, closed, another event
    loop.
    """


class InvalidArgumentError(DatabaseClientError, ValueError):
    """An argument that cannot be right. Nothing was sent."""


class UnsupportedOperationError(DatabaseClientError):
    """The guard: the cluster's engine cannot do this. Nothing was sent."""

    def __init__(self, message: str, *, engine: str = "", operation: str = "") -> None:
        super().__init__(message)
        self.engine = engine
        self.operation = operation


class SettingsDifferError(DatabaseClientError):
    """A user that was there before has other settings than ``provision`` was asked for. It was left as it is.

    Attributes:
        settings: The names of the settings that differ, such as ``"settings.acl"``.
    """

    def __init__(self, message: str, *, settings: tuple[str, ...] = (), may_have_applied: bool = False) -> None:
        super().__init__(message, may_have_applied=may_have_applied)
        self.settings = settings


class TransportError(DatabaseClientError):
    """No answer came."""


class ConnectError(TransportError):
    """No connection could be made. Nothing was sent."""


class ConnectionLostError(TransportError):
    """The connection broke after the request was, or may have been, sent."""


class RequestTimeoutError(TransportError, TimeoutError):
    """No whole answer within ``timeout`` seconds after the request was, or may have been, sent."""


class ClusterNotOnlineError(DatabaseClientError, TimeoutError):
    """The cluster was not online in time. ``status`` is what it told last, or None where it never answered."""

    def __init__(self, message: str, *, status: str | None = None) -> None:
        super().__init__(message)
        self.status = status


class InvalidResponseError(DatabaseClientError):
    """An answer that is not of the documented shape: HTML, cut JSON, other JSON, a redirect.

    ``body`` is the beginning of what came, at most 2,000 characters, with credentials masked.
    """

    def __init__(self, message: str, *, status: int = 0, body: str = "", may_have_applied: bool = False) -> None:
        super().__init__(message, may_have_applied=may_have_applied)
        self.status = status
        self.body = body


class APIError(DatabaseClientError):
    """The API answered with an error.

    ``status`` is HTTP's. ``id`` is the API's short name of the error and ``message`` its explanation (both bounded, and
    empty where the body had none). Tell the provider's support the ``request_id``.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int = 0,
        id: str = "",
        message: str = "",
        request_id: str | None = None,
        may_have_applied: bool = False,
    ) -> None:
        super().__init__(text, may_have_applied=may_have_applied)
        self.status = status
        self.id = id
        self.message = message
        self.request_id = request_id


class BadRequestError(APIError):
    """400: the API could not read the request."""


class AuthenticationError(APIError):
    """401: the token is missing, wrong or expired."""


class PermissionDeniedError(APIError):
    """403: the token lacks a scope that this operation needs."""


class NotFoundError(APIError):
    """404: no such cluster, user or db.

    A fresh one can answer so for a moment (terraform-provider-digitalocean #493).
    """


class ConflictError(APIError):
    """409: it exists, or its state does not allow the operation."""


class PreconditionFailedError(APIError):
    """412: the cluster is not in a state that allows the operation."""


class UnprocessableEntityError(APIError):
    """422: understood and refused: a name that is taken, a setting that cannot be."""


class RateLimitError(APIError):
    """429, or a wait for the rate budget that would be longer than ``max_wait`` (then nothing was sent).

    ``retry_after``: seconds until it is worth trying again, or None where nothing told.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int = 429,
        id: str = "too_many_requests",
        message: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
        may_have_applied: bool = False,
    ) -> None:
        super().__init__(
            text,
            status=status,
            id=id,
            message=message,
            request_id=request_id,
            may_have_applied=may_have_applied,
        )
        self.retry_after = retry_after


class ServerError(APIError):
    """5xx: the API failed, possibly after it did the work.

    ``retry_after``: the seconds that it asked to wait, or None.
    """

    retry_after: float | None = None


class StoreError(DatabaseClientError):
    """The store of the tenants' credentials cannot be read or written: a lost connection, a full disk, a corrupt row.

    What was on record before still is. Where the connection to the store broke, the change that failed may be on record
    all the same: ``get`` shows it once the store works again.
    """


class ClaimLostError(StoreError):
    """The claim on a tenant's name ended, or somebody else took it over. The store changed nothing."""


class GrantError(DatabaseClientError):
    """A tenant's database server refused a statement, or could not be reached to run it.

    ``tenant`` is the name, ``statement`` what was refused (it holds no secret; empty where it did not come to one), and
    ``on_record`` says what the store holds of the tenant now. Run it again once the reason is gone: it goes on there.
    """

    def __init__(self, message: str, *, tenant: str = "", statement: str = "", on_record: str = "") -> None:
        super().__init__(message, may_have_applied=True)
        self.tenant = tenant
        self.statement = statement
        self.on_record = on_record

    def __str__(self) -> str:
        parts = [super().__str__()]
        if self.statement:
            parts.append(f"the statement was: {self.statement}")
        if self.on_record:
            parts.append(self.on_record)
        return "; ".join(parts)
