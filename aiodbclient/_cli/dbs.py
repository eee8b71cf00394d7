"""The commands ``aiodbclient dbs``."""

from __future__ import annotations

from .arguments import BudgetOption, ClusterArgument, ClusterFirstArgument, DatabaseArgument, JsonOption, YesOption
from .asking import confirm
from .help import Command, group
from .names import check_name
from .opening import find_cluster, open_client
from .output import note, print_rows
from .running import DONE, STOPPED, cluster_and_name, reads, writes

app = group("List, create and delete the databases of a cluster.")


@app.command("list", cls=Command)
@reads
async def list_dbs(cluster: ClusterArgument, json: JsonOption = False, budget: BudgetOption = None) -> int:
    """List the databases of a cluster.

    Example: aiodbclient dbs list tenants-prod
    """
    async with open_client(budget) as (client, _):
        dbs = await (await find_cluster(client, cluster)).dbs.list()
        print_rows(({"name": db.name} for db in dbs), as_json=json, none=f"{cluster} has no databases")
    return DONE


@app.command("get", cls=Command)
@reads
async def get_db(
    cluster: ClusterFirstArgument = None,
    name: DatabaseArgument = None,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Read one database: exits with 1 if it does not exist.

    Example: aiodbclient dbs get tenants-prod defaultdb
    """
    cluster, name = cluster_and_name(cluster, name)
    async with open_client(budget) as (client, _):
        db = await (await find_cluster(client, cluster)).dbs.get(name)
        print_rows([{"name": db.name}], as_json=json)
    return DONE


@app.command("create", cls=Command)
@writes
async def create_db(
    cluster: ClusterFirstArgument = None,
    name: DatabaseArgument = None,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Create a database.

    Example: aiodbclient dbs create tenants-prod archive
    """
    cluster, name = cluster_and_name(cluster, name)
    check_name(name)
    async with open_client(budget) as (client, _):
        db = await (await find_cluster(client, cluster)).dbs.create(name)
    if json:
        print_rows([{"name": db.name}], as_json=True)
    else:
        note(f"created the database {name}")
    return DONE


@app.command("delete", cls=Command)
@writes
async def delete_db(
    cluster: ClusterFirstArgument = None,
    name: DatabaseArgument = None,
    yes: YesOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Delete a database and all its data.

    Example: aiodbclient dbs delete tenants-prod archive --yes
    """
    cluster, name = cluster_and_name(cluster, name)
    if not confirm(f"Delete the database {name} of {cluster} and all its data?", yes=yes):
        return STOPPED
    async with open_client(budget) as (client, _):
        await (await find_cluster(client, cluster)).dbs.delete(name)
    note(f"deleted the database {name}")
    return DONE
