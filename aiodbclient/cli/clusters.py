"""The command ``aiodbclient clusters``."""

from __future__ import annotations

from .. import Cluster
from .arguments import BudgetOption, JsonOption
from .output import print_rows
from .running import DONE, open_client, runs


@runs
async def list_clusters(json: JsonOption = False, budget: BudgetOption = None) -> int:
    """List the account's clusters.

    Example: aiodbclient clusters --json
    """
    async with open_client(budget) as (client, _):
        print_rows(map(_row, await client.clusters.list()), as_json=json)
    return DONE


def _row(cluster: Cluster) -> dict[str, object]:
    return {
        "id": cluster.id,
        "name": cluster.name,
        "engine": cluster.engine,
        "version": cluster.version,
        "status": cluster.status,
        "region": cluster.region,
    }
