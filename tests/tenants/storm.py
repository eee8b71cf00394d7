"""Kill processes that work on tenants, or stop them past their leases, at random. Nothing may be lost.

``python -m tests.tenants.storm`` runs every storm of ``STORMS`` with 25 blows, and prints a report. Every second blow
waits for an outcome, so that a storm progresses on a slow machine too. A storm without progress fails.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time

import psycopg
from attrs import define, field

from aiodbclient import DatabaseClient, RateBudget, RetryPolicy
from aiodbclient.tenants import Credential, PostgresStore, Record, SQLiteStore, Tenants
from aiodbclient.tenants._record import intent_of

from .hostile import BOUND, Hostile
from .weather import Reported, Storm, Weather, weather

STORMS = [
    Storm("provision PostgreSQL, a file", "pg", "provision", 3, "sqlite"),
    Storm("provision PostgreSQL, a table", "pg", "provision", 4, "postgres"),
    Storm("rotate PostgreSQL, a file", "pg", "rotate", 1, "sqlite"),
    Storm("rotate PostgreSQL, a table", "pg", "rotate", 1, "postgres"),
    Storm("stop while provisioning, a file", "pg", "provision", 3, "sqlite", "stop"),
    Storm("stop while provisioning, a table", "pg", "provision", 4, "postgres", "stop"),
    Storm("stop while rotating, a file", "pg", "rotate", 2, "sqlite", "stop"),
    Storm("a day with hostile tenants, a file", "pg", "day", 3, "sqlite"),
    Storm("a day with hostile tenants, a table", "pg", "day", 3, "postgres"),
]


@define
class Seen:
    """What a client saw that uses the stored credentials all the time.

    ``overtaken`` counts queries with a credential that was read before the last two rotations began. Operators
    must not rotate that fast: see ``Tenants.rotate``.
    """

    queries: int = 0
    overtaken: int = 0
    failures: list[str] = field(factory=list)
    enough: bool = False  # set to end the clients


def run(storm: Storm, blows: int, seed: int) -> str:
    """Run ``storm``. Returns a report. Raises AssertionError if something was lost."""
    with weather(storm, seed) as here:
        if storm.do == "provision":
            return _provision(here, blows)
        if storm.do == "day":
            return asyncio.run(_day(here, blows))
        return asyncio.run(_rotate(here, blows))


def _strike(here: Weather, blows: int) -> None:
    """Run the workers of a storm, and strike them."""
    workers = [here.start(here.storm.do) for _ in range(here.storm.workers)]
    for number in range(blows):
        if here.storm.do == "provision":
            here.name(_more_names(here, number))  # so that there is always work
        worker = workers.pop(0)
        here.blow(worker, patient=number % 2 == 0)
        workers.append(here.start(here.storm.do) if here.storm.blow == "kill" else worker)
    here.calm()


def _more_names(here: Weather, number: int) -> list[str]:
    count = 2 * here.storm.workers
    return [f"{here.storm.engine}-{number * count + each}" for each in range(count)]


def _provision(here: Weather, blows: int) -> str:
    here.name([])
    _strike(here, blows)
    during = here.progress()
    here.finish("provision")
    names = [name for number in range(blows) for name in _more_names(here, number)]
    asyncio.run(_all_is_on_record(here, names))
    by_name = _by_name(here.reported())
    assert set(by_name) == set(names)
    if here.storm.blow == "kill":
        for name, reported in by_name.items():
            credentials = {(one.login, one.password) for one in reported}
            assert len(credentials) == 1, f"{name} got two credentials"
    return f"{len(names)} tenants, {during} of them during the storm"


async def _rotate(here: Weather, blows: int) -> str:
    names = [f"tenant-{number}" for number in range(4)]
    here.name(names)
    await asyncio.to_thread(here.finish, "provision")
    before, seen = here.progress(), Seen()
    async with here.store() as store, asyncio.TaskGroup() as group:
        if here.storm.engine == "pg":
            for name in names:
                group.create_task(_query(store, name, seen))
        await asyncio.to_thread(_strike, here, blows)
        during = here.progress() - before
        await asyncio.to_thread(here.finish, "rotate")
        seen.enough = True
    await _all_is_on_record(here, names)
    if here.storm.blow == "kill":
        assert not seen.failures, f"of {seen.queries} queries failed: {seen.failures[:5]}"
    return (
        f"{during} rotations during the storm, {seen.queries} queries, {len(seen.failures)} failed, "
        f"{seen.overtaken} overtaken"
    )


async def _day(here: Weather, blows: int) -> str:
    """Check, repair, rotate and retire, during attacks by hostile tenants, damage by a stranger, and kills."""
    good, bad = [f"good-{number}" for number in range(3)], [f"bad-{number}" for number in range(2)]
    here.name(good + bad)
    await asyncio.to_thread(here.finish, "provision")
    hostile = Hostile()
    async with (
        here.store() as store,
        here.store() as visitors,
        DatabaseClient(
            here.server["token"], base_url=here.server["url"], budget=RateBudget([]), retry=RetryPolicy(base_delay=0.02)
        ) as client,
    ):
        cluster = client.cluster(here.server["cluster"])
        for name in good:
            async with await psycopg.AsyncConnection.connect((await _current(store, name)).uri) as own:
                await own.execute("CREATE TABLE t AS SELECT 1 AS x")
        async with asyncio.TaskGroup() as group:
            for name in bad:
                group.create_task(hostile.attack(store, name, good[0], random.Random(here.rng.random())))
            group.create_task(hostile.vandalize(cluster, good, here.rng))
            group.create_task(hostile.sign_up(Tenants(cluster, visitors)))
            before = here.progress()
            await asyncio.to_thread(_strike, here, blows)
            during = here.progress() - before
            hostile.enough = True
        await asyncio.to_thread(here.finish, "day")  # repair, check, rotate and retire, undisturbed
        records = [record async for record in store.records()]
        assert sorted(record.name for record in records) == sorted(good + bad)
        assert {record.previous for record in records} == {None}, here.errors.read_text()[-3000:]
        checks = [check async for check in Tenants(cluster, store).check()]
    assert all(check.ok and not check.problems for check in checks), checks
    kept = [record.current for record in records if record.current is not None]
    for credential in kept:
        async with await psycopg.AsyncConnection.connect(credential.uri) as own:
            if credential.name in good:
                assert await (await own.execute("SELECT x FROM t")).fetchall() == [(1,)]
    assert await hostile.still_open({(each.username, each.password) for each in kept}) == []
    assert hostile.slowest < BOUND, f"a sign-up took {hostile.slowest:.0f} s"
    return (
        f"{during} changes during the storm, {hostile.acts} hostile statements with {len(hostile.leaked)} leaked "
        f"credentials, {hostile.broken} broken behind the record; the slowest sign-up took {hostile.slowest:.1f} s"
    )


async def _query(store: PostgresStore | SQLiteStore, name: str, seen: Seen) -> None:
    """A program of the tenant: it reads the credential, connects and queries, repeatedly."""
    while not seen.enough:
        credential = await _current(store, name)
        seen.queries += 1
        try:
            async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
                await connection.execute("SELECT 1")
        except psycopg.Error as error:
            if _is_overtaken(await store.get(name), credential):
                seen.overtaken += 1
            else:
                seen.failures.append(f"{name} as {credential.username}: {error}")
        await asyncio.sleep(0.02)


def _is_overtaken(record: Record | None, credential: Credential) -> bool:
    """Whether two rotations began since ``credential`` was read, so that its login has a new password."""
    assert record is not None
    assert record.current is not None
    intent = intent_of(record)
    if intent is not None and intent.login == credential.username:
        return record.current.username != credential.username
    kept = [
        each.password for each in (record.current, record.previous) if each and each.username == credential.username
    ]
    return record.previous is not None and kept != [] and credential.password not in kept


async def _current(store: PostgresStore | SQLiteStore, name: str) -> Credential:
    record = await store.get(name)
    assert record is not None
    assert record.current is not None
    return record.current


def _by_name(reported: list[Reported]) -> dict[str, list[Reported]]:
    by_name: dict[str, list[Reported]] = {}
    for one in reported:
        by_name.setdefault(one.name, []).append(one)
    return by_name


async def _all_is_on_record(here: Weather, names: list[str]) -> None:
    """Every name is stored once, no intent is open, and each stored credential works and is the last one reported."""
    async with here.store() as store:
        records = [record async for record in store.records()]
    assert sorted(record.name for record in records) == sorted(names)
    by_name = _by_name(here.reported())
    for record in records:
        assert record.current is not None, here.errors.read_text()[-3000:]
        assert record.intended is None, here.errors.read_text()[-3000:]
        await _works(record.current)
        if record.previous is not None:
            await _works(record.previous)
        if here.storm.blow == "kill":
            last = max(by_name[record.name], key=lambda one: one.at)
            kept = record.current.username, record.current.password
            assert (last.login, last.password) == kept, f"{record.name}: not the last reported one"


async def _works(credential: Credential) -> None:
    async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
        await connection.execute("SELECT 1")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.tenants.storm")
    parser.add_argument("--blows", type=int, default=25)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", default="", help="the storms with this in their names")
    options = parser.parse_args()
    for storm in STORMS:
        if options.only in storm.name:
            began = time.monotonic()
            did = run(storm, options.blows, options.seed)
            how = f"{options.blows} {'kills' if storm.blow == 'kill' else 'stops'} of {storm.workers} processes"
            print(f"{storm.name}: {how}, {did}: nothing lost ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
