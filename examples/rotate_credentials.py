"""Give each user of a CSV file a new password, and record it before it counts.

    DIGITALOCEAN_TOKEN=... python rotate_credentials.py NAMES.csv --cluster ID --journal rotation-2026-10.jsonl

Run it again after any crash: names on record are left alone, the others are rotated. A name whose new password was told
to a process that was killed is among the others, and so gets another one. Use a new journal for each rotation.

The old password ends at once. Between that and the moment at which your application has read the new one from the
journal, it cannot log in anew.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from uuid import UUID

from _journal import EXIT_CODES, Journal, JournalError, Ledger, read_names
from aiodbclient import DatabaseClient
from aiodbclient.errors import ConfigurationError, DatabaseClientError


async def rotate(names: list[str], cluster_id: str, journal: Journal) -> int:
    base_url = os.environ.get("DIGITALOCEAN_API_URL", "https://api.digitalocean.com")
    async with DatabaseClient(base_url=base_url) as client:
        todo = [name for name in names if name not in journal.done]
        async with Ledger(journal, total=len(names), todo=len(todo)) as ledger:
            if todo:
                await ledger.take(client.cluster(cluster_id).users.rotate(todo))
        return ledger.summary()


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Give each user of a CSV file a new password; safe to kill, run again to go on.",
        epilog=EXIT_CODES
        + ". The token comes from DIGITALOCEAN_TOKEN; DIGITALOCEAN_API_URL is where the API is, if elsewhere.",
    )
    parser.add_argument("names", type=Path, metavar="NAMES.csv", help="its column `name`, or else its first column")
    parser.add_argument("--cluster", required=True, type=UUID, metavar="ID", help="the id of the database cluster")
    parser.add_argument("--journal", required=True, type=Path, metavar="FILE", help="where new passwords are recorded")
    options = parser.parse_args()
    cluster = str(options.cluster)
    try:
        names = read_names(options.names)
        with Journal(options.journal, job="rotate", cluster=cluster) as journal:
            return asyncio.run(rotate(names, cluster, journal))
    except (JournalError, ConfigurationError) as error:
        print(f"rotate_credentials: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 3
    except DatabaseClientError as error:
        print(f"rotate_credentials: {error}", file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main())
