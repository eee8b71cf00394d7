"""What ``doctor --try`` does by the API: it creates, resets and deletes a login, and removes whatever is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from attrs import field, mutable

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
from ..._backoff import poll, poll_waits
from ..._bulk.settle import none_if_not_found
from ...clusters import request_below
from ...engines import CAPABILITIES, Engine
from ...errors import APIError, DatabaseClientError, PermissionDeniedError
from ..plumbing.printing import note
from .checks import Findings

REPORT = "Try again later. If it fails again, please report it, with what `--try -o json` prints"
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

T = TypeVar("T")


@mutable
class Trial:
    """A trial on one cluster, where all that it makes has a name that begins with ``name``."""

    findings: Findings
    cluster: Cluster
    engine: Engine | str
    name: str
    login: str = field(init=False)
    is_pending: bool = field(default=False, init=False)  # a request without an answer may still create the login

    def __attrs_post_init__(self) -> None:
        self.login = f"{self.name}-t-a"

    async def run(self) -> None:
        """Create, reset and delete a login, or raise StepFailedError."""
        made = await self._step("login", "create", self._create())
        if made.password is None:
            advice = "Give the token database:view_credentials"
            self.findings.stop("login", "the answer to its creation has no password", advice)
        self.findings.ok("login", f"{self.login} was created, and the answer has its password")
        await self._step("reset", "update", self._reset())
        self.findings.ok("reset", "the login has a new password")
        await self._step("deletion", "delete", self.cluster.users.delete(self.login))
        self.findings.ok("deletion", "the login was deleted")

    async def _step(self, check: str, scope: str, call: Awaitable[T]) -> T:
        denied = f"Give the token the scope database:{scope}"
        with self.findings.needed(check, {PermissionDeniedError: denied, DatabaseClientError: REPORT}):
            return await call

    async def _create(self) -> User:
        self.is_pending = True  # also if this is cancelled
        try:
            made = await self.cluster.users.create(self.login, settings=_SETTINGS.get(self.engine))
        except APIError as error:
            self.is_pending = error.may_have_applied
            raise
        self.is_pending = False
        return made

    async def _reset(self) -> None:
        users = self.cluster.users
        await poll(lambda: none_if_not_found(users.get(self.login)), _SETTLED)
        await users.reset_auth(self.login)

    async def await_late(self) -> None:
        """Wait until a pending login appears, or its request is too old to be performed."""
        if not self.is_pending:
            return
        note(f"wait: a creation has no answer and may still be performed; looking for up to {_LATE:.0f} s")
        for wait in poll_waits(_LATE, longest=_PAUSE):
            await asyncio.sleep(wait)
            if ("users", self.login) in await self._ours():
                return

    async def delete_all(self) -> list[str]:
        """Delete what is ours, look until nothing is listed, and return what is left."""
        left: list[tuple[str, str]] = []
        for wait in poll_waits(_LAG, longest=_PAUSE):
            await asyncio.sleep(wait)
            left = await self._ours()
            if not left:
                break
            for kind, each in left:
                await none_if_not_found(request_below(self.cluster, "DELETE", kind, each))  # deleted, and still listed
        return [each for _, each in left]

    async def _ours(self) -> list[tuple[str, str]]:
        """The kind and name of everything in the cluster whose name begins as ours."""
        listed = [("users", user.name) for user in await self.cluster.users.list()]
        if self.engine in CAPABILITIES and CAPABILITIES[self.engine].dbs:
            listed += [("dbs", db.name) for db in await self.cluster.dbs.list()]
        return [(kind, each) for kind, each in listed if each.startswith(self.name[:_CUT])]
