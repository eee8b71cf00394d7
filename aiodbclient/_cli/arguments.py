"""The arguments and options that several commands take, as types for their signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..tenants._roles import Role
from .completion import clusters, tenants

CLUSTER_VARIABLE = "AIODBCLIENT_CLUSTER"
_CLUSTER_HELP = "The cluster's name or id."

ClusterArgument = Annotated[
    str,
    typer.Argument(
        metavar="CLUSTER", envvar=CLUSTER_VARIABLE, help=_CLUSTER_HELP, show_default=False, autocompletion=clusters
    ),
]
# Two arguments, of which the first may be left out: see ``running.cluster_and_name``.
ClusterFirstArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[CLUSTER]",
        help=f"{_CLUSTER_HELP} Default: ${CLUSTER_VARIABLE}.",
        show_default=False,
        autocompletion=clusters,
    ),
]
UserArgument = Annotated[str | None, typer.Argument(metavar="NAME", help="The user.", show_default=False)]
DatabaseArgument = Annotated[str | None, typer.Argument(metavar="NAME", help="The database.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line, errors too.")]
ShowOption = Annotated[bool, typer.Option("--show", help="Print secrets too.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        envvar="AIODBCLIENT_BUDGET",
        metavar="URL",
        help="Share the rate limit with other processes through a PostgreSQL or a Valkey, such as "
        "postgresql://user@host/db or valkey://host:6379/0. Put a URL with a password into the variable: other users "
        "of the machine can read arguments.",
        show_default=False,
    ),
]
UsersFileOption = Annotated[
    Path,
    typer.Option(
        "--from",
        metavar="FILE",
        help="A list of users in YAML or JSON, as the API's POST takes them. - is the standard input.",
        show_default=False,
    ),
]
PruneUsersOption = Annotated[bool, typer.Option("--prune", help="Delete the users that are not in the file.")]
AdoptOption = Annotated[
    bool, typer.Option("--adopt", help="Take over logins and databases that exist and are not on record.")
]
PruneOption = Annotated[
    bool, typer.Option("--prune", help="Remove the tenants on record that are not among the names.")
]
MaxOption = Annotated[
    int | None,
    typer.Option(
        "--max",
        metavar="N",
        min=0,
        help="Refuse to remove more than N, in case the file was cut short.",
        show_default=False,
    ),
]

NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...", help="The tenants. Names, --from or --all.", show_default=False, autocompletion=tenants
    ),
]
NewNamesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...", help="The tenants. Names or --from.", show_default=False, autocompletion=tenants
    ),
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Read the names from a CSV file: its column `name`, or its only column. - is the standard input.",
        show_default=False,
    ),
]
ClusterOption = Annotated[
    str,
    typer.Option(
        "--cluster",
        metavar="CLUSTER",
        envvar=CLUSTER_VARIABLE,
        help=_CLUSTER_HELP,
        show_default=False,
        autocompletion=clusters,
    ),
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="AIODBCLIENT_STORE",
        metavar="STORE",
        help="Where the credentials are stored: a file such as tenants.db, or a PostgreSQL such as "
        "postgresql://user@host/db. Put a password into the variable, or into ~/.pgpass. "
        "$AIODBCLIENT_STORE_KEY encrypts the store.",
        show_default=False,
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="All tenants in the store.")]
RoleOption = Annotated[
    Role,
    typer.Option(
        "--role",
        metavar="owner|writer|reader",
        help="Which logins of the tenants: their owner, or one that writes or reads data only. Default: owner.",
        show_default=False,
    ),
]
PrefixOption = Annotated[
    str, typer.Option(metavar="TEXT", help="The prefix of the tenants' databases and logins.", show_default=False)
]
PrivateOption = Annotated[bool, typer.Option("--private", help="Use the cluster's private connection.")]
AdminOption = Annotated[
    str | None,
    typer.Option(
        envvar="AIODBCLIENT_ADMIN",
        metavar="DSN",
        help="The administrator who grants the rights, if it is not the cluster's primary user. Use the variable: "
        "other users of the machine can read arguments.",
        show_default=False,
    ),
]
