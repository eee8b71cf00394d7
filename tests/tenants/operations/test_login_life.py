"""The life of a login: made, in use, previous, ended. No request but those for the cluster."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import evolve

from aiodbclient._masking import Secret
from aiodbclient.tenants import TenantAction, Tenants
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants.errors import GrantError

from ..conftest import Place, only, present
from ..leaks import leaks
from ..programs import ask, refusal


async def test_verbs_request_only_the_cluster(anywhere: Place) -> None:
    tenants = anywhere.tenants()
    for _ in range(2):
        credential = await tenants.ensure("alpha")
        for run in (
            tenants.rotate,
            tenants.revoke_previous,
            tenants.suspend,
            tenants.resume,
            tenants.check,
            tenants.repair,
        ):
            assert (await only(run(["alpha"]))).error is None
        assert (await only(tenants.remove(["alpha"]))).action is TenantAction.DELETED
        assert await refusal(credential)
    assert {operation for operation, _ in anywhere.sent()} <= {"clusters.get", "clusters.ca"}
    assert len(anywhere.sent()) <= 2


async def test_each_rotation_makes_a_new_login(anywhere: Place) -> None:
    """With a name of its own, which goes on counting, and a password of its own."""
    tenants, names = anywhere.tenants(), names_of("alpha", (await anywhere.cluster.info()).engine, anywhere.prefix)
    used = [await tenants.ensure("alpha")]
    for _ in range(3):
        rotated = present((await only(tenants.rotate(["alpha"]))).credential)
        assert not await refusal(used[-1])
        assert (await only(tenants.revoke_previous(["alpha"]))).action is TenantAction.REVOKED
        assert await refusal(used[-1])
        assert not await refusal(rotated)
        used.append(rotated)
    assert [names.number(each.username) for each in used] == [1, 2, 3, 4]
    assert len({each.password for each in used}) == len(used)
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_changed_password_ends_with_login(place: Place) -> None:
    tenants = place.tenants()
    first = await tenants.ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    await ask(first, "SET ROLE NONE", "ALTER ROLE CURRENT_USER PASSWORD 'mine'")
    changed = evolve(first, password="mine")
    assert not await refusal(changed)

    forced = await only(tenants.rotate(["alpha"], force=True))

    assert forced.credential is not None
    assert not await refusal(forced.credential)
    assert await refusal(changed)


async def test_rotation_goes_on_without_the_previous_login(anywhere: Place) -> None:
    """Somebody dropped it by hand."""
    tenants = anywhere.tenants()
    first = await tenants.ensure("alpha")
    await only(tenants.rotate(["alpha"]))
    await anywhere.cluster.users.delete(first.username)

    rotated = await only(tenants.rotate(["alpha"], force=True))

    assert rotated.error is None
    assert (await only(tenants.check(["alpha"]))).problems == ()


Verb = Callable[[Tenants], Awaitable[object]]
VERBS: dict[str, Verb] = {
    "rotate": lambda tenants: only(tenants.rotate(["alpha"], force=True)),
    "revoke-previous": lambda tenants: only(tenants.revoke_previous(["alpha"])),
    "repair": lambda tenants: only(tenants.repair(["alpha"])),
    "suspend": lambda tenants: only(tenants.suspend(["alpha"])),
    "remove": lambda tenants: only(tenants.remove(["alpha"])),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_no_password_in_traceback_locals(anywhere: Place, verb: str) -> None:
    tenants = anywhere.tenants()
    first = await tenants.ensure("alpha")
    second = present((await only(tenants.rotate(["alpha"]))).credential)
    connection = present((await anywhere.cluster.info()).connection)
    wrong = f"wrong-{secrets.token_hex(8)}"
    hidden = [Secret(each) for each in (wrong, first.password, second.password, connection.password) if each]
    for admin in (("doadmin", wrong), ("nobody", wrong)):
        error: BaseException | None = None
        try:
            outcome: Any = await VERBS[verb](anywhere.tenants(admin=admin))
            error = outcome.error
        except GrantError as ended:  # the whole run
            error = ended

        assert error is not None
        assert leaks(error, *hidden) == []
