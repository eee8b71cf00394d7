"""The users of a cluster that are no tenants', beside tenants: bulk runs over users leave tenants alone."""

from __future__ import annotations

from aiodbclient import Action
from aiodbclient.errors import InvalidArgumentError
from aiodbclient.tenants import Role

from .conftest import Place, only


async def test_no_bulk_run_deletes_a_tenants_logins(anywhere: Place) -> None:
    tenants, users = anywhere.tenants(), anywhere.cluster.users
    alpha = await tenants.ensure("alpha")
    reader = await tenants.role(Role.READER).ensure("alpha")
    assert (await only(tenants.rotate(["alpha"]))).ok
    rotated = await tenants.get("alpha")
    assert rotated is not None
    logins = {alpha.username, reader.username, rotated.username}
    plain = anywhere.prefix + "reporting"
    await users.create(plain)
    others = [user.name for user in await users.list() if not user.name.startswith(anywhere.prefix)]

    plan = await users.plan(others, prune=True)
    assert (plan.extra, set(plan.tenants)) == ([plain], logins)
    assert {line for line in str(plan).splitlines() if line.startswith("  ")} == {
        f"  {login} (may be a tenant's login; left alone)" for login in logins
    }
    assert [(done.name, done.action) async for done in plan.apply()] == [(plain, Action.DELETED)]

    async for outcome in users.deprovision([*logins, plain]):
        if outcome.name == plain:
            assert outcome.action is Action.ABSENT
        else:
            assert isinstance(outcome.error, InvalidArgumentError)
            assert f"{outcome.name!r} may be a tenant's login, and was not deleted" in str(outcome.error)
    assert not (await only(tenants.check(["alpha"]))).problems


async def test_what_is_on_record_is_left_alone_though_its_database_is_gone(place: Place) -> None:
    tenants, users = place.tenants(), place.cluster.users
    login = (await tenants.ensure("alpha")).username
    others = [user.name for user in await users.list() if user.name != login]
    await place.cluster.dbs.delete(login)

    assert (await users.plan(others, prune=True)).extra == [login]
    plan = await users.plan(others, prune=True, store=place.store)
    assert (plan.extra, plan.tenants) == ([], [login])
    outcome = await only(users.deprovision([login], store=place.store))
    assert isinstance(outcome.error, InvalidArgumentError)
