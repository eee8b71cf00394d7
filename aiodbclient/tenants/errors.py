"""The exceptions of tenants. Pure."""

from __future__ import annotations

from ..errors import DatabaseClientError, InvalidArgumentError


class TenantNotFoundError(InvalidArgumentError):
    """The tenant has no credential on record: it is unknown, or its creation or removal is not finished.

    A web backend can answer 404.
    """


class CapacityError(DatabaseClientError):
    """All clusters of a ``Tenants`` are full: each has ``max_tenants`` tenants. Nothing was sent, nothing is on record.

    Give ``Tenants`` another cluster, or a larger ``max_tenants``.
    """


class StoreError(DatabaseClientError):
    """The store of the tenants' credentials cannot be read or written: a lost connection, a full disk, a corrupt row.

    Stored records are not lost. If the connection to the store broke, the store may have applied the failed change.
    When the store works again, ``get`` shows whether it did.

    Attributes:
        damaged: The names of the records that cannot be read, while all others can; empty if the whole store failed.
    """

    damaged: tuple[str, ...] = ()


class ClaimLostError(StoreError):
    """The claim on a tenant's name ended, or another process took it over. The store changed nothing."""


class TenantUnavailableError(DatabaseClientError):
    """The tenant exists, and no login of it can be used now. The subclass says why.

    Attributes:
        retry_after: Seconds after which to try again; None if that does not help.
    """

    retry_after: float | None = None


class SuspendedError(TenantUnavailableError):
    """The tenant is suspended until ``resume``. Its data stays. A web backend can answer 403."""


class TenantMovingError(TenantUnavailableError):
    """The tenant is being moved to another cluster. A web backend can answer 503, with ``Retry-After``."""

    retry_after: float | None = 5.0


class TenantBusyError(TenantUnavailableError):
    """Another process works on the tenant. A web backend can answer 503, with ``Retry-After``."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RotationPendingError(DatabaseClientError):
    """The tenant's previous credential is not revoked yet. Another rotation would revoke it.

    Call ``revoke_previous`` when every program uses the new credential, then ``rotate``. Or call
    ``rotate(force=True)``.
    """


class MoveError(DatabaseClientError):
    """A tenant could not be moved to another cluster. The message says why, and where the tenant is.

    Unless the message says otherwise, it is where it was, and works. Its ``__cause__`` is the error of a server.
    """


class GrantError(DatabaseClientError):
    """A tenant's database server refused a statement, or could not be reached to run it.

    Fix the cause, then repeat the call: it continues where it stopped.

    Attributes:
        tenant: The name of the tenant.
        statement: The refused statement, without secrets; empty if there was none.
        on_record: A text that says what the store now holds for the tenant.
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
        text = "; ".join(parts)  # a tenant chooses names in it, and a terminal would obey their escape sequences
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
