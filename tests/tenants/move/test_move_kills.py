"""Whenever a process that moves a tenant is killed, ``repair`` leaves one whole tenant."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, TenantAction, Tenants
from aiodbclient.tenants._move import programs

from ...thorough import first_of
from ..conftest import only, present
from ..mortal import killed
from ..moves import Two, left_on, opened, stepped
from ..programs import ask


@pytest.fixture(scope="module")
def steps(two_clusters: tuple[Sandbox, str, str], tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many steps a move has, about: that depends on what the servers do at the same time."""

    async def move() -> int:
        async with opened(*two_clusters, tmp_path_factory.mktemp("store") / "store") as two:
            await made(two)
            return (await killed(two, [two.old.id, two.new.id], "move", "alpha", 0))[1]

    return asyncio.run(move())


async def made(two: Two) -> None:
    tenants = two.tenants()
    alpha = await tenants.ensure("alpha")
    await tenants.role("reader").ensure("alpha")
    rows = ", ".join(f"({number})" for number in range(1000))
    await ask(
        alpha, "CREATE TABLE t (n INT PRIMARY KEY)", f"INSERT INTO t VALUES {rows}", "CREATE VIEW v AS SELECT n FROM t"
    )


@pytest.mark.parametrize("part", first_of([0.4, 0.9, 0.04, 0.75, *(part / 100 for part in range(2, 102, 6))], 2))
async def test_repair_after_killed_move(two: Two, part: float, steps: int) -> None:
    """There is one whole tenant, whenever the process is killed. The last steps of a move are after its commit."""
    await made(two)
    was_killed, _ = await killed(two, [two.old.id, two.new.id], "move", "alpha", round(part * steps))
    assert was_killed or part > 0.9

    tenants = two.tenants()
    await only(tenants.repair(["alpha"]))
    credential = present(await tenants.get("alpha"))
    reader = present(await tenants.role("reader").get("alpha"))
    assert credential.cluster == reader.cluster
    count = "SELECT count(*) FROM v"
    assert await ask(reader, count) == await ask(credential, count) == [(1000,)]
    other = two.new if credential.cluster == two.old.id else two.old
    assert await left_on(tenants, other, "alpha") == (False, [])
    for each in (tenants, tenants.role("reader")):
        assert (await only(each.check(["alpha"]))).problems == ()
    assert [each.problems async for each in tenants.check()] == [()]


async def test_no_file_names_what_a_tenant_has(
    two: Two, tenants: Tenants, alpha: Credential, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A killed process leaves no files but those of certificates: a dump and the list of its entries have no names."""
    started, files, folder = list[str](), set[str](), tmp_path / "temporary"
    folder.mkdir()

    async def look(*command: str, **_: object) -> None:
        started.append(" ".join(command))
        files.update(each.suffix for each in folder.iterdir())

    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    await ask(alpha, "CREATE TABLE t (n int)")
    with stepped(programs, "create_subprocess_exec", look):
        assert (await only(tenants.move(["alpha"], to=two.new))).action is TenantAction.MOVED
    assert [each for each in started if "--use-list" in each]
    assert files <= {".pem"}
