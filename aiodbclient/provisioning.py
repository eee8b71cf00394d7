"""The jobs of the bulk runs: what is done for one name, and how a lost answer is settled.

A password is told once, and nothing but the name tells whether a create whose answer was lost has happened. So such a
name is read back, created again where it is not there, and given a new password where it is there and nothing tells the
one that it has. A user that existed before the run has not been created by it, and is never touched by this.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import backoff

from .bulk import Action, Job, Outcome, Run
from .calls import Meter
from .engines import CAPABILITIES, Capabilities
from .errors import (
    APIError,
    ConflictError,
    DatabaseClientError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    UnprocessableEntityError,
)
from .models import Database, NewUser, User
from .operations import RetryPolicy
from .scope import Scope

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from .dbs import DatabasesAPI
    from .users import UsersAPI

IfExists = Literal["keep", "reset", "error"]
Result = tuple[Action, User | Database | None]
T = TypeVar("T")

# How long a fresh user or db may answer 404 to a read (terraform-provider-digitalocean #493), and how often to look, in
# seconds.
_FRESH = 10.0
_LOOK = 0.5

_TAKEN = re.compile(r"exist|taken|in use|duplicate|already", re.IGNORECASE)


def run(
    scope: Scope,
    specs: Iterable[Any] | AsyncIterable[Any],
    concurrency: int | None,
    prepare: Callable[[Scope], Awaitable[Callable[[Scope, NewUser], Awaitable[Result]]]],
) -> Run:
    """A run over ``specs``, each a name or a NewUser, with what ``prepare`` makes of the scope once, at the start."""
    if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
        raise InvalidArgumentError(f"concurrency must be an int of at least 1, not {concurrency!r}")

    async def setup() -> tuple[Job, int]:
        capabilities = CAPABILITIES.get(await scope.learn_engine(), Capabilities())
        do = await prepare(scope.for_bulk(Meter()))
        return partial(_job, scope, do, set[str]()), concurrency or capabilities.concurrent_user_writes

    return Run(specs, setup)


async def _job(
    scope: Scope, do: Callable[[Scope, NewUser], Awaitable[Result]], seen: set[str], given: object
) -> Outcome:
    name = given.name if isinstance(given, NewUser) else given if isinstance(given, str) else repr(given)
    meter = Meter()
    try:
        if not isinstance(given, str | NewUser):
            raise InvalidArgumentError(f"a run takes names and NewUsers, not {type(given).__name__}")
        if name in seen:
            raise InvalidArgumentError(
                f"{name!r} is a duplicate: it came before in this run, and nothing was sent for it"
            )
        seen.add(name)
        action, made = await do(scope.for_bulk(meter), NewUser(given) if isinstance(given, str) else given)
    except Exception as error:  # noqa: BLE001 - one failure, whatever it is, never stops the others
        return Outcome(name, Action.FAILED, error=error, tries=meter.requests)
    if isinstance(made, Database):
        return Outcome(name, action, db=made, tries=meter.requests)
    return Outcome(name, action, user=made, tries=meter.requests)


async def provision_user(
    users: UsersAPI, spec: NewUser, existing: Mapping[str, User], if_exists: IfExists, retry: RetryPolicy
) -> Result:
    """See to it that the user of ``spec`` is there, as ``UsersAPI.provision`` says."""
    user = existing.get(spec.name)
    if user is None:
        try:
            return Action.CREATED, await users.create(spec.name, spec.mysql_settings, spec.settings, spec.readonly)
        except (ConflictError, UnprocessableEntityError) as refusal:
            user = await _taken(users.get, spec.name, refusal)
        except DatabaseClientError as error:
            if not error.may_have_applied:
                raise
            return Action.CREATED, await _settle_user(users, spec, error, retry)
    if if_exists == "keep":
        return Action.KEPT, user
    if if_exists == "reset":
        return Action.RESET, await reset_user(users, spec, retry)
    raise InvalidArgumentError(f"the user {spec.name!r} exists")


async def provision_db(dbs: DatabasesAPI, name: str, existing: Container[str], retry: RetryPolicy) -> Result:
    """See to it that the database ``name`` is there."""
    if name in existing:
        return Action.KEPT, Database(name)
    try:
        return Action.CREATED, await dbs.create(name)
    except (ConflictError, UnprocessableEntityError) as refusal:
        return Action.KEPT, await _taken(dbs.get, name, refusal)
    except DatabaseClientError as error:
        if not error.may_have_applied:
            raise
        lost = error
    return Action.CREATED, await _settle(lambda: dbs.create(name), lambda: dbs.get(name), lost, retry)


async def reset_user(users: UsersAPI, spec: NewUser, retry: RetryPolicy) -> User:
    """Give the user a new password. An answer that cannot be read loses it, so then once more."""
    for wait in _waits(retry, retry.max_tries - 1):
        try:
            return await users.reset_auth(spec.name, spec.mysql_settings)
        except InvalidResponseError:
            await asyncio.sleep(wait)
    return await users.reset_auth(spec.name, spec.mysql_settings)


async def delete(api: UsersAPI | DatabasesAPI, name: str) -> Result:
    """See to it that ``name`` is not there."""
    try:
        await api.delete(name)
    except NotFoundError:
        return Action.ABSENT, None
    return Action.DELETED, None


async def _settle_user(users: UsersAPI, spec: NewUser, lost: DatabaseClientError, retry: RetryPolicy) -> User:
    def create() -> Awaitable[User]:
        return users.create(spec.name, spec.mysql_settings, spec.settings, spec.readonly)

    user = await _settle(create, lambda: users.get(spec.name), lost, retry)
    if user.password is not None:
        return user
    try:
        return await reset_user(users, spec, retry)
    except DatabaseClientError as error:
        raise _unsettled(error, "it was created, but its password was lost and could not be reset") from None


async def _settle(
    create: Callable[[], Awaitable[T]], get: Callable[[], Awaitable[T]], lost: DatabaseClientError, retry: RetryPolicy
) -> T:
    """What a create whose answer was lost has made, or else makes now."""
    for wait in _waits(retry, retry.max_tries):
        await asyncio.sleep(wait)
        try:
            try:
                return await get()
            except NotFoundError:
                return await create()
        except (ConflictError, UnprocessableEntityError) as refusal:
            return await _once_visible(get, refusal)
        except DatabaseClientError as error:
            lost = error
            if not error.may_have_applied:
                break
    raise _unsettled(lost, "it may have been created, and could not be read back")


async def _taken(get: Callable[[str], Awaitable[T]], name: str, refusal: APIError) -> T:
    """What has the name that ``refusal`` says is taken; ``refusal`` itself where nothing has."""
    if refusal.status == 409 or _TAKEN.search(f"{refusal.id} {refusal.message}"):
        return await _once_visible(lambda: get(name), refusal)
    try:
        return await get(name)
    except NotFoundError:
        raise refusal from None


async def _once_visible(get: Callable[[], Awaitable[T]], refusal: APIError) -> T:
    """What ``get`` reads, which is known to be there although a fresh one may answer 404 for a while."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _FRESH
    while True:
        try:
            return await get()
        except NotFoundError:
            if loop.time() >= deadline:
                raise refusal from None
        await asyncio.sleep(_LOOK)


def _waits(retry: RetryPolicy, count: int) -> Iterator[float]:
    return (backoff.full_jitter(min(retry.base_delay * 2**tries, retry.max_delay)) for tries in range(count))


def _unsettled(error: DatabaseClientError, state: str) -> DatabaseClientError:
    error.may_have_applied = True
    error.args = (f"{state}: {error.args[0]}",)
    return error
