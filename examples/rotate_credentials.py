"""Give each user of a CSV file a new password, and record it before it counts.

    DIGITALOCEAN_TOKEN=... python rotate_credentials.py NAMES.csv --cluster ID --journal rotation-2026-10.jsonl

Run it again after any crash: names on record are left alone, the others are rotated. A name whose new password was told
to a process that was killed is among the others, and so gets another one. Use a new journal for each rotation.

The old password ends at once. Between that and the moment at which your application has read the new one from the
journal, it cannot log in anew.
"""

from __future__ import annotations

import os
import sys

from _journal import Journal, Ledger, command
from aiodbclient import DatabaseClient


async def rotate(names: list[str], cluster_id: str, journal: Journal) -> int:
    base_url = os.environ.get("DIGITALOCEAN_API_URL", "https://api.digitalocean.com")
    async with DatabaseClient(base_url=base_url) as client:
        todo = [name for name in names if name not in journal.done]
        async with Ledger(journal, total=len(names), todo=len(todo)) as ledger:
            if todo:
                await ledger.take(client.cluster(cluster_id).users.rotate(todo))
        return ledger.summary()


def main() -> int:
    return command(
        rotate,
        job="rotate",
        description="Give each user of a CSV file a new password; safe to kill, run again to go on.",
        records="new passwords",
    )


if __name__ == "__main__":
    sys.exit(main())
