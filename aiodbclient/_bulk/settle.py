"""Create a user or database, and find out what happened if the answer to the create is lost.

A single create is never sent again by the client: the second one would be refused because of what the first one made,
and the name alone does not show who made it. A bulk run knows which names were there before it began, so it can do
more. ``create_settled`` follows these rules:

1. The create succeeds: the name is ours.
2. It is refused with 409 or 422. If the refusal says that the name is taken, the name is read until it can be seen (a
   fresh one may answer 404 for a moment), and is not ours. If the refusal says something else, the name is read once:
   if it is there, it is not ours; if it is not there, the refusal is raised.
3. It fails with its answer not lost (``was_lost``): the error is raised.
4. Its answer is lost or unreadable. After a wait of the client's retry schedule the name is read.
   a. It is there: it is ours.
   b. It is not there: it is created again. Success: it is ours. A 409 or 422: the lost create was done after all, so
      the name is read until it can be seen, and is ours. Another lost answer: 4 begins again, at most ``max_tries``
      times in all.
5. Any error that ends 4 is raised with ``may_have_applied`` set, since the first create may have been done.

Whether a user was there before the run is known from the list that the run reads at its start. Where the API returns no
passwords (MongoDB, or a token without the scope), a lost password is replaced by a new one, and that must not happen to
a user that somebody else made. So each name is then also read right before its create, and no user is given a new
password if the users could not be listed.

One case cannot be detected: somebody else creates the name after that list (or read), and before the server gets our
create, or while 4 waits. Such a name is taken for ours. The user is CREATED with the password that it has where the API
returns it, and with a new one where it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from .._request.retry import Pauses, RetryPolicy, was_lost
from ..errors import (
    APIError,
    ConflictError,
    DatabaseClientError,
    InvalidResponseError,
    NotFoundError,
    UnprocessableEntityError,
)
from .waits import FIRST, waits

T = TypeVar("T")

# In seconds: how long a fresh user or db may answer 404 to a read (terraform-provider-digitalocean #493) or return an
# empty password (Aiven, who runs the databases for the provider, says so of its API), and the first of the doubling
# waits between two reads of it.
FRESH = 10.0
LOOK = FIRST

# The API description has no answer for a name that is taken; for a connection pool the provider says "pool name is not
# available" (terraform-provider-digitalocean #925).
_TAKEN = ("already", "exists", "taken", "in use", "duplicate", "not available")

Request = Callable[[], Awaitable[T]]


async def create_settled(create: Request[T], read: Request[T], retry: RetryPolicy) -> tuple[bool, T]:
    """Create a user or database, and settle it if the answer is lost, by the rules above.

    A cancelled call may have been applied.

    Args:
        create: Sends the create.
        read: Reads the name that ``create`` makes. It raises NotFoundError if the name is not there.
        retry: The client's policy: how often and how long to wait for a lost create to be seen.

    Returns:
        Whether it is ours, and what is there now.

    Raises:
        DatabaseClientError: It was refused, or could not be settled; ``may_have_applied`` says which.
    """
    try:
        return True, await create()
    except (ConflictError, UnprocessableEntityError) as refusal:
        return False, await _taken(read, refusal, retry)
    except DatabaseClientError as error:
        if not was_lost(error):
            raise
        lost = error
    return True, await _settle(create, read, lost, retry)


async def readable(request: Request[T], retry: RetryPolicy) -> T:
    """Make a request, and make it again while its answer cannot be read (InvalidResponseError).

    Args:
        request: What to do. It must be safe to repeat.
        retry: How often in all, and how long to wait in between.

    Raises:
        DatabaseClientError: Any other error, at once; InvalidResponseError from the last try.
    """
    pauses = Pauses(retry)
    for _ in range(retry.max_tries - 1):
        try:
            return await request()
        except InvalidResponseError as error:
            pause = pauses.after(error)
        await asyncio.sleep(pause)
    return await request()


def says_taken(refusal: APIError) -> bool:
    """Whether ``refusal`` says that the name is taken."""
    text = f"{refusal.id} {refusal.message}".lower()
    return any(word in text for word in _TAKEN)


async def _settle(create: Request[T], read: Request[T], lost: DatabaseClientError, retry: RetryPolicy) -> T:
    """Rule 4: read what a create whose answer was lost has made, or create it again."""
    pauses = Pauses(retry)
    try:
        for _ in range(retry.max_tries):
            await asyncio.sleep(pauses.after(lost))
            with suppress(NotFoundError):
                return await readable(read, retry)
            try:
                return await create()
            except (ConflictError, UnprocessableEntityError) as refusal:
                return await _once_visible(read, refusal, retry)
            except DatabaseClientError as error:
                if not was_lost(error):
                    raise
                lost = error
    except DatabaseClientError as error:
        lost = error
    raise unsettled(lost, "it may have been created, which could not be settled")


async def _taken(read: Request[T], refusal: APIError, retry: RetryPolicy) -> T:
    """Rule 2: read what was there before our create, or raise ``refusal`` if nothing was."""
    if says_taken(refusal):
        return await _once_visible(read, refusal, retry)
    try:
        return await readable(read, retry)
    except NotFoundError:
        raise refusal from None


async def _once_visible(read: Request[T], refusal: APIError, retry: RetryPolicy) -> T:
    """Read until it is there, at most ``FRESH`` seconds; then raise ``refusal``."""
    for wait in looks():
        await asyncio.sleep(wait)
        with suppress(NotFoundError):
            return await readable(read, retry)
    raise refusal


def looks() -> Iterator[float]:
    """Yield the seconds to wait before each read of something fresh that the API does not return yet."""
    return waits(FRESH, first=LOOK)


def unsettled(error: DatabaseClientError, state: str) -> DatabaseClientError:
    """Add ``state``, which is all that is known of the name now, to ``error``, and set its ``may_have_applied``."""
    error.may_have_applied = True
    error.args = (f"{state}: {error.args[0]}",)
    return error
