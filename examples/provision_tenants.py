"""Give each name of a file a database and a login of its own, and lose no credential, whatever happens on the way.

    DIGITALOCEAN_TOKEN=... python provision_tenants.py NAMES.txt --cluster ID --store tenants.db

One name a line. Run it again after any crash: it goes on where it was. Run it several times at once: the processes
share the work. Ctrl-C and SIGTERM end it once what is in flight is on record.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path

from aiodbclient import DatabaseClient
from aiodbclient.tenants import SQLiteStore, Tenants


async def provision(names: list[str], cluster_id: str, path: Path) -> bool:
    """Whether each of ``names`` has its credential on record now."""
    async with DatabaseClient() as client, SQLiteStore(path) as store:
        run = Tenants(client.cluster(cluster_id), store).provision(names)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, run.stop)
        counts = Counter[str]()
        async for outcome in run:
            counts[outcome.action] += 1
            if outcome.error is not None:
                print(f"{outcome.name}: {outcome.error}", file=sys.stderr)
    print(", ".join(f"{count} {action}" for action, count in sorted(counts.items())) or "nothing to do")
    return counts.total() == len(names) and not counts["failed"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", type=Path)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--store", type=Path, required=True)
    given = parser.parse_args()
    names = list(dict.fromkeys(given.names.read_text().split("\n")[:-1]))
    sys.exit(0 if asyncio.run(provision(names, given.cluster, given.store)) else 1)
