"""What is done for one tenant under its claim. Every step may be repeated, whatever became of an earlier try.

The order is the same everywhere: the intent is on record, then the claim is made sure of, then the request that changes
a password is sent, then the password is tried by a login, and then it is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal

from attrs import frozen

from .._bulk.outcomes import Action
from .._bulk.settle import FRESH, says_taken
from ..clusters import ClusterClient
from ..errors import (
    ConflictError,
    DatabaseClientError,
    InvalidArgumentError,
    InvalidResponseError,
    NotFoundError,
    UnprocessableEntityError,
)
from ..models import User
from .claims import Held
from .credential import Credential
from .logins import Logins, TakenError, usable, waits
from .naming import Names
from .site import Site

IfExists = Literal["adopt", "reset", "error"]

_GONE = 30.0  # s for which a deleted user may still be told of (Aiven's documentation of its API)


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

    @property
    def logins(self) -> Logins:
        """The tenant's logins."""
        return Logins(self.site, self.cluster, self.names, self.held)

    async def provision(self, if_exists: IfExists, *, absent: bool = False) -> tuple[Action, Credential]:
        """Give the tenant a database and a login that owns it, on record.

        A login that is there without an intent on record is somebody else's, and ``if_exists`` says what becomes of it.
        ``absent`` says that it is known not to be there, as far as such a thing can be known.
        """
        record, login = self.held.record, self.names.logins[0]
        if record.intended is not None:  # whoever wrote that may have made the login, and nobody living was told so
            return await self._make(record.intended, Action.CREATED)
        existing = None if absent else await self.logins.look(login)
        if existing is None:
            await self.held.intend(login)
            try:
                return await self._make(login, Action.CREATED, ours=False)
            except TakenError as taken:
                refusal = taken.refusal
            await self.held.intend(None)  # it is not ours, whatever ends this process before it is known what to do
            existing = await self.logins.look(login, patience=FRESH if says_taken(refusal) else 0.0)
            if existing is None:
                raise refusal
        if if_exists == "error":
            await self.held.forget()  # no request of ours made it
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
        credential = await self.logins.credential(other, there=self.held.record.previous is not None)
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
        await _gone(self.cluster.users.reset_auth, other, certain=record.previous is not None)
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
        record = self.held.record
        if record.current is None and record.intended is None:
            await self.held.forget()  # somebody removed it: only this claim put the name on record
            return
        current = usable(record)
        if current is None or await self.logins.works(current):
            return
        await self.held.intend(current.username)
        await self._ensure_database()
        credential = await self.logins.credential(current.username, there=True)
        await self.held.keep(credential, record.previous)

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
        credential = await self.logins.credential(login, there=there, ours=ours)
        await self.held.keep(credential, self._still_previous(login))
        return action, credential

    async def _adopt(self, user: User) -> tuple[Action, Credential]:
        """Put on record the password that the API tells of a login that was there before."""
        await self._ensure_database()
        pauses = waits(_GONE)
        while True:
            if not user.password:
                raise InvalidResponseError(
                    f"the login {user.name!r} was there before, and the API does not tell its password (MongoDB never "
                    'does, else the token needs the scope database:view_credentials): if_exists="reset" gives it a new '
                    "one, which ends the old one"
                )
            refused = await self.logins.granted(user, made=False)
            if refused is None:
                credential = self.site.credential(self.names, user)
                await self.held.keep(credential)
                return Action.ADOPTED, credential
            wait = next(pauses, None)
            if wait is None:
                raise self.logins.refused(user.name, refused)
            await asyncio.sleep(wait)
            found = await self.logins.look(user.name)
            if found is None:  # it was being deleted
                await self.held.intend(user.name)
                return await self._make(user.name, Action.CREATED)
            user = found

    async def _ensure_database(self) -> None:
        """See to it that the database is there; whether somebody else made it does not matter."""
        name = self.names.database
        if name is None:
            return
        pauses = waits(FRESH)
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
                wait = next(pauses, None)
                if not error.may_have_applied or wait is None:
                    raise
            await asyncio.sleep(wait)

    def _still_previous(self, login: str) -> Credential | None:
        previous = self.held.record.previous
        return None if previous is None or previous.username == login else previous


async def _seen(get: Callable[[str], Awaitable[object]], name: str, refusal: DatabaseClientError) -> None:
    """Raise ``refusal`` unless ``name`` is there."""
    try:
        await get(name)
    except NotFoundError:
        raise refusal from None


async def _gone(end: Callable[[str], Awaitable[object]], name: str, *, certain: bool) -> None:
    """Delete or reset ``name``, unless it is not there.

    A 404 is tried again where it is ``certain`` that it was there: a fresh name may answer so.
    """
    for wait in waits(1.0 if certain else 0.0):
        try:
            await end(name)
            return
        except NotFoundError:
            await asyncio.sleep(wait)
    with suppress(NotFoundError):
        await end(name)
