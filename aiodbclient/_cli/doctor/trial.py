"""What ``doctor --try`` does with one throw-away login of the API, and one tenant."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterable, Awaitable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, TypeVar

from ... import (
    Cluster,
    ClusterInfo,
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
from ..._backoff import poll
from ..._bulk.settle import none_if_not_found
from ...engines import MYSQL, POSTGRESQL, Engine
from ...errors import DatabaseClientError, PermissionDeniedError
from ...tenants import Credential, SQLiteStore, TenantRole, Tenants
from ..plumbing.opening import admin_login
from ..plumbing.printing import note, took
from ..plumbing.running import on_signals
from .checks import Findings, StepFailedError

_REPORT = "Try again later. If it fails again, please report it, with what `--try -o json` prints"
# A MongoDB user without settings is admin of all.
_SETTINGS: dict[str, UserSettings] = {
    Engine.MONGODB: UserSettings(mongo_user_settings=MongoUserSettings(["doctor"], MongoRole.READ_ONLY)),
    Engine.KAFKA: UserSettings(acl=[KafkaACL("doctor.*", KafkaPermission.CONSUME)]),
    Engine.OPENSEARCH: UserSettings(opensearch_acl=[OpenSearchACL("doctor.*", OpenSearchPermission.READ)]),
}
_SETTLED = 10.0  # s for which reads may be behind writes

T = TypeVar("T")


async def live(findings: Findings, cluster: Cluster, info: ClusterInfo, *, private: bool, admin: str | None) -> None:
    """Run the operations on a login and a tenant, and remove whatever was made, also after a signal."""
    # On MySQL an underscore in a schema's name is a wildcard of grants, unless the server runs with partial_revokes.
    name = f"doctor-{secrets.token_hex(4)}" + ("_x" if info.engine in MYSQL else "")
    login = NewUser(f"{name}-t-a", settings=_SETTINGS.get(info.engine))
    with TemporaryDirectory() as folder:
        async with SQLiteStore(Path(folder) / "doctor.db") as store:
            by_sql = info.engine in POSTGRESQL | MYSQL
            tenants = Tenants(cluster, store, private=private, admin=admin_login(admin)) if by_sql else None
            creation = asyncio.create_task(cluster.users.ensure(login, if_exists="error"))
            try:
                with suppress(StepFailedError):  # the tenant may do all the same
                    await _try_login(findings, cluster, login.name, creation)
                if tenants is not None:
                    await _try_tenant(findings, tenants, name)
            except StepFailedError:
                pass
            except DatabaseClientError as error:
                findings.fail("--try", error, _REPORT)
            finally:
                on_signals(lambda: note(f"wait: what was made for {name} is being removed"))
                # Cut off by a signal, it might still be performed.
                await asyncio.gather(creation, return_exceptions=True)
                await _remove(findings, cluster, login.name, tenants, name)


async def _remove(findings: Findings, cluster: Cluster, login: str, tenants: Tenants | None, name: str) -> None:
    """Remove the tenant and the login, and print whether anything is left."""
    error: Exception | None = None
    try:
        outcomes: list[Any] = [*await cluster.users.deprovision([login])]
        outcomes += [] if tenants is None else await tenants.remove([name])
        error = next((each.error for each in outcomes if each.error is not None), None)
    except DatabaseClientError as ended:
        error = ended
    if error is None:
        findings.ok("removed", f"nothing of {name} is left")
    else:
        advice = f"Look for {name} with `users list` and `dbs list`, and delete what is left, or drop it by SQL"
        findings.fail("removed", error, advice)


async def _try_login(findings: Findings, cluster: Cluster, name: str, creation: asyncio.Task[User]) -> None:
    """Create, reset and delete a login by the API."""
    users = cluster.users
    made = await _allowed(findings, "login", "create", asyncio.shield(creation))
    if made.password is None:
        findings.stop("login", "the API returns no password for it", "Give the token database:view_credentials")
    findings.ok("login", f"{name} was created, and the API returns its password")
    await _allowed(findings, "reset", "update", poll(lambda: none_if_not_found(users.get(name)), _SETTLED))
    await _allowed(findings, "reset", "update", users.reset_auth(name))
    findings.ok("reset", "the login has a new password")
    await _allowed(findings, "deletion", "delete", users.delete(name))
    findings.ok("deletion", "the login was deleted")


async def _allowed(findings: Findings, check: str, scope: str, call: Awaitable[T]) -> T:
    denied = f"Give the token the scope database:{scope}"
    with findings.needed(check, {PermissionDeniedError: denied, DatabaseClientError: _REPORT}):
        return await call


async def _try_tenant(findings: Findings, tenants: Tenants, name: str) -> None:
    """Take a tenant through its life."""
    readers = tenants.role("reader")
    made = await _step(findings, "created", tenants.provision([name]), name + ", with the login {}")
    await _check(findings, "isolated", tenants, name, "the login has all rights in its database, and others have none")
    after = await _step(findings, "rotated", tenants.rotate([name]), "the new login is {}")
    await _check(findings, "both work", tenants, name, f"{made.username} and {after.username} log in")
    await _step(findings, "revoked", tenants.revoke_previous([name]), f"{made.username} has no password that works")
    await _check(findings, "still works", tenants, name, f"{after.username} logs in")
    await _step(findings, "reader", readers.provision([name]), "the login {} only reads")
    await _check(findings, "reader works", readers, name, "it logs in, and has the rights of a reader")
    await _step(findings, "suspended", tenants.suspend([name]), "no login works")
    await _step(findings, "resumed", tenants.resume([name]), "the new login is {}")
    await _check(findings, "works again", tenants, name, "it logs in")


async def _step(findings: Findings, step: str, run: AsyncIterable[Any], found: str) -> Credential:
    started = monotonic()
    outcome: Any
    with findings.needed(step, {DatabaseClientError: _REPORT}):
        [outcome] = [each async for each in run]
    if outcome.error is not None:
        findings.stop(step, outcome.error, _REPORT)
    findings.ok(step, f"{found.format(outcome.credential.username)} ({took(monotonic() - started)})")
    credential: Credential = outcome.credential
    return credential


async def _check(findings: Findings, step: str, tenants: TenantRole, name: str, found: str) -> None:
    async for outcome in tenants.check([name]):
        problems = outcome.error if outcome.error is not None else ", ".join(map(str, outcome.problems))
        if problems:
            findings.stop(step, problems, _REPORT)
    findings.ok(step, found)
