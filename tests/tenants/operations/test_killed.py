"""Work is killed, cancelled or fails at any step: no login in use ends, and the next run finishes it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from contextlib import closing
from itertools import count
from typing import Any

import pytest

from aiodbclient import DatabaseClient, RateLimiter
from aiodbclient.engines import Engine
from aiodbclient.errors import ConfigurationError, InvalidArgumentError
from aiodbclient.tenants import Claim, Credential, SQLiteStore, TenantAction, TenantRecord, Tenants
from aiodbclient.tenants._naming import Names
from aiodbclient.tenants._operations import loop, tenant
from aiodbclient.tenants._operations.tenant import clock
from aiodbclient.tenants._servers import ServerState
from aiodbclient.tenants._servers.postgres import PostgresServer, ownership
from aiodbclient.tenants._servers.postgres.connection import Session
from aiodbclient.tenants._servers.postgres.rights import Login, read_logins
from aiodbclient.tenants.errors import ClaimLostError, GrantError, StoreError, TenantBusyError

from ...thorough import first_of
from ..conftest import SQL, Place, found_taken, only, present
from ..dying import died
from ..leaks import leaks
from ..mortal import OPTIONS, WORK, killed
from ..programs import admin_of, ask, refusal
from ..store_contract import LONG

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


async def works(credential: Credential) -> None:
    await ask(credential, "CREATE TABLE IF NOT EXISTS mine (x int PRIMARY KEY)")


async def test_refused_new_login_is_not_stored(
    tenants: Tenants, alpha: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new login is tested before programs get it."""

    async def refuse(*_: object) -> str:
        return "not this one"

    with monkeypatch.context() as patched:
        patched.setattr(PostgresServer, "log_in", refuse)
        failed = await only(tenants.rotate(["alpha"]))
    assert isinstance(failed.error, GrantError)
    assert "the server refuses the new login" in str(failed.error)
    assert await tenants.get("alpha") == alpha


async def test_missing_administrator_rights_reported(place: Place) -> None:
    """With the statement, and no secret. However many tenants are refused, the cluster is read once."""
    plain = await place.cluster.users.create(place.prefix + "plain")
    assert plain.password is not None
    tenants = place.tenants(admin=(plain.name, plain.password))
    before = len(place.sent())

    for name in "abc":
        with pytest.raises(GrantError, match="refused a statement") as caught:
            await tenants.ensure(name)
        error = caught.value
        assert error.tenant == name
        assert error.statement.startswith("CREATE DATABASE")
        assert "the name is on record for the cluster " in str(error)
        assert ", without a credential" in str(error)
        assert plain.password not in str(error)

    assert [operation for operation, _ in place.sent()[before:]] == ["clusters.get"]
    await works(await place.tenants().ensure("a"))


async def test_administrator_login_fails_before_create(place: Place) -> None:
    admin = ("doadmin", "wrong-secret")
    with pytest.raises(GrantError, match="cannot log in") as caught:
        await place.tenants(admin=admin).ensure("alpha")
    assert leaks(caught.value, "wrong-secret") == []
    assert not caught.value.may_have_applied
    assert not [what for what, _ in place.sent() if what is not None and what.endswith("create")]
    dsn = "postgresql://doadmin:wrong-secret@host/defaultdb"
    for nonsense in (dsn, ["doadmin", "wrong-secret"], (b"doadmin", b"wrong-secret"), ("doadmin",), ("doadmin", ""), 7):
        with pytest.raises(InvalidArgumentError, match="admin must be a user and a password") as refused:
            place.tenants(admin=nonsense)
        assert leaks(refused.value, "wrong-secret") == []
    for options in ({"prefix": 7}, {"admin": {"another": admin}}):
        with pytest.raises(InvalidArgumentError) as refused:
            place.tenants(**{"admin": admin} | options)
        assert leaks(refused.value, "wrong-secret") == []


async def test_a_token_without_view_credentials_needs_an_administrator(anywhere: Place) -> None:
    token = anywhere.sandbox.add_token(["database:read"])
    async with DatabaseClient(token, base_url=anywhere.sandbox.url, rate_limiter=RateLimiter([])) as client:
        cluster = client.cluster(anywhere.cluster.id)
        with pytest.raises(ConfigurationError, match="database:view_credentials"):
            await Tenants(cluster, anywhere.store, prefix=anywhere.prefix).ensure("alpha")
        assert await anywhere.store.get("alpha") is None

        user = await anywhere.cluster.users.get("doadmin")
        assert user.password is not None
        login = user.name, user.password
        for name, admin in (("alpha", login), ("beta", {cluster.id: login})):
            tenants = Tenants(cluster, anywhere.store, prefix=anywhere.prefix, admin=admin)
            await works(await tenants.ensure(name))


@pytest.mark.parametrize("how", ["the lease expired", "a renewal lost the claim"])
async def test_no_statement_without_a_lease(place: Place, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The next statement is not sent. The work begins again with a claim of its own.

    The lease expires by the clock if the process is stopped. If another process took the name over, it does not.
    """
    tenants = place.tenants()
    await tenants.ensure("alpha")
    before = await place.logins()
    monkeypatch.setattr(tenant, "LEASE", 3.0)
    find, claim, renew = PostgresServer.inspect, place.store.claim, place.store.renew
    lost, claims = asyncio.Event(), list[list[str]]()

    async def claiming(name: str, lease: float) -> Claim | None:
        claims.append(await place.logins())
        return await claim(name, lease)

    async def renewing(held: Claim, lease: float) -> None:
        if how == "a renewal lost the claim" and not lost.is_set():
            lost.set()
            raise ClaimLostError("another process took it over")
        await renew(held, lease)

    async def finding(*given: Any) -> Any:
        found = await find(*given)
        if how == "the lease expired" and not lost.is_set():
            lost.set()
            monkeypatch.setattr(tenant, "clock", lambda: clock() + LONG)
        await lost.wait()
        return found

    monkeypatch.setattr(place.store, "claim", claiming)
    monkeypatch.setattr(place.store, "renew", renewing)
    monkeypatch.setattr(PostgresServer, "inspect", finding)
    assert (await only(tenants.rotate(["alpha"]))).error is None
    assert claims == [before, before]


async def test_rotation_cancelled_at_its_new_login_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login was on record before it was made: it is not taken for that of another store."""
    tenants = place.tenants()
    await tenants.ensure("alpha")
    made = asyncio.Event()

    async def made_and_silent(*_: object) -> str:
        made.set()
        await asyncio.Event().wait()
        return ""

    with monkeypatch.context() as patched:
        patched.setattr(PostgresServer, "log_in", made_and_silent)
        rotation = asyncio.ensure_future(only(tenants.rotate(["alpha"])))
        await made.wait()
        rotation.cancel()
        await asyncio.wait([rotation])
    assert len(await place.logins()) == 2
    rotated = await only(tenants.rotate(["alpha"]))
    assert rotated.error is None
    assert len(await place.logins()) == 2  # the cancelled one is gone


async def test_operation_waits_one_lease_then_busy(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An operation waits for the lease of another process, says so in the log, and then fails with TenantBusyError."""
    monkeypatch.setattr(loop, "LEASE", 0.3)
    tenants = place.tenants()
    await tenants.ensure("alpha")
    claim = present(await place.store.claim("alpha", LONG))
    with caplog.at_level("INFO", "aiodbclient"):
        busy = (await only(tenants.rotate(["alpha"]))).error
    assert isinstance(busy, TenantBusyError)
    assert busy.retry_after == 0.3
    assert "another process works on the tenant 'alpha'" in caplog.text
    await place.store.renew(claim, 0.1)  # the other process died
    assert (await only(tenants.rotate(["alpha"]))).error is None


async def test_claim_lost_during_rotation(place: Place, tenants: Tenants, alpha: Credential) -> None:
    """The login in use works on."""
    store = place.store

    async def lose(claim: Claim, record: TenantRecord | None, _: bool) -> None:
        if record is not None and record.operation is None:
            store.before_save = None
            await store.release(claim)
            raise ClaimLostError("somebody else took it over")

    store.before_save = lose
    rotated = await only(tenants.rotate(["alpha"]))

    assert rotated.action is TenantAction.ROTATED
    assert rotated.credential is not None
    assert not await refusal(alpha)
    assert not await refusal(rotated.credential)
    record = present(await store.get("alpha"))
    assert [each.password for each in record.logins] == [alpha.password, rotated.credential.password]


async def test_revoke_after_rotation_of_another_process(
    place: Place, tenants: Tenants, alpha: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves alone what the other process has just rotated away from."""
    # s between two looks at the record
    monkeypatch.setattr("aiodbclient.tenants._operations.loop.full_jitter", lambda *_: 0.5)
    in_use = present((await only(tenants.rotate(["alpha"]))).credential)
    revoking, late_began = asyncio.Event(), asyncio.Event()

    async def wait(*_: object) -> None:
        place.store.after_save = None
        revoking.set()
        await late_began.wait()

    async def revoke_and_rotate() -> None:
        place.store.after_save = wait
        await only(tenants.revoke_previous(["alpha"]))
        await only(tenants.rotate(["alpha"]))

    async with SQLiteStore(place.path) as store, asyncio.TaskGroup() as group:
        group.create_task(revoke_and_rotate())
        await revoking.wait()
        others, waits = place.tenants(store=store), found_taken(store, monkeypatch)
        late_revocation = group.create_task(only(others.revoke_previous(["alpha"])))
        await waits.wait()
        late_began.set()
    late = late_revocation.result()

    assert late.action is TenantAction.KEPT
    record = present(await place.store.get("alpha"))
    assert present(record.previous()).username == in_use.username
    assert not await refusal(in_use)


async def test_cancellation_with_unreachable_store(place: Place) -> None:
    begun = asyncio.Event()

    async def setup(_: Credential) -> None:
        begun.set()
        await asyncio.sleep(5.0)

    task = asyncio.create_task(place.tenants(setup=setup).ensure("alpha"))
    await begun.wait()
    await place.store.__aexit__()

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()


async def test_cancellation_when_claim_is_lost(place: Place, tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lost claim is no reason to begin again."""
    find = PostgresServer.inspect

    async def lose(server: PostgresServer, names: Names) -> ServerState:
        with closing(sqlite3.connect(place.path)) as other:
            other.execute("UPDATE credentials SET token = NULL WHERE name = 'alpha'")
            other.commit()
        call.cancel()
        return await find(server, names)

    monkeypatch.setattr(PostgresServer, "inspect", lose)
    call = asyncio.ensure_future(tenants.ensure("alpha"))
    await asyncio.wait([call], timeout=30)

    assert call.cancelled()
    assert await tenants.get("alpha") is None


async def test_login_made_during_check_is_no_problem(
    place: Place, tenants: Tenants, alpha: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation makes its login after the check has read the logins, and before it reads their memberships."""

    async def fail_at_end(_: Claim, record: TenantRecord | None, release: bool) -> None:
        if record is not None and record.operation is None:
            raise StoreError("the store is unreachable")

    place.store.before_save = fail_at_end
    with pytest.raises(StoreError):
        await only(tenants.rotate(["alpha"]))

    async def read_before(session: Session, wanted: Collection[str] = ()) -> list[Login]:
        return [login for login in await read_logins(session, wanted) if login.name == alpha.username]

    monkeypatch.setattr(ownership, "read_logins", read_before)
    checked = await only(tenants.check(["alpha"]))

    assert [str(each) for each in checked.problems] == ["unfinished: rotate"]
