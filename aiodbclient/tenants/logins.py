"""A password for a tenant's login that is known to work: made or reset, given its rights, tried. Nothing is kept here.

The claim is made sure of before each request that changes a password; the intent is on record before any of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from attrs import evolve, frozen

from .._bulk.settings import differences
from .._bulk.settle import FRESH, LOOK, says_taken
from ..clusters import ClusterClient
from ..engines import Engine
from ..errors import (
    ConflictError,
    DatabaseClientError,
    GrantError,
    InvalidResponseError,
    NotFoundError,
    UnprocessableEntityError,
)
from ..models import NewUser, User
from .claims import Held
from .credential import Credential
from .naming import Names
from .site import Site
from .stores import Record

_TRIES = 3  # passwords that a server may refuse before it is given up


class TakenError(Exception):
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
class Logins:
    """The two logins of a tenant under its claim.

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

    async def credential(self, login: str, *, there: bool, ours: bool = True) -> Credential:
        """A credential of ``login``, which is made or reset, given its rights, and tried."""
        refused = ""
        for _ in range(_TRIES):
            made, user = await self._password(login, there=there, ours=ours)
            answer = await self.granted(user, made=made)
            if answer is None:
                return self.site.credential(self.names, user)
            refused, there, ours = answer, True, True  # two resets may be done in either order; one more settles it
        raise self.refused(login, refused)

    async def granted(self, user: User, *, made: bool) -> str | None:
        """Give ``user`` its rights and try its password. Returns why it was refused, or None."""
        wanted = self.site.settings(self.names)
        if wanted is not None:
            if not made and differences(NewUser(user.name, settings=wanted), user):
                await self.cluster.users.update(user.name, wanted)
            return None
        if self.site.sql is None:
            return None
        assert user.password is not None
        try:
            await self.site.sql.give(self.names, user.name)
            refused = await self.site.sql.enter(self.names, user.name, user.password)
            for wait in waits(2.0):
                if refused is None:
                    break
                await asyncio.sleep(wait)  # a server may learn of a new password a moment later
                refused = await self.site.sql.enter(self.names, user.name, user.password)
        except GrantError as error:
            error.on_record = self._on_record_text()
            raise
        return refused

    async def works(self, credential: Credential) -> bool:
        """Whether ``credential`` logs in or, where no login can be tried, is what the API tells.

        Raises:
            GrantError: The administrator cannot log in either, so that a refusal tells nothing of the credential.
        """
        sql = self.site.sql
        if sql is not None and credential.password is not None:
            for wait in waits(2.0):
                if await sql.enter(self.names, credential.username, credential.password) is None:
                    return True
                await asyncio.sleep(wait)
            await sql.check()
            return await sql.enter(self.names, credential.username, credential.password) is None
        user = await self.look(credential.username)
        return user is not None and user.password is not None and user.password == credential.password

    async def look(self, login: str, *, patience: float = 0.0) -> User | None:
        """The user ``login``, or None where it cannot be seen within about ``patience`` seconds."""
        for wait in waits(patience):
            try:
                return await self.cluster.users.get(login)
            except NotFoundError:
                await asyncio.sleep(wait)
        try:
            return await self.cluster.users.get(login)
        except NotFoundError:
            return None

    def refused(self, login: str, reason: str) -> GrantError:
        """The error for a ``login`` whose password the server goes on refusing."""
        return GrantError(
            f"tenant {self.names.tenant!r}: the server refuses the login {login!r} with the password that the API "
            f"tells: {reason}",
            tenant=self.names.tenant,
            on_record=self._on_record_text(),
        )

    async def _password(self, login: str, *, there: bool, ours: bool) -> tuple[bool, User]:
        """Make ``login``, or reset it where it is there, until a password is told. Tells whether it was made now.

        Raises:
            TakenError: It is not ``ours``, and the first request to make it was refused: it is there already.
        """
        pauses = waits(FRESH)
        lost: DatabaseClientError | None = None
        while True:
            await self.held.may_write()
            try:
                if there:
                    return False, await self._told(await self.cluster.users.reset_auth(login))
                user = await self.cluster.users.create(login, settings=self.site.settings(self.names))
                return True, await self._told(user)
            except NotFoundError as missing:  # not there, or so fresh that it cannot be seen
                wait = next(pauses, None)
                if not there or wait is None or (lost is not None and not _may_be_there(lost)):
                    raise lost or missing from None
                there = False
                await asyncio.sleep(wait)
            except (ConflictError, UnprocessableEntityError) as refusal:
                if there:
                    raise
                if not ours and lost is None:
                    raise TakenError(refusal) from None
                lost, there = refusal, True
            except InvalidResponseError:
                wait = next(pauses, None)
                if wait is None:
                    raise
                there = True  # a reset may be repeated, and MongoDB tells no password after one that was sent twice
                await asyncio.sleep(wait)
            except DatabaseClientError as error:
                if there or not error.may_have_applied:
                    raise
                lost, there = error, True
                if not ours and (found := await self.look(login)) is not None and found.password:
                    return False, found  # without a reset, for it may be somebody else's who came first

    async def _told(self, user: User) -> User:
        """``user`` with its password, which the API may tell a moment later than it was made or reset.

        Raises:
            InvalidResponseError: It is not told.
        """
        if user.password:
            return user
        if self.site.engine != Engine.MONGODB:  # which tells it once
            for wait in waits(2.0):
                await asyncio.sleep(wait)
                found = await self.look(user.name)
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

    def _on_record_text(self) -> str:
        if usable(self.held.record) is not None:
            return "on record is the credential from before, which was not touched"
        return "on record is the name, and no credential"


def waits(total: float) -> Iterator[float]:
    """Doubling waits, ``total`` seconds at the least in all."""
    wait = LOOK
    while total > 0:
        yield wait
        total -= wait
        wait *= 2


def _may_be_there(error: DatabaseClientError) -> bool:
    """Whether a create that failed so leaves open that its name is there, or will be seen in a moment."""
    if isinstance(error, ConflictError | UnprocessableEntityError):
        return says_taken(error)
    return True
