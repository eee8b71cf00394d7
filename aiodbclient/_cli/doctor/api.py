"""What ``doctor --try`` proves of the API itself: logins that it creates, reads, resets and deletes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from time import monotonic

from attrs import evolve, field, frozen

from ... import (
    Cluster,
    KafkaACL,
    KafkaPermission,
    MongoRole,
    MongoUserSettings,
    OpenSearchACL,
    OpenSearchPermission,
    User,
    UserSettings,
)
from ..._http.waits import until_seen, waits
from ...clusters import request_below
from ...engines import CAPABILITIES, Engine
from ...errors import APIError, NameTakenError, NotFoundError, PermissionDeniedError, ServerError
from ..plumbing.printing import note, took
from .checks import Findings

REPORT = "This package assumes otherwise: please report it, with what `--try -o json` prints"
_AT_A_TIME = 4
# A MongoDB user without settings is admin of all.
_SETTINGS: dict[str, UserSettings] = {
    Engine.MONGODB: UserSettings(mongo_user_settings=MongoUserSettings(["doctor"], MongoRole.READ_ONLY)),
    Engine.KAFKA: UserSettings(acl=[KafkaACL("doctor.*", KafkaPermission.CONSUME)]),
    Engine.OPENSEARCH: UserSettings(opensearch_acl=[OpenSearchACL("doctor.*", OpenSearchPermission.READ)]),
}
_SETTLED = 10.0  # s for which reads may be behind writes
_CUT = 12  # characters: MySQL has room for no more of the tenant's name in the name of a second login
_LATE = 35.0  # s for which a request without an answer may still be performed: the client's timeout, and some
_LAG = 15.0  # s for which reads may still show what was deleted
_PAUSE = 1.5  # s between two looks


@frozen
class Trial:
    """A trial on one cluster, where all that it makes has a name that begins with ``name``."""

    findings: Findings
    cluster: Cluster
    engine: Engine | str
    name: str
    pending: set[str] = field(factory=set[str])  # the names that a request without an answer may still create

    async def prove(self) -> None:
        """Make logins, and prove what the API says of them, or raise StepFailedError."""
        login = self.login("a")
        with self.findings.needed("login", {PermissionDeniedError: "Give the token the scope database:create"}):
            made = await self.create(login)
        if made.password is None:
            advice = "Give the token database:view_credentials"
            self.findings.stop("login", "the answer to its creation has no password", advice)
        self.findings.ok("login", f"{login} was created, and the answer has its password")
        read = await self._first_read(login)
        self._compare_passwords(made, read)
        self._compare_settings(login, read)
        await self._try_taken_name(login)
        await self._try_reset(made)
        await self._try_deletion(login)
        await self._try_concurrent_writes()

    def login(self, end: str) -> str:
        return f"{self.name}-t-{end}"

    async def create(self, login: str) -> User:
        """Create a login, and keep its name in ``pending`` if no answer comes, or if this is cancelled."""
        self.pending.add(login)
        try:
            made = await self.cluster.users.create(login, settings=_SETTINGS.get(self.engine))
        except APIError as error:
            if not error.may_have_applied:
                self.pending.discard(login)
            raise
        self.pending.discard(login)
        return made

    async def _first_read(self, login: str) -> User:
        async def look() -> User | None:
            with suppress(NotFoundError):
                return await self.cluster.users.get(login)
            return None

        started = monotonic()
        read = await until_seen(look, _SETTLED)
        if read is None:
            self.findings.stop("reads", f"do not show {login} within {_SETTLED:.0f} s of its creation", REPORT)
        self.findings.ok("reads", f"show the new login after {took(monotonic() - started)}")
        return read

    def _compare_passwords(self, made: User, read: User) -> None:
        check = "passwords on reads"
        if self.engine == Engine.MONGODB:
            if read.password is None:
                self.findings.ok(check, "MongoDB returns a password once, and none when it is read")
            else:
                self.findings.fail(check, "MongoDB returns the password when it is read", REPORT)
        elif read.password is None:
            self.findings.skip(check, "the API returns none to this token")
        elif read.password == made.password:
            self.findings.ok(check, "are the ones of the creation")
        else:
            self.findings.fail(check, "another password is read than the creation returned", REPORT)

    def _compare_settings(self, login: str, read: User) -> None:
        check, settings = "settings on reads", _SETTINGS.get(self.engine)
        if settings is None:
            return
        if read.settings is None:
            self.findings.ok(check, "are left out")
        elif _without_ids(read.settings) == settings:
            self.findings.ok(check, "are as they were sent")
        else:
            self.findings.fail(check, f"{settings} was sent, {read.settings} was read", REPORT)

    async def _try_taken_name(self, login: str) -> None:
        try:
            await self.cluster.users.create(login)
        except NameTakenError as error:
            self.findings.ok("taken name", f"a second creation is refused: {error.status}")
        except APIError as error:
            self.findings.fail("taken name", error, REPORT)
        else:
            self.findings.fail("taken name", "a second creation was accepted", REPORT)

    async def _try_reset(self, made: User) -> None:
        try:
            reset = await self.cluster.users.reset_auth(made.name)
        except APIError as error:
            self.findings.fail("reset", error, "Give the token the scope database:update")
            return
        if reset.password is None or reset.password == made.password:
            self.findings.fail("reset", "reset_auth returned no new password", REPORT)
        else:
            self.findings.ok("reset", "reset_auth returns a new password")

    async def _try_deletion(self, login: str) -> None:
        async def is_gone() -> bool | None:
            return await _is_refused(self.cluster.users.get(login)) or None

        started = monotonic()
        await self.cluster.users.delete(login)
        if not await until_seen(is_gone, _SETTLED):
            self.findings.fail("deletion", f"{login} is still read after {_SETTLED:.0f} s", REPORT)
        elif await _is_refused(self.cluster.users.delete(login)):
            gone = f"the login is gone after {took(monotonic() - started)}; deleting it again is a 404"
            self.findings.ok("deletion", gone)
        else:
            self.findings.fail("deletion", "deleting it again is no 404", REPORT)

    async def _try_concurrent_writes(self) -> None:
        """Create some logins at once, of which one has every kind of character."""
        alone = self.engine == Engine.MONGODB
        odd = self.login("xX_9")
        logins = [odd, *(self.login(str(number)) for number in range(1 if alone else _AT_A_TIME - 1))]
        made = await asyncio.gather(*map(self.create, logins), return_exceptions=True)
        errors = [each for each in made if isinstance(each, Exception)]
        if isinstance(made[0], APIError) and not isinstance(made[0], ServerError):
            self.findings.fail("names", made[0], REPORT)
        elif isinstance(made[0], User) and made[0].name == odd:
            self.findings.ok("names", "keep their case, digits, _ and -")
        if alone:
            self.findings.skip("writes at a time", "the client sends one at a time to MongoDB")
        elif errors:
            refused = f"{len(errors)} of {len(logins)} creations at once were refused, with {type(errors[0]).__name__}"
            advice = "Please report it, with what `--try -o json` prints"
            self.findings.fail("writes at a time", refused, advice)
        else:
            self.findings.ok("writes at a time", f"{len(logins)} creations at once were accepted")
        await asyncio.gather(*(_is_refused(self.cluster.users.delete(login)) for login in logins))

    async def await_late(self) -> None:
        """Wait until a pending name appears that was not there, or its request is too old to be performed."""
        if not self.pending:
            return
        note(f"wait: a creation has no answer and may still be performed; looking for up to {_LATE:.0f} s")
        before = set(await self._ours())
        for wait in waits(_LATE, longest=_PAUSE):
            await asyncio.sleep(wait)
            if any(each in self.pending for _, each in {*await self._ours()} - before):
                return

    async def delete_all(self) -> list[str]:
        """Delete what is ours, look until nothing is listed, and return what is left."""
        left: list[tuple[str, str]] = []
        for wait in waits(_LAG, longest=_PAUSE):
            await asyncio.sleep(wait)
            left = await self._ours()
            if not left:
                break
            for kind, each in left:
                await _is_refused(request_below(self.cluster, "DELETE", kind, each))  # deleted, and still listed
        return [each for _, each in left]

    async def _ours(self) -> list[tuple[str, str]]:
        """The kind and name of everything in the cluster whose name begins as ours."""
        listed = [("users", user.name) for user in await self.cluster.users.list()]
        if self.engine in CAPABILITIES and CAPABILITIES[self.engine].dbs:
            listed += [("dbs", db.name) for db in await self.cluster.dbs.list()]
        return [(kind, each) for kind, each in listed if each.startswith(self.name[:_CUT])]


async def _is_refused(call: Awaitable[object]) -> bool:
    """Whether a call is a 404."""
    try:
        await call
    except NotFoundError:
        return True
    return False


def _without_ids(settings: UserSettings) -> UserSettings:
    """``settings`` without the ids that the API gives to the entries of an ACL."""
    acl = None if settings.acl is None else [evolve(each, id=None) for each in settings.acl]
    return evolve(settings, acl=acl)
