"""Put each new customer on the cluster with the least data: ``python place_by_bytes.py NAME CLUSTER_ID CLUSTER_ID``.

A service reads the sizes every few minutes: each cluster answers with one query, however many tenants it has.
"""

import asyncio
import sys
from collections.abc import Sequence
from math import inf

from aiodbclient import DatabaseClient
from aiodbclient.tenants import ClusterCapacity, SQLiteStore, Tenants


class LeastData:
    """Chooses the cluster with the least data when it was last read."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}

    async def read(self, tenants: Tenants) -> None:
        capacities = await tenants.capacity()
        self.bytes = {each.cluster: each.bytes for each in capacities if each.bytes is not None}

    async def __call__(self, name: str, capacities: Sequence[ClusterCapacity]) -> str:
        free = [each for each in capacities if each.max_tenants is None or each.tenants < each.max_tenants]
        # A cluster that could not be read comes last. Among equals, the one with fewer tenants.
        return min(free, key=lambda each: (self.bytes.get(each.cluster, inf), each.tenants)).cluster


async def main(name: str, *clusters: str) -> None:
    choose = LeastData()
    async with DatabaseClient() as client, SQLiteStore("customers.db") as store:
        tenants = Tenants([client.cluster(id) for id in clusters], store, choose_cluster=choose)
        await choose.read(tenants)
        credential = await tenants.ensure(name)
        print(name, "is on", credential.cluster)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
