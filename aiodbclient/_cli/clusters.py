"""The commands ``aiodbclient clusters``."""

from __future__ import annotations

from .. import Cluster
from .arguments import BudgetOption, ClusterArgument, JsonOption
from .help import Command, ListGroup, group
from .opening import find_cluster, open_client
from .output import print_rows
from .running import DONE, reads

app = group("List the account's clusters, or read one.", ListGroup)


@app.command("list", cls=Command)
@reads
async def list_clusters(json: JsonOption = False, budget: BudgetOption = None) -> int:
    """List the account's clusters. `aiodbclient clusters` alone does the same.

    Example: aiodbclient clusters list
    """
    async with open_client(budget) as (client, _):
        print_rows(map(_row, await client.clusters.list()), as_json=json, none="the account has no clusters")
    return DONE


@app.command("get", cls=Command)
@reads
async def get_cluster(cluster: ClusterArgument, json: JsonOption = False, budget: BudgetOption = None) -> int:
    """Read one cluster, and where it listens.

    Example: aiodbclient clusters get tenants-prod
    """
    async with open_client(budget) as (client, _):
        info = await (await find_cluster(client, cluster)).info()
        where = {"host": info.connection.host, "port": info.connection.port, "tls": info.connection.ssl}
        private = {} if info.private_connection is None else {"private_host": info.private_connection.host}
        print_rows([_row(info) | where | private], as_json=json)
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
