"""What is done for one tenant under its claim. Every step may be repeated, whatever became of an earlier try.

The order is the same everywhere: the intent is on record, then the claim is made sure of, then the request that changes
a password is sent, then the password is tried by a login, and then it is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Literal

from attrs import evolve, frozen

from .._bulk.outcomes import Action
from .._bulk.settle import FRESH, LOOK, says_taken
from ..clusters import ClusterClient
from ..engines import Engine
from ..errors import (
    ConflictError,
    DatabaseClientError,
    GrantError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    UnprocessableEntityError,
)
from ..models import KafkaACL, User, UserSettings
from .claims import Held
from .credential import Credential
from .naming import Names
from .site import Site
from .stores import Record

IfExists = Literal["adopt", "reset", "error"]

_TRIES = 3  # passwords that a server may refuse before it is given up
_GONE = 30.0  # s for which a deleted user may still be told of (Aiven's documentation of its API)


class _TakenError(Exception):
    """A name that was not there a moment ago is taken."""

    def __init__(self, refusal: ConflictError | UnprocessableEntityError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def usable(record: Record | None) -> Credential | None:
    """The credential on record, unless its own login is being changed or removed."""
    if record is None or record.current is None or record.intended == record.current.username:
        return None
    return record.current


@frozen
class Work:
    """One tenant under its claim.

    Attributes:
        site: The cluster.
        cluster: The calls, which are refused once the lease has run out.
        names: The tenant's names.
        held: The claim.
    """

    site: Site
    cluster: ClusterClient
    names: Names
    held: Held

    async def provision(self, if_exists: IfExists, *, absent: bool = False) -> tuple[Action, Credential]:
        """Give the tenant a database and a login that owns it, on record.

        A login that is there without an intent on record is somebody else's, and ``if_exists`` says what becomes of it.
        ``absent`` says that it is known not to be there, as far as such a thing can be known.
        """
        record, login = self.held.record, self.names.logins[0]
        if record.intended is not None:  # whoever wrote that may have made the login, and nobody living was told so
            return await self._make(record.intended, Action.CREATED)
        existing = None if absent else await self._look(login)
        if existing is None:
            await self.held.intend(login)
            try:
                return await self._make(login, Action.CREATED, ours=False)
            except _TakenError as taken:
                refusal = taken.refusal
            existing = await self._look(login, patience=FRESH if says_taken(refusal) else 0.0)
            if existing is None:
                raise refusal
        if if_exists == "error":
            await self.held.keep(None)  # no request of ours made it, so that the next one must not take it for ours
            raise ConflictError(f"the login {login!r} exists and is on no record; it was left as it is", status=409)
        if if_exists == "adopt":
            return await self._adopt(existing)
        await self.held.intend(login)
        return await self._make(login, Action.RESET, there=True)

    async def rotate(self) -> tuple[Action, Credential]:
        """Let the other login take over. The one in use is not touched, and goes on working."""
        current = self._on_record()
        other = self.names.other(current.username)
        await self.held.intend(other)
        credential = await self._credential(other, there=self.held.record.previous is not None)
        await self.held.keep(credential, current)
        return Action.ROTATED, credential

    async def retire(self) -> tuple[Action, Credential]:
        """End what ``rotate`` left: the other login gets a password that nobody is told."""
        current, record = self._on_record(), self.held.record
        if record.previous is None and record.intended is None:
            return Action.KEPT, current
        other = self.names.other(current.username)
        await self.held.intend(other)
        await self.held.may_write()
        with suppress(NotFoundError):  # a login that is not there lets nobody in
            await self.cluster.users.reset_auth(other)
        await self.held.keep(current)
        return Action.RETIRED, current

    async def remove(self) -> tuple[Action, None]:
        """Remove the logins and the database, and the record last."""
        record = self.held.record
        if record.current is None and record.intended is None:
            await self.held.forget()  # nothing was ever made for it
            return Action.ABSENT, None
        current = record.current.username if record.current else record.intended or self.names.logins[0]
        await self.held.intend(current)  # from here on nobody is told this credential
        told = {current, record.intended, record.previous and record.previous.username}
        for login in self.names.logins:
            await self.held.may_write()
            await _gone(self.cluster.users.delete, login, certain=login in told)
        if self.names.database is not None:
            await self.held.may_write()
            await _gone(self.cluster.dbs.delete, self.names.database, certain=True)
        if self.site.sql is not None:
            await self.site.sql.forget(self.names)
        await self.held.forget()
        return Action.DELETED, None

    async def mend(self) -> None:
        """Make sure that the credential on record works.

        For who lost a claim after a request that changes a password: it may have come after the one on record.
        """
        current = usable(self.held.record)
        if current is None or await self._works(current):
            return
        await self.held.intend(current.username)
        await self._ensure_database()
        credential = await self._credential(current.username, there=True)
        await self.held.keep(credential, self.held.record.previous)

    def _on_record(self) -> Credential:
        current = usable(self.held.record)
        if current is None:
            raise InvalidArgumentError(
                f"the tenant {self.names.tenant!r} has no credential on record: provision it first; nothing was sent"
            )
        return current

    async def _make(
        self, login: str, action: Action, *, there: bool = False, ours: bool = True
    ) -> tuple[Action, Credential]:
        """The database, the login with its rights, and its credential, on record."""
        await self._ensure_database()
        credential = await self._credential(login, there=there, ours=ours)
        await self.held.keep(credential, self._still_previous(login))
        return action, credential

    async def _adopt(self, user: User) -> tuple[Action, Credential]:
        """Put on record the password that the API tells of a login that was there before."""
        await self._ensure_database()
        waits = _waits(_GONE)
        while True:
            if not user.password:
                raise InvalidResponseError(
                    f"the login {user.name!r} was there before, and the API does not tell its password (MongoDB never "
                    'does, else the token needs the scope database:view_credentials): if_exists="reset" gives it a new '
                    "one, which ends the old one"
                )
            refused = await self._granted(user, made=False)
            if refused is None:
                credential = self.site.credential(self.names, user)
                await self.held.keep(credential)
                return Action.ADOPTED, credential
            wait = next(waits, None)
            if wait is None:
                raise self._refused(user.name, refused)
            await asyncio.sleep(wait)
            found = await self._look(user.name)
            if found is None:  # it was being deleted
                await self.held.intend(user.name)
                return await self._make(user.name, Action.CREATED)
            user = found

    async def _ensure_database(self) -> None:
        """See to it that the database is there; whether somebody else made it does not matter."""
        name = self.names.database
        if name is None:
            return
        waits = _waits(FRESH)
        while True:
            try:
                await self.cluster.dbs.create(name)
                return
            except (ConflictError, UnprocessableEntityError) as refusal:
                if says_taken(refusal):
                    return
                await _seen(self.cluster.dbs.get, name, refusal)
                return
            except DatabaseClientError as error:
                wait = next(waits, None)
                if not error.may_have_applied or wait is None:
                    raise
            await asyncio.sleep(wait)

    async def _credential(self, login: str, *, there: bool, ours: bool = True) -> Credential:
        """A credential of ``login``, which is made or reset, given its rights, and tried."""
        refused = ""
        for _ in range(_TRIES):
            made, user = await self._password(login, there=there, ours=ours)
            answer = await self._granted(user, made=made)
            if answer is None:
                return self.site.credential(self.names, user)
            refused, there, ours = (
                answer,
                True,
                True,
            )  # two resets may be done in either order; one more settles it
        raise self._refused(login, refused)

    async def _password(self, login: str, *, there: bool, ours: bool) -> tuple[bool, User]:
        """Make ``login``, or reset it where it is there, until a password is told. Tells whether it was made now.

        Raises:
            _TakenError: It is not ``ours``, and the first request to make it was refused: it is there already.
        """
        waits = _waits(FRESH)
        lost: DatabaseClientError | None = None
        while True:
            await self.held.may_write()
            try:
                if there:
                    return False, await self._told(await self.cluster.users.reset_auth(login))
                user = await self.cluster.users.create(login, settings=self.site.settings(self.names))
                return True, await self._told(user)
            except NotFoundError as missing:  # not there, or so fresh that it cannot be seen
                wait = next(waits, None)
                if not there or wait is None or (lost is not None and not _may_be_there(lost)):
                    raise lost or missing from None
                there = False
                await asyncio.sleep(wait)
            except (ConflictError, UnprocessableEntityError) as refusal:
                if there:
                    raise
                if not ours and lost is None:
                    raise _TakenError(refusal) from None
                lost, there = refusal, True
            except InvalidResponseError:
                wait = next(waits, None)
                if wait is None:
                    raise
                there = True  # a reset may be repeated, and MongoDB tells no password after one that was sent twice
                await asyncio.sleep(wait)
            except DatabaseClientError as error:
                if there or not error.may_have_applied:
                    raise
                lost, there = error, True

    async def _told(self, user: User) -> User:
        """``user`` with its password, which the API may tell a moment later than it was made or reset.

        Raises:
            InvalidResponseError: It is not told.
        """
        if user.password:
            return user
        if self.site.engine != Engine.MONGODB:  # which tells it once
            for wait in _waits(2.0):
                await asyncio.sleep(wait)
                found = await self._look(user.name)
                if found is not None and found.password:
                    return evolve(user, password=found.password)
        await self.held.may_write()
        again = await self.cluster.users.reset_auth(user.name)
        if again.password:
            return again
        raise InvalidResponseError(
            f"the login {user.name!r} was made, but the API does not tell its password: "
            "has the token the scope database:view_credentials?",
            may_have_applied=True,
        )

    async def _granted(self, user: User, *, made: bool) -> str | None:
        """Give ``user`` its rights and try its password. Returns why it was refused, or None."""
        wanted = self.site.settings(self.names)
        if wanted is not None:
            if not made and not _same(user.settings, wanted):
                await self.cluster.users.update(user.name, wanted)
            return None
        if self.site.sql is None:
            return None
        assert user.password is not None
        try:
            await self.site.sql.give(self.names, user.name)
            refused = await self.site.sql.enter(self.names, user.name, user.password)
            for wait in _waits(2.0):
                if refused is None:
                    break
                await asyncio.sleep(wait)  # a server may learn of a new password a moment later
                refused = await self.site.sql.enter(self.names, user.name, user.password)
        except GrantError as error:
            error.on_record = self._on_record_text()
            raise
        return refused

    async def _works(self, credential: Credential) -> bool:
        if self.site.sql is not None and credential.password is not None:
            return await self.site.sql.enter(self.names, credential.username, credential.password) is None
        user = await self._look(credential.username)
        return user is not None and user.password is not None and user.password == credential.password

    async def _look(self, login: str, *, patience: float = 0.0) -> User | None:
        """The user ``login``, or None where it cannot be seen within about ``patience`` seconds."""
        for wait in _waits(patience):
            try:
                return await self.cluster.users.get(login)
            except NotFoundError:
                await asyncio.sleep(wait)
        try:
            return await self.cluster.users.get(login)
        except NotFoundError:
            return None

    def _still_previous(self, login: str) -> Credential | None:
        previous = self.held.record.previous
        return None if previous is None or previous.username == login else previous

    def _refused(self, login: str, reason: str) -> GrantError:
        return GrantError(
            f"tenant {self.names.tenant!r}: the server refuses the login {login!r} with the password that the API "
            f"tells: {reason}",
            tenant=self.names.tenant,
            on_record=self._on_record_text(),
        )

    def _on_record_text(self) -> str:
        if usable(self.held.record) is not None:
            return "on record is the credential from before, which was not touched"
        return "on record is the name, and no credential"


def _may_be_there(error: DatabaseClientError) -> bool:
    """Whether a create that failed so leaves open that its name is there, or will be seen in a moment."""
    if isinstance(error, ConflictError | UnprocessableEntityError):
        return says_taken(error)
    return True


async def _seen(get: Callable[[str], Awaitable[object]], name: str, refusal: DatabaseClientError) -> None:
    """Raise ``refusal`` unless ``name`` is there."""
    try:
        await get(name)
    except NotFoundError:
        raise refusal from None


async def _gone(delete: Callable[[str], Awaitable[None]], name: str, *, certain: bool) -> None:
    """Delete ``name``. A 404 is tried again where it is ``certain`` that it was there: a fresh name may answer so."""
    for wait in _waits(1.0 if certain else 0.0):
        try:
            return await delete(name)
        except NotFoundError:
            await asyncio.sleep(wait)
    with suppress(NotFoundError):
        await delete(name)
    return None


def _waits(total: float) -> Iterator[float]:
    """Doubling waits, ``total`` seconds at the least in all."""
    wait = LOOK
    while total > 0:
        yield wait
        total -= wait
        wait *= 2


def _same(told: UserSettings | None, wanted: UserSettings) -> bool:
    """Whether the API tells the settings that are wanted. The ids that it gives to Kafka's ACLs do not count."""
    if told is None:
        return False
    acl = None if told.acl is None else [KafkaACL(topic=each.topic, permission=each.permission) for each in told.acl]
    return evolve(told, acl=acl) == wanted
