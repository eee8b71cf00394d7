"""What a client tells of each request, for metrics."""

from __future__ import annotations

from attrs import frozen


@frozen
class RequestEvent:
    """One request, sent and answered or failed. It holds no name of a user or db and no credential.

    ``operation`` is like ``"users.create"``. ``status`` is HTTP's, or None where no answer came; ``error`` is then the
    name of the exception. ``attempt`` counts from 1, so what is above it is a retry. ``waited`` is the seconds spent
    waiting for the rate budget before it was sent, and ``duration`` those from sending to the whole answer.
    """

    operation: str
    method: str
    status: int | None
    error: str | None
    attempt: int
    waited: float
    duration: float
