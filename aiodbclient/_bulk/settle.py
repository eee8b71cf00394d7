"""Create a user or database, and find out what happened if the answer to the create is lost.

The client never retries a single create: the API would refuse the second one because of the first, and the name alone
does not show who made it. A bulk run knows which names existed before it started, so it can do more.
``create_and_settle`` follows these rules:

1. The create succeeds: the name is ours.
2. The API refuses it with 409 or 422. After a NameTakenError read the name until it is visible (a new one may answer
   404 for a moment): it is not ours. After another refusal read the name once: if it exists, it is not ours; if not,
   raise the refusal.
3. It fails, but its answer is not lost (``answer_was_lost``): raise the error.
4. Its answer is lost or unreadable. Wait as the retry policy says, then read the name.
   a. It exists: it is ours.
   b. It does not exist: create it again. Success: it is ours. A 409 or 422: the server performed the lost create after
      all, so read the name until it is visible: it is ours. Another lost answer: repeat 4, at most ``max_tries`` times
      in all.
5. Raise any error that ends 4 with ``may_have_applied`` set, because the server may have performed the first create.

The list that the run reads at its start shows which users existed before. If the API returns no passwords (MongoDB, or
a token without the scope), the run replaces a lost password by a new one. It must not do that to a user that somebody
else made. So it also reads each name right before its create, and resets no password if it could not list the users.

One case cannot be detected: somebody else creates the name after that list (or read) and before the server receives our
create, or while 4 waits. The run then treats the name as ours. The user is CREATED with its password if the API returns
it, otherwise with a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from .._backoff import poll
from .._http.call import RetryPolicy
from .._http.retry import answer_was_lost, next_wait, retry_waits, with_message
from ..errors import (
    APIError,
    ConflictError,
    DatabaseClientError,
    InvalidResponseError,
    NameTakenError,
    NotFoundError,
    UnprocessableEntityError,
)

T = TypeVar("T")

# Seconds for which a new user or db may answer 404 (terraform-provider-digitalocean #493) or return an empty password
# (documentation of Aiven, who runs the databases for the provider).
READ_DELAY = 10.0
FIRST_POLL = 0.25  # seconds until the second read
RESET_DELAY = 1.0  # seconds after which the server has performed a reset whose answer could not be read

REFUSED = ConflictError, UnprocessableEntityError
Request = Callable[[], Awaitable[T]]


async def create_and_settle(create: Request[T], read: Request[T], retry: RetryPolicy) -> tuple[bool, T]:
    """Create a user or database by the rules above, and return whether it is ours, and it."""
    try:
        return True, await create()
    except DatabaseClientError as error:
        failure = error
    if answer_was_lost(failure):
        return True, await _settle(create, read, failure, retry)
    if isinstance(failure, REFUSED) and not failure.may_have_applied:
        seconds = READ_DELAY if isinstance(failure, NameTakenError) else 0.0  # 0: read it once
        return False, await _await_visible(read, failure, retry, seconds)
    raise failure


async def send_until_readable(request: Request[T], retry: RetryPolicy, pause: float = 0.0) -> T:
    """Send a request, and repeat it after a ``pause`` or longer while its answer is unreadable."""
    waits, applied, left = retry_waits(retry), False, retry.max_tries
    while True:
        try:
            return await request()
        except DatabaseClientError as error:
            left -= 1
            if not left or not isinstance(error, InvalidResponseError):
                failure = error
                break
            applied |= error.may_have_applied
            wait = next_wait(waits, pause)
        await asyncio.sleep(wait)
    raise unsettled(failure, "an earlier answer was unreadable; the last try") if applied else failure


async def none_if_not_found(call: Awaitable[T]) -> T | None:
    """Return the result of ``call``; None if the API answers 404."""
    try:
        return await call
    except NotFoundError:
        return None


async def _settle(create: Request[T], read: Request[T], lost: DatabaseClientError, retry: RetryPolicy) -> T:
    """Rule 4: read the result of a create whose answer was lost, or create it again."""
    waits = retry_waits(retry)
    try:
        for _ in range(retry.max_tries):
            await asyncio.sleep(next_wait(waits, lost.retry_after if isinstance(lost, APIError) else None))
            with suppress(NotFoundError):
                return await send_until_readable(read, retry)
            try:
                return await create()
            except REFUSED as refusal:
                return await _await_visible(read, refusal, retry, READ_DELAY)
            except DatabaseClientError as error:
                if not answer_was_lost(error):
                    raise
                lost = error
    except DatabaseClientError as error:
        lost = error
    raise unsettled(lost, "it is unknown whether it was created")


async def _await_visible(read: Request[T], refusal: APIError, retry: RetryPolicy, seconds: float) -> T:
    """Read the name until it is visible. Raise ``refusal`` after some seconds."""
    seen = await poll(lambda: none_if_not_found(send_until_readable(read, retry)), seconds, first=FIRST_POLL)
    if seen is None:
        raise refusal
    return seen


def unsettled(error: DatabaseClientError, state: str) -> DatabaseClientError:
    """Return ``error`` for a name that may have been changed. Its message begins with the known state of the name."""
    return with_message(error, f"{state}: {error.args[0]}", may_have_applied=True)
