"""What ``doctor --try`` proves of the API itself: logins that it creates, reads, resets and deletes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import monotonic
from typing import TypeVar

from .. import (
    ClusterClient,
    KafkaACL,
    KafkaPermission,
    MongoRole,
    MongoUserSettings,
    NewUser,
    OpenSearchACL,
    OpenSearchPermission,
    User,
    UserSettings,
)
from .._bulk.settings import NOTHING_SHOWN, differences
from .._request.waits import waits
from ..engines import Engine
from ..errors import (
    APIError,
    NameTakenError,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
)
from .doctor_findings import Findings
from .output import took

REPORT = "This package assumes otherwise: please report it, with --report"
T = TypeVar("T")
_AT_A_TIME = 4
# A MongoDB user without settings is admin of all.
_SETTINGS = {
    Engine.MONGODB: UserSettings(mongo_user_settings=MongoUserSettings(["doctor"], MongoRole.READ_ONLY)),
    Engine.KAFKA: UserSettings(acl=[KafkaACL("doctor.*", KafkaPermission.CONSUME)]),
    Engine.OPENSEARCH: UserSettings(opensearch_acl=[OpenSearchACL("doctor.*", OpenSearchPermission.READ)]),
}
_SETTLED = 10.0  # s for which reads may be behind writes


async def try_api(
    findings: Findings, cluster: ClusterClient, engine: Engine | str, name: str, pending: set[str]
) -> None:
    """Make logins whose names begin with ``name``, and prove what the API says of them."""
    login, settings = f"{name}-a", _SETTINGS.get(engine) if isinstance(engine, Engine) else None
    try:
        made = await answered(cluster.users.create(login, settings=settings), login, pending)
    except PermissionDeniedError as error:
        findings.fail("login", error, "Give the token the scope database:create")
        return
    if made.password is None:
        findings.fail("login", "the answer to its creation has no password", "Give the token database:view_credentials")
        return
    findings.ok("login", f"{login} was created, and the answer has its password")
    read = await _first_read(findings, cluster, login)
    if read is None:
        return
    _compare_passwords(findings, engine, made, read)
    if settings is not None:
        _compare_settings(findings, NewUser(login, settings=settings), read)
    await _try_taken_name(findings, cluster, login)
    await _try_reset(findings, cluster, engine, made)
    await _try_deletion(findings, cluster, login)
    await _try_concurrent_writes(findings, cluster, engine, name, pending)


async def answered(create: Awaitable[T], name: str, pending: set[str]) -> T:
    """Await a creation. Its name is pending until it is answered, so also if this is cancelled."""
    pending.add(name)
    try:
        made = await create
    except APIError as error:
        if not error.may_have_applied:
            pending.discard(name)
        raise
    pending.discard(name)
    return made


async def _first_read(findings: Findings, cluster: ClusterClient, login: str) -> User | None:
    started = monotonic()
    for wait in waits(_SETTLED):
        await asyncio.sleep(wait)
        try:
            read = await cluster.users.get(login)
        except NotFoundError:
            continue
        findings.ok("reads", f"show the new login after {took(monotonic() - started)}")
        return read
    findings.fail("reads", f"do not show {login} within {_SETTLED:.0f} s of its creation", REPORT)
    return None


def _compare_passwords(findings: Findings, engine: Engine | str, made: User, read: User) -> None:
    check = "passwords on reads"
    if engine == Engine.MONGODB:
        if read.password is None:
            findings.ok(check, "MongoDB returns a password once, and none when it is read")
        else:
            findings.fail(check, "MongoDB returns the password when it is read", REPORT)
    elif read.password is None:
        findings.skip(check, "the API returns none to this token")
    elif read.password == made.password:
        findings.ok(check, "are the ones of the creation")
    else:
        findings.fail(check, "another password is read than the creation returned", REPORT)


def _compare_settings(findings: Findings, sent: NewUser, read: User) -> None:
    check = "settings on reads"
    if found := differences(sent, read, NOTHING_SHOWN):
        findings.fail(check, "; ".join(map(str, found)), REPORT)
    else:
        findings.ok(check, "are left out" if read.settings is None else "are as they were sent")


async def _try_taken_name(findings: Findings, cluster: ClusterClient, login: str) -> None:
    try:
        await cluster.users.create(login)
    except NameTakenError as error:
        findings.ok("taken name", f"a second creation is refused: {error.status}")
    except APIError as error:
        findings.fail("taken name", error, REPORT)
    else:
        findings.fail("taken name", "a second creation was accepted", REPORT)


async def _try_reset(findings: Findings, cluster: ClusterClient, engine: Engine | str, made: User) -> None:
    try:
        reset = await cluster.users.reset_auth(made.name)
    except APIError as error:
        findings.fail("reset", error, "Give the token the scope database:update")
        return
    if reset.password is None or reset.password == made.password:
        findings.fail("reset", "reset_auth returned no new password", REPORT)
    else:
        findings.ok("reset", "reset_auth returns a new password")


async def _try_deletion(findings: Findings, cluster: ClusterClient, login: str) -> None:
    started = monotonic()
    await cluster.users.delete(login)
    for wait in waits(_SETTLED):
        await asyncio.sleep(wait)
        if await _is_refused(cluster.users.get(login)):
            break
    else:
        findings.fail("deletion", f"{login} is still read after {_SETTLED:.0f} s", REPORT)
        return
    if await _is_refused(cluster.users.delete(login)):
        findings.ok("deletion", f"the login is gone after {took(monotonic() - started)}; deleting it again is a 404")
    else:
        findings.fail("deletion", "deleting it again is no 404", REPORT)


async def _is_refused(call: Awaitable[object]) -> bool:
    try:
        await call
    except NotFoundError:
        return True
    return False


async def _try_concurrent_writes(
    findings: Findings,
    cluster: ClusterClient,
    engine: Engine | str,
    name: str,
    pending: set[str],
) -> None:
    """Create some logins at once, of which one has every kind of character."""
    odd = f"{name}-xX_9"
    logins = [odd, *(f"{name}-{n}" for n in range(1 if engine == Engine.MONGODB else _AT_A_TIME - 1))]
    settings = _SETTINGS.get(engine) if isinstance(engine, Engine) else None
    made = await asyncio.gather(
        *(answered(cluster.users.create(login, settings=settings), login, pending) for login in logins),
        return_exceptions=True,
    )
    errors = [each for each in made if isinstance(each, Exception)]
    if isinstance(made[0], APIError) and not isinstance(made[0], ServerError):
        findings.fail("names", made[0], REPORT)
    elif isinstance(made[0], User) and made[0].name == odd:
        findings.ok("names", "keep their case, digits, _ and -")
    if engine == Engine.MONGODB:
        findings.skip("writes at a time", "the client sends one at a time to MongoDB")
    elif errors:
        refused = f"{len(errors)} of {len(logins)} creations at once were refused, with {type(errors[0]).__name__}"
        advice = "Use DatabaseClient(user_writes=1) in your program, and report it with --report"
        findings.fail("writes at a time", refused, advice)
    else:
        findings.ok("writes at a time", f"{len(logins)} creations at once were accepted")
    await asyncio.gather(*(_is_refused(cluster.users.delete(login)) for login in logins))
