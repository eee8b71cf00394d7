"""What a client tells of each request, for metrics."""

from __future__ import annotations

from attrs import frozen


@frozen
class RequestEvent:
    """One request, sent and answered or failed. It holds no name of a user or db and no credential.

    Attributes:
        operation: Like ``"users.create"``.
        method: HTTP's.
        status: HTTP's, or None where no answer came.
        error: The name of the exception where no answer came, else None.
        attempt: Counts from 1, so what is above it is a retry.
        waited: Seconds spent waiting for the rate budget before it was sent.
        duration: Seconds from sending to the whole answer.
        blocked: Seconds spent waiting for another user write on the cluster to end, before it was sent. MongoDB bears
            one at a time.
        request_id: What the provider's support asks for, where the answer told it.
    """

    operation: str
    method: str
    status: int | None
    error: str | None
    attempt: int
    waited: float
    duration: float
    blocked: float = 0.0
    request_id: str | None = None
