"""A process is killed between two steps of its work on a tenant, or cancelled. The next one finishes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count

import pytest

from aiodbclient.engines import Engine
from aiodbclient.tenants import TenantAction

from ...thorough import first_of
from ..conftest import SQL, Place, only, present
from ..dying import died
from ..mortal import OPTIONS, WORK, killed
from ..programs import admin_of, ask, refusal

# The roles of tenants, but of the one whose database it is, that something in the database depends on.
STRANGERS = """
SELECT DISTINCT rolname FROM pg_shdepend JOIN pg_roles r ON r.oid = refobjid JOIN pg_database d ON d.oid = dbid
WHERE datname = current_database() AND rolname ~ '_[0-9a-f]{12}_' AND NOT starts_with(rolname, datname)
"""


async def prepare(place: Place, operation: str, name: str) -> str:
    """Make what the operation needs. Return the login that the tenant has."""
    tenants = place.tenants()
    if operation == "ensure":
        return ""
    if operation == "copy":
        if (await place.cluster.info()).engine == Engine.MYSQL:
            pytest.skip("MySQL has no templates")
        if await place.store.get("golden") is not None:
            return ""
    credential = await tenants.ensure("golden" if operation == "copy" else name)
    await ask(credential, "CREATE TABLE t (x int PRIMARY KEY)")
    if operation == "copy":
        await tenants.role("reader").ensure("golden")
        assert (await only(tenants.suspend(["golden"]))).error is None
    if operation == "revoke-previous":
        assert (await only(tenants.rotate([name]))).error is None
    if operation == "adopt":
        await place.store.discard(name)
    if operation == "resume":
        assert (await only(tenants.suspend([name]))).error is None
    if operation == "remove":
        await tenants.role("reader").ensure(name)
    if operation == "repair":
        admin = await admin_of(place.cluster)
        if admin.engine == Engine.PG:
            await ask(admin, f"ALTER ROLE \"{credential.username}\" PASSWORD 'lost'")
        else:
            await ask(admin, f"ALTER USER '{credential.username}'@'%' IDENTIFIED BY 'Lost-1'", database="mysql")
    return credential.username


async def was_killed(place: Place, operation: str, name: str, step: int) -> bool:
    """Work in another process, and kill it at this step. Returns False if it ends before."""
    return (await killed(place, [place.cluster.id], operation, name, step))[0]


async def was_cancelled(place: Place, operation: str, name: str, step: int) -> bool:
    """Work, and cancel it at this statement or change of the store. Returns False if it ends before."""
    return await died(place, step, lambda dying: WORK[operation](dying, name), **OPTIONS.get(operation, {}))


# An adoption on PostgreSQL always runs. The others are thorough.
@pytest.mark.parametrize(
    ("operation", "step"),
    [("adopt", 14), *(pytest.param(operation, 1, marks=pytest.mark.thorough) for operation in WORK)],
)
@pytest.mark.parametrize("its_cluster", first_of(SQL), indirect=True)
async def test_killed_work_finished_by_next_run(anywhere: Place, operation: str, step: int) -> None:
    await assert_finished(anywhere, operation, step, was_killed)


@pytest.mark.parametrize("step", first_of([16, 7]))
@pytest.mark.parametrize("operation", WORK)
async def test_cancelled_work_finished_by_next_run(place: Place, operation: str, step: int) -> None:
    await assert_finished(place, operation, step, was_cancelled)


async def assert_finished(
    place: Place, operation: str, step: int, interrupted: Callable[[Place, str, str, int], Awaitable[bool]]
) -> None:
    """Interrupt the operation at each ``step``. The same operation then finishes it."""
    for statement in count(1, step):
        tenants, name = place.tenants(), f"n{statement}"
        first = await prepare(place, operation, name)
        was_interrupted = await interrupted(place, operation, name, statement)
        if operation in ("ensure", "reader", "rotate", "revoke-previous") and (on_record := await tenants.get(name)):
            assert not await refusal(on_record)  # a credential on record works at each moment
        if await place.store.get(name) is None:
            tenants = place.tenants(**OPTIONS.get(operation, {}))  # otherwise the record has the template
        await WORK[operation](tenants, name)

        if operation == "suspend":
            assert await tenants.get(name) is None
            assert (await only(tenants.check([name]))).problems == ()
            assert (await only(tenants.resume([name]))).error is None
        if operation == "remove":
            assert not [login for login in await place.logins() if login.startswith(f"{name}_")]
            assert place.prefix + name not in [db.name for db in await place.cluster.dbs.list()]
            assert await tenants.get(name) is None
        else:
            credential = present(await tenants.get(name))
            assert not await refusal(credential, "SELECT 1" if operation == "ensure" else "SELECT x FROM t")
            assert (await only(tenants.check([name]))).problems == ()
        if operation == "copy":  # its roles have no members, and nobody is in it
            assert (await only(tenants.check(["golden"]))).problems == ()
            assert await ask(await admin_of(place.cluster, credential.database), STRANGERS) == []
        if operation == "adopt":
            record = present(await place.store.get(name))
            assert present(record.previous()).username == first
            assert (await only(tenants.revoke_previous([name]))).action is TenantAction.REVOKED
        if not was_interrupted:
            assert statement > step
            return
