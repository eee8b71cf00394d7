"""The commands ``aiodbclient dbs``."""

from __future__ import annotations

import typer

from .arguments import BudgetOption, ClusterArgument, JsonOption, NameArgument, YesOption
from .names import check_name
from .output import confirm, print_rows, tell
from .running import DONE, STOPPED, find_cluster, open_client, runs

app = typer.Typer(no_args_is_help=True, help="The databases of a cluster.")


@app.command("list")
@runs
async def list_dbs(cluster: ClusterArgument, json: JsonOption = False, budget: BudgetOption = None) -> int:
    """List the databases of a cluster.

    Example: aiodbclient dbs list tenants-prod
    """
    async with open_client(budget) as (client, _):
        dbs = await (await find_cluster(client, cluster)).dbs.list()
        print_rows(({"name": db.name} for db in dbs), as_json=json)
    return DONE


@app.command("create")
@runs
async def create_db(cluster: ClusterArgument, name: NameArgument, budget: BudgetOption = None) -> int:
    """Create a database.

    Example: aiodbclient dbs create tenants-prod alpha
    """
    check_name(name)
    async with open_client(budget) as (client, _):
        await (await find_cluster(client, cluster)).dbs.create(name)
    tell(f"the database {name} is created")
    return DONE


@app.command("delete")
@runs
async def delete_db(
    cluster: ClusterArgument, name: NameArgument, yes: YesOption = False, budget: BudgetOption = None
) -> int:
    """Delete a database, with all that is in it.

    Example: aiodbclient dbs delete tenants-prod alpha
    """
    if not confirm(f"Delete the database {name} of {cluster}, with all that is in it?", yes=yes):
        return STOPPED
    async with open_client(budget) as (client, _):
        await (await find_cluster(client, cluster)).dbs.delete(name)
    tell(f"the database {name} is deleted")
    return DONE
