"""Create a user for each name of a CSV file, and lose no credential, whatever happens on the way.

    DIGITALOCEAN_TOKEN=... python provision_tenants.py NAMES.csv --cluster ID --journal tenants.jsonl

Run it again after any crash: it goes on where it was. A password is told once, so what is asked for and what came of
it is on disk before it counts:

- A name that is not there yet gets an intent in the journal before the request to create it is sent.
- Each outcome is in the journal before the progress bar counts it. A name on record is never touched again.
- A name with an intent and no outcome may have been created by a process that was killed. If it is there now, nobody
  who lives was told its password, and so it gets a new one.
- A name that is there and has no intent was there before this job. It is kept as it is and recorded with the password
  that the API tells; where it tells none (MongoDB, a token without database:view_credentials), with none.

What cannot be known: if somebody else creates one of the names while it has an intent and no outcome, it looks as if
the killed process had, and its password is reset.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from _journal import Journal, Ledger, command
from aiodbclient import Action, DatabaseClient, UserDone

AHEAD = 50  # intents written at a time: names whose fate is open after a crash, beside those in flight


async def provision(names: list[str], cluster_id: str, journal: Journal) -> int:
    base_url = os.environ.get("DIGITALOCEAN_API_URL", "https://api.digitalocean.com")
    async with DatabaseClient(base_url=base_url) as client:
        users = client.cluster(cluster_id).users
        todo = [name for name in names if name not in journal.done]
        existing = {user.name: user for user in await users.list()} if todo else {}
        interrupted = [name for name in todo if name in journal.open_intents]
        there = [name for name in todo if name in existing and name not in journal.open_intents]
        fresh = [name for name in todo if name not in existing and name not in journal.open_intents]

        def intended() -> Iterator[str]:
            for start in range(0, len(fresh), AHEAD):
                chunk = fresh[start : start + AHEAD]
                journal.intend(chunk)
                yield from chunk

        async with Ledger(journal, total=len(names), todo=len(todo)) as ledger:
            for name in there:
                ledger.record(UserDone(name=name, action=Action.KEPT, user=existing[name]))
            if interrupted:
                await ledger.take(users.provision(interrupted, if_exists="reset"))
            if fresh:
                await ledger.take(users.provision(intended(), if_exists="keep"))
        return ledger.summary()


def main() -> int:
    return command(
        provision,
        job="provision",
        description="Create a user for each name of a CSV file; safe to kill, run again to go on.",
        records="credentials",
    )


if __name__ == "__main__":
    sys.exit(main())
