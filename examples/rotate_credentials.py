"""Let a second login of each tenant on record take over, without an outage.

    DIGITALOCEAN_TOKEN=... python rotate_credentials.py --cluster ID --store tenants.db
    ... once every program has read its new credential:
    DIGITALOCEAN_TOKEN=... python rotate_credentials.py --cluster ID --store tenants.db --retire

The credential from before works until the second command. After a crash run the same command again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from aiodbclient import DatabaseClient
from aiodbclient.tenants import SQLiteStore, Tenants


async def rotate(cluster_id: str, path: Path, *, retire: bool) -> bool:
    """Whether it was done for every tenant."""
    done = True
    async with DatabaseClient() as client, SQLiteStore(path) as store:
        tenants = Tenants(client.cluster(cluster_id), store)
        # Rotating a tenant again that is rotated already would end the credential that programs still use.
        names = [record.name async for record in store.records() if record.current and (retire or not record.previous)]
        async for outcome in tenants.retire(names) if retire else tenants.rotate(names):
            print(outcome.name, outcome.action)
            if outcome.error is not None:
                print(f"{outcome.name}: {outcome.error}", file=sys.stderr)
                done = False
    return done


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--retire", action="store_true")
    given = parser.parse_args()
    sys.exit(0 if asyncio.run(rotate(given.cluster, given.store, retire=given.retire)) else 1)
