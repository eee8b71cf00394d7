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
from ..engines import CAPABILITIES, MYSQL, POSTGRESQL
from ..errors import DatabaseClientError, NotFoundError
from ..tenants import Credential, SQLiteStore, Tenants
from ..tenants._clusters import connection_of
from ..tenants._credential import Secret
from ..tenants._servers import primary_dsn
from .doctor_api import REPORT, try_api
from .doctor_findings import Findings
from .doctor_questions import Asking, on_mysql, on_postgresql
from .output import note, took
from .running import on_signals


class _StepFailedError(Exception):
    """A step failed, and those after it make no sense."""


async def live(findings: Findings, cluster: ClusterClient, info: Cluster, *, private: bool, admin: str | None) -> None:
    """Prove what can be proved, and remove whatever was made, also after a signal."""
    # On MySQL an underscore in a schema's name is a wildcard of grants, unless the server runs with partial_revokes.
    name = f"doctor-{secrets.token_hex(4)}" + ("_x" if info.engine in MYSQL else "")
    pending, by_sql = set[str](), info.engine in POSTGRESQL | MYSQL
    with TemporaryDirectory() as folder:
        async with SQLiteStore(Path(folder) / "doctor.db") as store:
            tenants = Tenants(cluster, store, private=private, admin=admin) if by_sql else None
            try:
                await try_api(findings, cluster, info.engine, f"{name}-t", pending)
                if tenants is not None:
                    connection = connection_of(info, private=private)
                    ca = await cluster.ca() if connection.ssl else None
                    # A traceback may show it.
                    dsn = Secret(primary_dsn(info.engine, connection) if admin is None else admin)
                    run = on_postgresql(dsn, ca) if info.engine in POSTGRESQL else on_mysql(dsn, ca)
                    asking = Asking(findings, cluster, info.engine, f"{name}-t", run, connection, ca, pending)
                    await _prove(asking, tenants, name)
            except _StepFailedError:
                pass
            except DatabaseClientError as error:
                findings.fail("--try", error, REPORT)
            finally:
                on_signals(lambda: note(f"wait: what was made for {name} is being removed"))
                await remove(findings, tenants, cluster, info, name, pending)


async def _prove(asking: Asking, tenants: Tenants, name: str) -> None:
    """Take a tenant through its life, and ask the API what it sees of it."""
    findings, readers = asking.findings, tenants.role("reader")
    made = await _step(findings, "created", tenants.provision([name]), name + ", with the login {}")
    await _check(findings, "isolated", tenants, name, "the login has all rights in its database, and others have none")
    await asking.ask_lists(made)
    after = await _step(findings, "rotated", tenants.rotate([name]), "the new login is {}")
    await _check(findings, "both work", tenants, name, f"{made.username} and {after.username} log in")
    await _step(findings, "retired", tenants.retire([name]), f"{made.username} has no password that works")
    await _check(findings, "still works", tenants, name, f"{after.username} logs in")
    await _step(findings, "reader", readers.provision([name]), "the login {} only reads")
    await _check(findings, "reader works", readers, name, "it logs in, and has the rights of a reader")
    await asking.ask_all(after)


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
    findings: Findings, tenants: Tenants | None, cluster: ClusterClient, info: Cluster, name: str, pending: set[str]
) -> None:
    """Remove the tenant and all logins whose names begin as ``name``, and print whether anything is left."""
    error: object = None
    try:
        if pending:
            note(f"wait: a creation has no answer and may still be performed; looking for up to {_LATE:.0f} s")
            await _await_late(cluster, info, name, pending)
        if tenants is not None:
            async for outcome in tenants.remove([name]):
                error = outcome.error
        left = await _delete_all(cluster, info, name)
        if left:
            error = f"still there: {', '.join(left)}"
    except DatabaseClientError as ended:
        error = ended
    if error is None:
        findings.ok("removed", f"nothing of {name} is left: the API was asked until nothing was listed")
    else:
        advice = f"Look for {name} with `users list` and `dbs list`, and delete what is left, or drop it by SQL"
        findings.fail("removed", error, advice)


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
    if info.engine in CAPABILITIES and CAPABILITIES[info.engine].dbs:
        listed += [("dbs", db.name) for db in await cluster.dbs.list()]
    return [(kind, each) for kind, each in listed if each.startswith(name[:_CUT])]
