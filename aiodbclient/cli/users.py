"""The commands ``aiodbclient users``."""

from __future__ import annotations

import shlex

import typer
from attrs import asdict

from .. import User
from ..errors import InvalidArgumentError
from .arguments import BudgetOption, ClusterArgument, JsonOption, NameArgument, ShowOption, YesOption
from .names import check_name
from .output import check_stdout, confirm, print_rows, tell
from .running import DONE, STOPPED, find_cluster, open_client, runs

app = typer.Typer(no_args_is_help=True, help="The users of a cluster.")

_SECRETS = ("password", "access_cert", "access_key")


@app.command("list")
@runs
async def list_users(
    cluster: ClusterArgument, show: ShowOption = False, json: JsonOption = False, budget: BudgetOption = None
) -> int:
    """List the users of a cluster.

    Example: aiodbclient users list tenants-prod
    """
    async with open_client(budget) as (client, _):
        users = await (await find_cluster(client, cluster)).users.list()
        print_rows((_row(user, show) for user in users), as_json=json)
    return DONE


@app.command("get")
@runs
async def get_user(
    cluster: ClusterArgument,
    name: NameArgument,
    show: ShowOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Read one user.

    Example: aiodbclient users get tenants-prod alpha --show
    """
    async with open_client(budget) as (client, _):
        user = await (await find_cluster(client, cluster)).users.get(name)
        print_rows([_row(user, show)], as_json=json)
    return DONE


@app.command("create")
@runs
async def create_user(
    cluster: ClusterArgument,
    name: NameArgument,
    show: ShowOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Create a user. Needs --show: the password is told once.

    Example: aiodbclient users create tenants-prod alpha --show
    """
    check_name(name)
    _check_shown(show)
    async with open_client(budget) as (client, _):
        user = await (await find_cluster(client, cluster)).users.create(name)
        _print_new(user, f"the user {name} was created with a password", cluster, as_json=json)
    return DONE


@app.command("delete")
@runs
async def delete_user(
    cluster: ClusterArgument, name: NameArgument, yes: YesOption = False, budget: BudgetOption = None
) -> int:
    """Delete a user.

    Example: aiodbclient users delete tenants-prod alpha
    """
    if not confirm(f"Delete the user {name} of {cluster}?", yes=yes):
        return STOPPED
    async with open_client(budget) as (client, _):
        await (await find_cluster(client, cluster)).users.delete(name)
    tell(f"the user {name} is deleted")
    return DONE


@app.command("reset")
@runs
async def reset_user(
    cluster: ClusterArgument,
    name: NameArgument,
    show: ShowOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Give a user a new password. The old one ends at once. Needs --show: the new one is told once.

    Example: aiodbclient users reset tenants-prod alpha --show
    """
    _check_shown(show)
    question = f"Give the user {name} of {cluster} a new password? Programs that have the old one cannot log in anew."
    if not confirm(question, yes=yes):
        return STOPPED
    async with open_client(budget) as (client, _):
        user = await (await find_cluster(client, cluster)).users.reset_auth(name)
        _print_new(user, f"the user {name} has a new password", cluster, as_json=json)
    return DONE


def _check_shown(show: bool) -> None:
    if not show:
        raise InvalidArgumentError(
            "the password would be lost: say --show to print it, or put the tenant on record with "
            "`aiodbclient tenants provision`. Nothing was sent"
        )
    check_stdout("the password would be lost: nothing was sent")


def _print_new(user: User, done: str, cluster: str, *, as_json: bool) -> None:
    reset = shlex.join(["aiodbclient", "users", "reset", cluster, user.name, "--show"])
    lost = f"{done}, which was not printed and is not kept: make another password with `{reset}`"
    print_rows([_row(user, True)], as_json=as_json, lost=lost)


def _row(user: User, show: bool) -> dict[str, object]:
    told = asdict(user, filter=lambda field, value: value is not None and (show or field.name not in _SECRETS))
    return {"name": told.pop("name"), "role": told.pop("role", None)} | told
