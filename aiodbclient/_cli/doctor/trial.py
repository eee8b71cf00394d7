"""What ``doctor --try`` does with one throw-away tenant."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from ... import Cluster, ClusterInfo
from ...engines import MYSQL, POSTGRESQL
from ...errors import DatabaseClientError
from ...tenants import Credential, SQLiteStore, TenantRole, Tenants
from ..plumbing.opening import admin_login
from ..plumbing.printing import note, took
from ..plumbing.running import on_signals
from .api import REPORT, Trial
from .checks import Findings, StepFailedError


async def live(findings: Findings, cluster: Cluster, info: ClusterInfo, *, private: bool, admin: str | None) -> None:
    """Run the operations on a login and a tenant, and remove whatever was made, also after a signal."""
    # On MySQL an underscore in a schema's name is a wildcard of grants, unless the server runs with partial_revokes.
    name = f"doctor-{secrets.token_hex(4)}" + ("_x" if info.engine in MYSQL else "")
    trial, by_sql = Trial(findings, cluster, info.engine, name), info.engine in POSTGRESQL | MYSQL
    with TemporaryDirectory() as folder:
        async with SQLiteStore(Path(folder) / "doctor.db") as store:
            tenants = Tenants(cluster, store, private=private, admin=admin_login(admin)) if by_sql else None
            try:
                with suppress(StepFailedError):  # the tenant may do all the same
                    await trial.run()
                if tenants is not None:
                    await _try_tenant(findings, tenants, name)
            except StepFailedError:
                pass
            except DatabaseClientError as error:
                findings.fail("--try", error, REPORT)
            finally:
                on_signals(lambda: note(f"wait: what was made for {name} is being removed"))
                await _remove(trial, tenants)


async def _remove(trial: Trial, tenants: Tenants | None) -> None:
    """Remove the tenant and the login of the trial, and print whether anything is left."""
    error: object = None
    try:
        await trial.await_late()
        if tenants is not None:
            async for outcome in tenants.remove([trial.name]):
                error = outcome.error
        left = await trial.delete_all()
        if left:
            error = f"still there: {', '.join(left)}"
    except DatabaseClientError as ended:
        error = ended
    if error is None:
        trial.findings.ok("removed", f"nothing of {trial.name} is left: the API was asked until nothing was listed")
    else:
        advice = f"Look for {trial.name} with `users list` and `dbs list`, and delete what is left, or drop it by SQL"
        trial.findings.fail("removed", error, advice)


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
    with findings.needed(step, {DatabaseClientError: REPORT}):
        [outcome] = [each async for each in run]
    if outcome.error is not None:
        findings.stop(step, outcome.error, REPORT)
    findings.ok(step, f"{found.format(outcome.credential.username)} ({took(monotonic() - started)})")
    credential: Credential = outcome.credential
    return credential


async def _check(findings: Findings, step: str, tenants: TenantRole, name: str, found: str) -> None:
    async for outcome in tenants.check([name]):
        problems = outcome.error if outcome.error is not None else ", ".join(map(str, outcome.problems))
        if problems:
            findings.stop(step, problems, REPORT)
    findings.ok(step, found)
