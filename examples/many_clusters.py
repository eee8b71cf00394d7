"""Sign up 6,000 customers over several clusters: ``python many_clusters.py CLUSTER_ID CLUSTER_ID CLUSTER_ID``.

Kill it and start it again: it continues. When the clusters are full, start it with another one.
The store has the passwords in plain text: in production pass ``SQLiteStore(..., key=)``.
"""

import asyncio
import sys

from aiodbclient import DatabaseClient
from aiodbclient.tenants import SQLiteStore, Tenants


async def main(clusters: list[str]) -> None:
    async with DatabaseClient() as client, SQLiteStore("customers.db") as store:
        tenants = Tenants([client.cluster(id) for id in clusters], store, max_tenants=2000)
        async for outcome in tenants.provision(f"customer_{n:04}" for n in range(6000)):
            if outcome.error is not None:
                print(outcome.name, outcome.error)
        for each in await tenants.capacity():
            print(each.cluster, "has", each.tenants, "of", each.max_tenants)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
