"""Creating a name and settling it when the answer is lost.

A create is not sent again by the client, since a second one would meet the first one's work as "exists", and nothing
but the name tells whose work that is. A bulk run can do more, because it knows which names were there before it began.
What it does, which reviewers can hold the code against:

1. The create is answered with success: the name is ours.
2. It is refused with a 409 or 422. Where the refusal says that the name is taken, it is read until it can be seen (a
   fresh one may answer 404 for a moment) and is not ours. Where the refusal says something else, it is read once: if it
   is there, it is not ours; if it is not, the refusal is raised.
3. It fails, and it is known that nothing was done (``may_have_applied`` is False): the error is raised.
4. It fails, and may have been done. After a wait of the client's retry schedule the name is read. If it is there, it is
   ours. If it is not there, it is created again: success is ours, a refusal as "exists" means that the lost create came
   through after all, and the name is read until it can be seen and is ours; another lost answer begins 4 again, as
   often as the retry policy allows tries.
5. Whatever error ends this is raised with ``may_have_applied`` set, since it was so before.

Whether a user was there before is what the run's list told at its start. Where the API tells no passwords (MongoDB, or
a token without the scope), a lost one is replaced, which must not happen to a user of somebody else's: there each name
is also read right before its create, and where the users could not be listed none is given a new password.

What remains, since nothing can tell it: a name that somebody else created after that list (or read) was answered, and
before the server got the create whose answer was lost, is taken for ours. So is one that somebody else creates while 4
waits. Where the API tells the password such a user is CREATED with the password that it has; where it does not, it is
given a new one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Protocol, TypeVar

from .._request.retry import Pauses, RetryPolicy
from ..errors import (
    APIError,
    ConflictError,
    DatabaseClientError,
    InvalidResponseError,
    NotFoundError,
    UnprocessableEntityError,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# How long a fresh user or db may answer 404 to a read (terraform-provider-digitalocean #493) or tell an empty password
# (Aiven, whose service it is, says so of its API), and the first of the doubling waits between looking, in seconds.
FRESH = 10.0
LOOK = 0.25

# The API description has no answer for a name that is taken; for a connection pool the provider says "pool name is not
# available" (terraform-provider-digitalocean #925).
_TAKEN = re.compile(r"already|exists|taken|in use|duplicate|not available", re.IGNORECASE)


class Thing(Protocol[T_co]):
    """A user or database that is to be there, by the two calls that make and read it."""

    async def create(self) -> T_co:
        """Send the create."""
        ...

    async def get(self) -> T_co:
        """Read it. Raises NotFoundError where it is not there."""
        ...


async def create_settled(thing: Thing[T], retry: RetryPolicy) -> tuple[bool, T]:
    """Create ``thing``, and settle it if the answer is lost.

    Args:
        thing: What is to be there.
        retry: The client's policy: how often and how patiently to look.

    Returns:
        Whether what is there now was made by this, and what is there now.

    Raises:
        DatabaseClientError: It was refused, or could not be settled; ``may_have_applied`` tells which.
    """
    try:
        return True, await thing.create()
    except (ConflictError, UnprocessableEntityError) as refusal:
        return False, await _taken(thing, refusal, retry)
    except DatabaseClientError as error:
        if not error.may_have_applied:
            raise
        lost = error
    return True, await _settle(thing, lost, retry)


async def readable(call: Callable[[], Awaitable[T]], retry: RetryPolicy) -> T:
    """What ``call`` gives. It is made again where its answer cannot be read, so it must be safe to repeat."""
    pauses = Pauses(retry)
    for _ in range(retry.max_tries - 1):
        try:
            return await call()
        except InvalidResponseError as error:
            pause = pauses.after(error)
        await asyncio.sleep(pause)
    return await call()


def says_taken(refusal: APIError) -> bool:
    """Whether ``refusal`` says that the name is taken."""
    return _TAKEN.search(f"{refusal.id} {refusal.message}") is not None


async def _settle(thing: Thing[T], lost: DatabaseClientError, retry: RetryPolicy) -> T:
    """What a create whose answer was lost has made, or else makes now."""
    pauses = Pauses(retry)
    try:
        for _ in range(retry.max_tries):
            await asyncio.sleep(pauses.after(lost))
            with suppress(NotFoundError):
                return await readable(thing.get, retry)
            try:
                return await thing.create()
            except (ConflictError, UnprocessableEntityError) as refusal:
                return await _once_visible(thing, refusal, retry)
            except DatabaseClientError as error:
                if not error.may_have_applied:
                    raise
                lost = error
    except DatabaseClientError as error:
        lost = error
    raise unsettled(lost, "it may have been created, which could not be settled")


async def _taken(thing: Thing[T], refusal: APIError, retry: RetryPolicy) -> T:
    """What has the name that ``refusal`` says is taken; ``refusal`` itself where it says something else."""
    if says_taken(refusal):
        return await _once_visible(thing, refusal, retry)
    try:
        return await readable(thing.get, retry)
    except NotFoundError:
        raise refusal from None


async def _once_visible(thing: Thing[T], refusal: APIError, retry: RetryPolicy) -> T:
    """What is read, which seems to be there although a fresh one may answer 404 for a while."""
    for wait in looks():
        await asyncio.sleep(wait)
        with suppress(NotFoundError):
            return await readable(thing.get, retry)
    raise refusal


def looks() -> Iterator[float]:
    """The seconds to wait before each look at what is fresh and cannot be seen yet, until it should be."""
    loop = asyncio.get_running_loop()
    deadline, wait = loop.time() + FRESH, LOOK
    yield 0.0
    while loop.time() < deadline:
        yield wait
        wait *= 2


def unsettled(error: DatabaseClientError, state: str) -> DatabaseClientError:
    """``error``, telling that the server's ``state`` is not known."""
    error.may_have_applied = True
    error.args = (f"{state}: {error.args[0]}",)
    return error
