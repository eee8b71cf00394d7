"""The jobs of the bulk runs: what is done for one name, and how a lost answer is settled.

A password is told once, and nothing but the name tells whether a create whose answer was lost has happened. So such a
name is read back, created again where it is not there, and given a new password where it is there and nothing tells the
one that it has. A user that existed before the run has not been created by it, and is never touched by this.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .._request.call import Meter
from .._request.context import ClusterContext
from .._request.retry import RetryPolicy, retrying, waits
from ..engines import CAPABILITIES, Capabilities
from ..errors import (
    APIError,
    ConflictError,
    DatabaseClientError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    UnprocessableEntityError,
)
from ..models import Database, NewUser, User
from .run import Action, Job, Outcome, Run

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from ..dbs import DatabasesAPI
    from ..users import UsersAPI

IfExists = Literal["keep", "reset", "error"]
Result = tuple[Action, User | Database | None]
T = TypeVar("T")

# How long a fresh user or db may answer 404 to a read (terraform-provider-digitalocean #493), and the first of the
# doubling waits between looking, in seconds.
_FRESH = 10.0
_LOOK = 0.25

# The API description has no answer for a name that is taken; for a connection pool the provider says "pool name is not
# available" (terraform-provider-digitalocean #925).
_TAKEN = re.compile(r"already|exists|taken|in use|duplicate|not available", re.IGNORECASE)


def run(
    context: ClusterContext,
    specs: Iterable[Any] | AsyncIterable[Any],
    concurrency: int | None,
    prepare: Callable[[ClusterContext], Awaitable[Callable[[ClusterContext, NewUser], Awaitable[Result]]]],
) -> Run:
    """A run over ``specs``, each a name or a NewUser, with what ``prepare`` makes of the context once, at the start."""
    if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
        raise InvalidArgumentError(f"concurrency must be an int of at least 1, not {concurrency!r}")

    async def setup() -> tuple[Job, int]:
        patient = context.for_bulk(Meter())
        capabilities = CAPABILITIES.get(await patient.learn_engine(), Capabilities())
        do = await prepare(patient)
        return partial(_job, context, do, _Seen()), concurrency or capabilities.concurrent_user_writes

    return Run(specs, setup)


async def _job(
    context: ClusterContext,
    do: Callable[[ClusterContext, NewUser], Awaitable[Result]],
    seen: _Seen,
    given: object,
    meter: Meter,
) -> Outcome:
    spec = NewUser(given) if isinstance(given, str) else given
    name = spec.name if isinstance(spec, NewUser) and isinstance(spec.name, str) else repr(given)
    try:
        if not isinstance(spec, NewUser) or name != spec.name:
            raise InvalidArgumentError(f"a run takes names and NewUsers, not {name}; nothing was sent")
        if not seen.add(name):
            raise InvalidArgumentError(
                f"{name!r} is a duplicate: it came before in this run, and nothing was sent for it"
            )
        action, made = await do(context.for_bulk(meter), spec)
    except Exception as error:  # noqa: BLE001 - one failure, whatever it is, never stops the others
        return Outcome(name, Action.FAILED, error=error, tries=meter.requests)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody cancelled this task: it awaited something that was, such as the caller's token provider.
        lost = DatabaseClientError("what it waited for was cancelled", may_have_applied=meter.requests > 0)
        return Outcome(name, Action.FAILED, error=lost, tries=meter.requests)
    if isinstance(made, Database):
        return Outcome(name, action, db=made, tries=meter.requests)
    return Outcome(name, action, user=made, tries=meter.requests)


class _Seen:
    """The names of a run, in few bytes each, since a run can be long.

    Names are kept as 128-bit digests, one after the other. Such a digest is not found by chance, not even across two.
    """

    def __init__(self) -> None:
        self._buckets = [bytearray() for _ in range(4096)]

    def add(self, name: str) -> bool:
        """Whether ``name`` comes for the first time."""
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        bucket = self._buckets[int.from_bytes(digest[:2]) % len(self._buckets)]
        if digest in bucket:
            return False
        bucket += digest
        return True


async def provision_user(
    users: UsersAPI, spec: NewUser, existing: Mapping[str, User], if_exists: IfExists, retry: RetryPolicy
) -> Result:
    """See to it that the user of ``spec`` is there, as ``UsersAPI.provision`` says."""

    def create() -> Awaitable[User]:
        return users.create(spec.name, spec.mysql_settings, spec.settings, spec.readonly)

    user = existing.get(spec.name)
    if user is None:
        ours, found = await _create(create, lambda: users.get(spec.name), retry)
        if ours:
            return Action.CREATED, found if found.password is not None else await _replace_lost(users, spec, retry)
        user = found
    if if_exists == "keep":
        return Action.KEPT, user
    if if_exists == "reset":
        return Action.RESET, await reset_user(users, spec, retry)
    raise ConflictError(f"the user {spec.name!r} exists, and was left as it is", status=409)


async def provision_db(dbs: DatabasesAPI, name: str, existing: Container[str], retry: RetryPolicy) -> Result:
    """See to it that the database ``name`` is there."""
    if name in existing:
        return Action.KEPT, Database(name)
    ours, db = await _create(lambda: dbs.create(name), lambda: dbs.get(name), retry)
    return Action.CREATED if ours else Action.KEPT, db


async def reset_user(users: UsersAPI, spec: NewUser, retry: RetryPolicy) -> User:
    """Give the user a new password. Raises InvalidResponseError where the answer does not tell it."""
    user = await readable(lambda: users.reset_auth(spec.name, spec.mysql_settings), retry)
    if user.password is None:
        raise InvalidResponseError(
            f"the password of {spec.name!r} was reset, but the API does not tell the new one: "
            "has the token the scope database:view_credentials?",
            may_have_applied=True,
        )
    return user


async def delete(api: UsersAPI | DatabasesAPI, name: str) -> Result:
    """See to it that ``name`` is not there."""
    try:
        await api.delete(name)
    except NotFoundError:
        return Action.ABSENT, None
    return Action.DELETED, None


async def readable(call: Callable[[], Awaitable[T]], retry: RetryPolicy) -> T:
    """What ``call`` gives. It is made again where its answer cannot be read, so it must be safe to repeat."""
    return await retrying(retry, _was_read, call)


def _was_read(error: DatabaseClientError) -> bool:
    return not isinstance(error, InvalidResponseError)


async def _create(
    create: Callable[[], Awaitable[T]], get: Callable[[], Awaitable[T]], retry: RetryPolicy
) -> tuple[bool, T]:
    """Create, settle it if the answer is lost, and tell whether what is there now is ours or was there before."""

    def read() -> Awaitable[T]:
        return readable(get, retry)

    try:
        return True, await create()
    except (ConflictError, UnprocessableEntityError) as refusal:
        return False, await _taken(read, refusal)
    except DatabaseClientError as error:
        if not error.may_have_applied:
            raise
        lost = error
    return True, await _settle(create, read, lost, retry)


async def _settle(
    create: Callable[[], Awaitable[T]], read: Callable[[], Awaitable[T]], lost: DatabaseClientError, retry: RetryPolicy
) -> T:
    """What a create whose answer was lost has made, or else makes now."""
    try:
        delays = waits(retry)
        next(delays)
        for _ in range(retry.max_tries):
            await asyncio.sleep(delays.send(lost))
            with suppress(NotFoundError):
                return await read()
            try:
                return await create()
            except (ConflictError, UnprocessableEntityError) as refusal:
                return await _once_visible(read, refusal)
            except DatabaseClientError as error:
                if not error.may_have_applied:
                    raise
                lost = error
    except DatabaseClientError as error:
        lost = error
    raise _unsettled(lost, "it may have been created, which could not be settled")


async def _replace_lost(users: UsersAPI, spec: NewUser, retry: RetryPolicy) -> User:
    try:
        return await reset_user(users, spec, retry)
    except DatabaseClientError as error:
        failure = error
    raise _unsettled(failure, "it was created, but its password was lost and could not be reset")


async def _taken(read: Callable[[], Awaitable[T]], refusal: APIError) -> T:
    """What has the name that ``refusal`` says is taken; ``refusal`` itself where it says something else."""
    if _TAKEN.search(f"{refusal.id} {refusal.message}"):
        return await _once_visible(read, refusal)
    try:
        return await read()
    except NotFoundError:
        raise refusal from None


async def _once_visible(read: Callable[[], Awaitable[T]], refusal: APIError) -> T:
    """What ``read`` reads, which seems to be there although a fresh one may answer 404 for a while."""
    loop = asyncio.get_running_loop()
    deadline, wait = loop.time() + _FRESH, _LOOK
    while True:
        try:
            return await read()
        except NotFoundError:
            if loop.time() >= deadline:
                raise refusal from None
        await asyncio.sleep(wait)
        wait *= 2


def _unsettled(error: DatabaseClientError, state: str) -> DatabaseClientError:
    error.may_have_applied = True
    error.args = (f"{state}: {error.args[0]}",)
    return error
