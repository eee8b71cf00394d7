"""The users of a cluster from a file: ``users plan`` and ``users apply``."""

from __future__ import annotations

from typing import Any

from .. import UserPlan
from .arguments import (
    BudgetOption,
    ClusterArgument,
    JsonOption,
    MaxOption,
    PruneUsersOption,
    ShowOption,
    UsersFileOption,
    YesOption,
)
from .asking import confirm
from .following import Shown, follow
from .opening import find_cluster, open_client
from .output import print_rows, printable, stdout_console, write
from .removing import check_most, some
from .running import DIFFERENT, DONE, STOPPED, reads, writes
from .users_file import read_users

_STYLES = {"+": "green", "~": "yellow", "-": "red"}


@reads
async def plan_users(
    cluster: ClusterArgument,
    file: UsersFileOption,
    prune: PruneUsersOption = False,
    most: MaxOption = None,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Compare the users of a cluster with a file, and change nothing. Exits with 5 if something differs.

    Example: aiodbclient users plan tenants-prod --from users.yaml
    """
    wanted = read_users(file)
    async with open_client(budget) as (client, _):
        plan = await (await find_cluster(client, cluster)).users.plan(wanted, prune=prune)
    if json:
        print_rows(_changes(plan), as_json=True)
    else:
        _print(plan)
    if prune:
        check_most(len(plan.extra), most)
    return DIFFERENT if plan else DONE


@writes
async def apply_users(
    cluster: ClusterArgument,
    file: UsersFileOption,
    prune: PruneUsersOption = False,
    most: MaxOption = None,
    yes: YesOption = False,
    show: ShowOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Bring the users of a cluster in line with a file: create and update them, and with --prune delete all others.

    --show prints the passwords of new users. `users get --show` prints them later, except on MongoDB.

    Example: aiodbclient users apply tenants-prod --from users.yaml
    """
    wanted = read_users(file)
    async with open_client(budget) as (client, limit):
        plan = await (await find_cluster(client, cluster)).users.plan(wanted, prune=prune)
        extra = plan.extra if prune else ()
        check_most(len(extra), most)
        if extra and not confirm(f"Delete {some(extra)} from {cluster}?", yes=yes):
            return STOPPED
        total = len(plan.create) + len(plan.update) + len(extra)

        def row(outcome: Any) -> dict[str, Any]:
            return {"password": outcome.user.password} if show and outcome.user is not None else {}

        def details(outcome: Any) -> str:
            password = row(outcome).get("password")
            return "" if password is None else f"name: {printable(outcome.name)}\npassword: {password}\n"

        shown = Shown(as_json=json, row=row, details=details)
        return await follow(plan.apply(), total=total, budget=limit, shown=shown)


def _changes(plan: UserPlan) -> list[dict[str, Any]]:
    extra = "delete" if plan.prune else "extra"
    kinds = {"create": plan.create, "update": plan.update, extra: plan.extra, "keep": plan.keep}
    return [
        {"name": name, "change": kind}
        | ({"differs": list(map(str, plan.differences[name]))} if kind == "update" else {})
        for kind, names in kinds.items()
        for name in names
    ]


def _print(plan: UserPlan) -> None:
    console = stdout_console()
    with console.capture() as captured:
        for line in str(plan).splitlines():
            console.print(printable(line), style=_STYLES.get(line[:1]), soft_wrap=True)
    write(captured.get())
