"""The arguments and options that several commands take, as types for their signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ClusterArgument = Annotated[
    str, typer.Argument(metavar="CLUSTER", help="The cluster's id or name.", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
ShowOption = Annotated[bool, typer.Option("--show", help="Print secrets too.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        envvar="AIODBCLIENT_BUDGET",
        metavar="URL",
        help="Share the rate limit with other processes, through this Valkey: valkey://host:6379/0. "
        "Put a password into the variable: others can read a process's arguments.",
        show_default=False,
        show_envvar=True,
    ),
]

NamesArgument = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="The tenants.", show_default=False)]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Take the names from a CSV file: its column `name`, or its only column. - is the standard input.",
        show_default=False,
    ),
]
ClusterOption = Annotated[
    str, typer.Option("--cluster", metavar="CLUSTER", help="The cluster's id or name.", show_default=False)
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="AIODBCLIENT_STORE",
        metavar="STORE",
        help="Where the credentials are on record: a file such as tenants.db, or postgresql://user@host/db. "
        "Put a password into the variable, or into ~/.pgpass. AIODBCLIENT_STORE_KEY encrypts the store.",
        show_default=False,
    ),
]
PrefixOption = Annotated[str, typer.Option(metavar="TEXT", help="What the names of databases and logins begin with.")]
PrivateOption = Annotated[bool, typer.Option("--private", help="Give credentials the host of the private connection.")]
AdminOption = Annotated[
    str | None,
    typer.Option(
        envvar="AIODBCLIENT_ADMIN",
        metavar="DSN",
        help="The administrator that gives the rights; the cluster's primary user by default. Give it in the "
        "variable: others can read a process's arguments.",
        show_default=False,
    ),
]
