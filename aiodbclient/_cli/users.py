"""The commands ``aiodbclient users``."""

from __future__ import annotations

from attrs import asdict

from .. import User
from ..errors import InvalidArgumentError
from .arguments import (
    BudgetOption,
    ClusterArgument,
    ClusterFirstArgument,
    JsonOption,
    ShowOption,
    UserArgument,
    YesOption,
)
from .asking import confirm
from .help import Command, group
from .names import check_name
from .opening import find_cluster, open_client
from .output import check_stdout, command_line, note, print_rows
from .running import DONE, STOPPED, cluster_and_name, reads, writes
from .users_plan import apply_users, plan_users

app = group("Manage the users of a cluster, one at a time or from a file.")

_SECRETS = ("password", "access_cert", "access_key")


@app.command("list", cls=Command)
@reads
async def list_users(
    cluster: ClusterArgument, show: ShowOption = False, json: JsonOption = False, budget: BudgetOption = None
) -> int:
    """List the users of a cluster.

    Example: aiodbclient users list tenants-prod
    """
    async with open_client(budget) as (client, _):
        users = await (await find_cluster(client, cluster)).users.list()
        print_rows((_row(user, show) for user in users), as_json=json, none=f"{cluster} has no users")
    return DONE


@app.command("get", cls=Command)
@reads
async def get_user(
    cluster: ClusterFirstArgument = None,
    name: UserArgument = None,
    show: ShowOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Read one user.

    Example: aiodbclient users get tenants-prod reporting --show
    """
    cluster, name = cluster_and_name(cluster, name)
    async with open_client(budget) as (client, _):
        user = await (await find_cluster(client, cluster)).users.get(name)
        print_rows([_row(user, show)], as_json=json)
    return DONE


@app.command("create", cls=Command)
@writes
async def create_user(
    cluster: ClusterFirstArgument = None,
    name: UserArgument = None,
    show: ShowOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Create a user. It needs --show, because the password is printed once and not stored.

    Example: aiodbclient users create tenants-prod reporting --show
    """
    cluster, name = cluster_and_name(cluster, name)
    check_name(name)
    _check_shown(show)
    async with open_client(budget) as (client, _):
        user = await (await find_cluster(client, cluster)).users.create(name)
        _print_new(user, f"the user {name} was created with a password", cluster, as_json=json)
    return DONE


@app.command("delete", cls=Command)
@writes
async def delete_user(
    cluster: ClusterFirstArgument = None,
    name: UserArgument = None,
    yes: YesOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Delete a user.

    Example: aiodbclient users delete tenants-prod reporting --yes
    """
    cluster, name = cluster_and_name(cluster, name)
    if not confirm(f"Delete the user {name} of {cluster}?", yes=yes):
        return STOPPED
    async with open_client(budget) as (client, _):
        await (await find_cluster(client, cluster)).users.delete(name)
    note(f"deleted the user {name}")
    return DONE


@app.command("reset", cls=Command)
@writes
async def reset_user(
    cluster: ClusterFirstArgument = None,
    name: UserArgument = None,
    show: ShowOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Give a user a new password. The old one stops working at once.

    It needs --show, because the new password is printed once and not stored.

    Example: aiodbclient users reset tenants-prod reporting --show --yes
    """
    cluster, name = cluster_and_name(cluster, name)
    _check_shown(show)
    question = f"Give the user {name} of {cluster} a new password? The old one stops working at once."
    if not confirm(question, yes=yes):
        return STOPPED
    async with open_client(budget) as (client, _):
        user = await (await find_cluster(client, cluster)).users.reset_auth(name)
        _print_new(user, f"the user {name} has a new password", cluster, as_json=json)
    return DONE


def _check_shown(show: bool) -> None:
    if not show:
        raise InvalidArgumentError(
            "the password would be lost: repeat with --show to print it, or use `aiodbclient tenants provision`, "
            "which stores it. Nothing was sent"
        )
    check_stdout("the password would be lost: nothing was sent")


def _print_new(user: User, done: str, cluster: str, *, as_json: bool) -> None:
    reset = command_line(["users", "reset", cluster, user.name, "--show"])
    lost = f"{done}, which was not printed and is not stored. Make another one: {reset}"
    print_rows([_row(user, True)], as_json=as_json, lost=lost)


def _row(user: User, show: bool) -> dict[str, object]:
    row = asdict(user, filter=lambda field, value: value is not None and (show or field.name not in _SECRETS))
    return {"name": row.pop("name"), "role": row.pop("role", None)} | row


app.command("plan", cls=Command)(plan_users)
app.command("apply", cls=Command)(apply_users)
