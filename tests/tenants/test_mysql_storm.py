"""Hostile tenants with leaked credentials run random attacks on MySQL, while others sign up, rotate and leave."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from contextlib import suppress
from functools import partial

import pymysql
import pytest
from pymysql.cursors import Cursor

from aiodbclient.errors import NotFoundError
from aiodbclient.tenants import Credential

from .conftest import Place, only, present
from .test_mysql_tenants import connect

_BOUND = 30.0  # seconds for one operation of a well-behaved tenant, on a busy machine
_HOSTILE, _ROUNDS = 2, 1
_MINE = "Mine-1-Mine"


class Attacker:
    """Threads that attack with sessions of one leaked credential."""

    def __init__(self, leaked: Credential, seed: int) -> None:
        self.leaked = leaked
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(random.Random(seed + at),)) for at in range(2)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, chance: random.Random) -> None:
        connection: pymysql.Connection[Cursor] | None = None
        number = 0
        while not self._stop.wait(0.01):
            try:
                if connection is None or not connection.open:
                    connection = connect(self.leaked, chance.choice([self.leaked.password, _MINE]))
                number += 1
                for statement in chance.choice(_ACTS):
                    with connection.cursor() as cursor:
                        cursor.execute(
                            statement.format(
                                n=f"{id(self)}_{number}", db=self.leaked.database, password=self.leaked.password
                            )
                        )
                        rows = cursor.fetchall()
                        if statement.startswith("SHOW PROCESSLIST"):
                            for row in rows:
                                if row[0] != connection.thread_id():  # type: ignore[no-untyped-call]
                                    cursor.execute("KILL %s", (row[0],))
            except (pymysql.MySQLError, OSError, IndexError, ValueError):
                if connection is not None and chance.random() < 0.5:
                    with suppress(pymysql.MySQLError):
                        connection.close()
                    connection = None
        if connection is not None and connection.open:
            connection.close()


_ACTS = [
    ["SET PASSWORD = 'Mine-1-Mine'"],
    ["ALTER USER USER() IDENTIFIED BY 'Mine-1-Mine' REPLACE '{password}'"],
    ["SHOW PROCESSLIST"],
    ["CREATE TABLE IF NOT EXISTS t (a INT PRIMARY KEY)", "LOCK TABLES t WRITE", "SELECT SLEEP(0.2)", "UNLOCK TABLES"],
    [
        "CREATE TABLE IF NOT EXISTS t (a INT PRIMARY KEY)",
        "START TRANSACTION",
        "INSERT INTO t VALUES (1)",
        "SELECT SLEEP(0.3)",
    ],
    ["XA START '{n}'", "INSERT INTO t VALUES (1)", "XA END '{n}'", "XA PREPARE '{n}'"],
    ["DROP DATABASE `{db}`"],
    ["CREATE DATABASE `{db}`"],
    ["SELECT SLEEP(1)"],
    ["GRANT ALL ON `{db}`.* TO doadmin@'%'"],
    ["SET SESSION max_execution_time = 1"],
    ["FLUSH TABLES WITH READ LOCK"],
]


@pytest.mark.skipif("AIODBCLIENT_STORM" not in os.environ, reason="takes long; `make storm` runs it")
@pytest.mark.parametrize("seed", [1, 2])
async def test_leaked_credentials_end_and_nobody_waits_long(my_place: Place, seed: int) -> None:
    attackers: list[Attacker] = []
    longest = 0.0
    tenants = my_place.tenants(connection_limit=8)
    hostile = [f"bad{at}" for at in range(_HOSTILE)]
    try:
        for at, name in enumerate(hostile):
            attackers.append(Attacker(await tenants.ensure(name), seed * 100 + at * 10))

        async def honest(name: str) -> None:
            nonlocal longest
            for verb in ("ensure", *("rotate", "revoke_previous") * _ROUNDS, "remove"):
                started = time.monotonic()
                if verb == "ensure":
                    await tenants.ensure(name)
                else:
                    outcome = await only(getattr(tenants, verb)([name]))
                    assert outcome.error is None, outcome.error
                longest = max(longest, time.monotonic() - started)

        async def defend(name: str) -> None:
            """Credentials leak as soon as they are created. Operations may fail while the attack runs."""
            for _ in range(_ROUNDS):
                rotated = await only(tenants.rotate([name]))
                if rotated.credential is not None:
                    attackers.append(Attacker(rotated.credential, seed * 1000 + len(attackers)))
                await only(tenants.revoke_previous([name]))

        await asyncio.gather(*(honest(f"good{at}") for at in range(2)), *(defend(name) for name in hostile))

        async def is_cut_off(name: str) -> bool:
            """Replace its logins while the attack goes on, as an operator does, who begins again if it fails."""
            for run in (tenants.repair, partial(tenants.rotate, force=True), tenants.revoke_previous):
                error = (await only(run([name]))).error
                if isinstance(error, NotFoundError):  # they dropped its database
                    assert (await only(tenants.remove([name]))).error is None
                    await tenants.ensure(name)
                elif error is not None:  # a statement of theirs keeps new logins waiting: suspending ends it
                    assert (await only(tenants.suspend([name]))).error is None
                    assert (await only(tenants.resume([name]))).error is None
                if error is not None:
                    return False
            return True

        for name in hostile:
            tries = 1
            while not await is_cut_off(name):
                tries += 1
                assert tries <= 5
            current = present(await tenants.get(name))
            for attacker in attackers:
                if attacker.leaked.name == name:
                    assert attacker.leaked.password != current.password
                    for password in (attacker.leaked.password, _MINE):
                        with pytest.raises(pymysql.MySQLError):
                            connect(attacker.leaked, password)
            assert (await only(tenants.repair([name]))).error is None
            assert [each.problems async for each in tenants.check([name])] == [()]
    finally:
        # It also ends the statements that attackers wait for.
        removals = [await only(tenants.remove([name])) for name in hostile]
        for attacker in attackers:
            attacker.end()
    for removed in removals:
        # MySQL lets the administrator list no prepared transaction.
        assert removed.error is None or "XA_RECOVER_ADMIN" in str(removed.error), removed.error
    assert longest < _BOUND
