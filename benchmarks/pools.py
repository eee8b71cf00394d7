"""Measure tenant pools: queries that fail while tenants are rotated and revoked, and the CPU time of a use.

20 clients query the pools of 50 tenants, one after the other and without a pause. Meanwhile all tenants are rotated,
and then revoked, three times. Between rotating and revoking, the benchmark waits for `refresh` seconds and the longest
query. The API is a sandbox in another process, with a PostgreSQL and without a rate limit.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Any

import asyncpg

from aiodbclient.tenants import Credential, SQLiteStore, TenantPools, Tenants
from tenants import sandbox

TENANTS, CLIENTS, ROUNDS, REFRESH = 50, 20, 3, 0.5
USES, MOST_MICROSECONDS = 100_000, 20.0


async def open_pool(credential: Credential) -> Any:
    return await asyncpg.create_pool(credential.uri, ssl=credential.ssl_context(), min_size=1, max_size=1)


async def query(
    pools: TenantPools[Any], names: list[str], seen: dict[str, Counter[str]], failed: list[Exception]
) -> None:
    """Query one tenant after the other until cancelled, and count the logins that were used."""
    for name in itertools.cycle(names):
        try:
            async with pools.use(name) as pool:
                seen[name][await pool.fetchval("SELECT session_user")] += 1
        except Exception as error:  # noqa: BLE001  counted
            failed.append(error)


async def rotations(folder: Path) -> bool:
    """Return whether no query fails and every pool follows each rotation."""
    names = [f"tenant{number:02}" for number in range(TENANTS)]
    async with (
        sandbox() as cluster,
        SQLiteStore(folder / "tenants.db") as store,
    ):
        tenants = Tenants(cluster, store)
        assert [outcome.error async for outcome in tenants.provision(names)] == [None] * TENANTS
        failed: list[Exception] = []
        queries = moved = 0
        pools = TenantPools(
            tenants, open=open_pool, close=asyncpg.Pool.close, max_pools=TENANTS + CLIENTS, refresh=REFRESH
        )
        async with pools:
            seen: dict[str, Counter[str]] = {name: Counter() for name in names}
            starts = range(0, TENANTS, max(1, TENANTS // CLIENTS))
            orders = [names[start:] + names[:start] for start in itertools.islice(itertools.cycle(starts), CLIENTS)]
            clients = [asyncio.create_task(query(pools, order, seen, failed)) for order in orders]
            for _ in range(ROUNDS):
                assert [outcome.error async for outcome in tenants.rotate(names)] == [None] * TENANTS
                await asyncio.sleep(REFRESH + 1.0)
                for logins in seen.values():
                    queries += logins.total()
                    logins.clear()
                assert [outcome.error async for outcome in tenants.revoke_previous(names)] == [None] * TENANTS
                await asyncio.sleep(0.5)
                for name in names:
                    credential = await tenants.get(name)
                    assert credential is not None
                    moved += list(seen[name]) == [credential.username]
            for each in clients:
                each.cancel()
            await asyncio.wait(clients)
    for error in failed[:5]:
        print(f"  {type(error).__name__}: {error}")
    print(
        f"{CLIENTS} clients, {TENANTS} tenants, {ROUNDS} rounds: {len(failed)} of {queries:,} queries failed; limit 0"
    )
    print(f"pools that changed to the new login, and to no other: {moved} of {ROUNDS * TENANTS}")
    return not failed and moved == ROUNDS * TENANTS


async def cost() -> bool:
    """Return whether a use of an open pool is cheap."""

    class Records:
        async def get(self, name: str) -> Credential:
            return Credential(
                name=name,
                username=name,
                password="",
                database=name,
                host="x",
                port=1,
                engine="pg",
                cluster="x",
                cluster_name="x",
                created=datetime.now(UTC),
            )

    async def nothing(_: object) -> None:
        pass

    async with TenantPools(Records(), open=nothing, close=nothing, max_pools=20, refresh=3600.0) as pools:
        async with pools.use("alpha"):
            pass
        began = process_time()
        for _ in range(USES):
            async with pools.use("alpha"):
                pass
        each = (process_time() - began) / USES * 1e6
    print(f"CPU time of a use of an open pool: {each:.1f} us; limit {MOST_MICROSECONDS:g}")
    return each <= MOST_MICROSECONDS


async def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        return 0 if all([await cost(), await rotations(Path(folder))]) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
