"""What ``doctor --try`` does with one throw-away tenant, from its making to its removal."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from .. import Cluster, ClusterClient
from .._request.waits import waits
from ..clusters import request_below
from ..engines import MYSQL, POSTGRESQL, Engine
from ..errors import DatabaseClientError, NotFoundError, ServerError, TransportError
from ..tenants import Credential, Role, SQLiteStore, Tenants
from ..tenants._naming import names_of
from .doctor_api import REPORT, try_api
from .doctor_findings import Findings
from .opening import AnyBudget
from .output import note, took
from .running import on_signals


class _StepFailedError(Exception):
    """A step failed, and those after it make no sense."""


async def live(
    findings: Findings, cluster: ClusterClient, info: Cluster, budget: AnyBudget, *, private: bool, admin: str | None
) -> None:
    """Prove what can be proved, and remove whatever was made, also after a signal."""
    # On MySQL an underscore in a schema's name is a wildcard of grants, unless the server runs with partial_revokes.
    name = f"doctor-{secrets.token_hex(4)}" + ("_x" if info.engine in MYSQL else "")
    pending = set[str]()
    unanswered = False
    task = asyncio.current_task()

    def stop() -> None:
        nonlocal unanswered
        unanswered = budget.snapshot().in_flight > 0
        if task is not None:
            task.cancel()

    on_signals(stop)
    with TemporaryDirectory() as folder:
        async with SQLiteStore(Path(folder) / "doctor.db") as store:
            tenants = Tenants(cluster, store, private=private, admin=admin)
            try:
                await try_api(findings, cluster, info.engine, f"{name}-t", pending)
                await _steps(findings, tenants, name, by_sql=info.engine in POSTGRESQL | MYSQL)
            except _StepFailedError as failed:
                unanswered = _is_lost(failed.__cause__)
            except DatabaseClientError as error:
                findings.fail("--try", error, REPORT)
                unanswered = _is_lost(error)
            finally:
                on_signals(lambda: note(f"wait: what was made for {name} is being removed"))
                if unanswered:
                    pending |= await unfinished(tenants, info.engine)
                await remove(findings, tenants, cluster, info, name, pending)


def _is_lost(error: object) -> bool:
    return isinstance(error, ServerError | TransportError) and error.may_have_applied


async def _steps(findings: Findings, tenants: Tenants, name: str, *, by_sql: bool) -> None:
    readers = tenants.role("reader")
    made = await _step(findings, "created", tenants.provision([name]), name + ", with the login {}")
    rights = "the login has all rights in its database, and others have none" if by_sql else "its settings are its own"
    await _check(findings, "isolated", tenants, name, rights)
    after = await _step(findings, "rotated", tenants.rotate([name]), "the new login is {}")
    enter = "log in" if by_sql else "have the passwords that the API knows; no connection was tried"
    await _check(findings, "both work", tenants, name, f"{made.username} and {after.username} {enter}")
    await _step(findings, "retired", tenants.retire([name]), f"{made.username} has no password that works")
    enters = "logs in" if by_sql else "is unchanged"
    await _check(findings, "still works", tenants, name, f"{after.username} {enters}")
    await _step(findings, "reader", readers.provision([name]), "the login {} only reads")
    await _check(
        findings, "reader works", readers, name, f"it {'logs in, and ' if by_sql else ''}has the rights of a reader"
    )


async def _step(findings: Findings, step: str, run: AsyncIterator[Any], found: str) -> Credential:
    started = monotonic()
    error: Exception | None = None
    outcome: Any = None
    try:
        [outcome] = [each async for each in run]
        error = outcome.error
    except DatabaseClientError as ended:
        error = ended
    if error is not None:
        findings.fail(step, error, REPORT)
        raise _StepFailedError from error
    findings.ok(step, f"{found.format(outcome.credential.username)} ({took(monotonic() - started)})")
    credential: Credential = outcome.credential
    return credential


async def _check(findings: Findings, step: str, tenants: Tenants, name: str, found: str) -> None:
    async for outcome in tenants.check([name]):
        problems = outcome.error if outcome.error is not None else ", ".join(outcome.problems)
        if problems:
            findings.fail(step, problems, REPORT)
            raise _StepFailedError
    findings.ok(step, found)


_CUT = 12  # characters: MySQL has room for no more of the tenant's name in the name of a second login
_LATE = 35.0  # s for which a request without an answer may still be performed: the client's timeout, and some
_LAG = 15.0  # s for which reads may still show what was deleted
_PAUSE = 1.5  # s between two looks


async def remove(
    findings: Findings, tenants: Tenants, cluster: ClusterClient, info: Cluster, name: str, pending: set[str]
) -> None:
    """Remove the tenant and everything else whose name begins as ``name``, and print whether anything is left."""
    error: object = None
    try:
        if pending:
            note(f"wait: a creation has no answer and may still be performed; looking for up to {_LATE:.0f} s")
            await _await_late(cluster, info, name, pending)
        async for outcome in tenants.remove([name]):
            error = outcome.error
        if error is not None:
            note(f"{error}; deleting its logins and its database one by one")
        left = await _delete_all(cluster, info, name)
        if left:
            error = f"still there: {', '.join(left)}"
    except DatabaseClientError as ended:
        error = ended
    if error is None:
        findings.ok("removed", f"nothing of {name} is left: the API was asked until nothing was listed")
    else:
        findings.fail(
            "removed", error, f"Look for {name} with `users list` and `dbs list`, and delete what is left by hand"
        )


async def unfinished(tenants: Tenants, engine: Engine | str) -> set[str]:
    """The tenant's names that a request without an answer may still create."""
    names = set[str]()
    for role in Role:
        async for record in tenants.role(role).records():
            if record.current is None or record.intended is not None:
                names |= {record.name, *names_of(record.name, engine, role=role).logins}
    return names


async def _await_late(cluster: ClusterClient, info: Cluster, name: str, pending: set[str]) -> None:
    """Wait until a pending name appears that was not there, or its request is too old to be performed."""
    before = set(await _ours(cluster, info, name))
    for wait in waits(_LATE, longest=_PAUSE):
        await asyncio.sleep(wait)
        if any(each in pending for _, each in {*await _ours(cluster, info, name)} - before):
            return


async def _delete_all(cluster: ClusterClient, info: Cluster, name: str) -> list[str]:
    """Delete what is ours, and look until nothing is listed. Returns what is left."""
    left: list[tuple[str, str]] = []
    for wait in waits(_LAG, longest=_PAUSE):
        await asyncio.sleep(wait)
        left = await _ours(cluster, info, name)
        if not left:
            break
        for kind, each in left:
            with suppress(NotFoundError):  # deleted, and still listed
                await request_below(cluster, "DELETE", kind, each)
    return [each for _, each in left]


async def _ours(cluster: ClusterClient, info: Cluster, name: str) -> list[tuple[str, str]]:
    """The kind and name of everything in the cluster whose name begins as ``name``."""
    listed = [("users", user.name) for user in await cluster.users.list()]
    listed += [("dbs", db.name) for db in await cluster.dbs.list()]
    return [(kind, each) for kind, each in listed if each.startswith(name[:_CUT])]
