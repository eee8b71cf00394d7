"""The commands for the day after: check, repair, rotate and retire tenants."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from ..tenants import Problem, Role, TenantChecked
from .arguments import (
    AdminOption,
    AllOption,
    BudgetOption,
    ClusterOption,
    FromOption,
    JsonOption,
    NamesArgument,
    PrefixOption,
    PrivateOption,
    RoleOption,
    ShowOption,
    StoreOption,
)
from .durations import duration
from .following import Shown, follow
from .output import note, print_rows, printable
from .running import DIFFERENT, DONE, SOME_FAILED, reads, writes
from .tenants_place import Where, chosen, open_place
from .tenants_run import do


class CheckOutput(StrEnum):
    """The form in which ``check`` prints."""

    PROBLEMS = "problems"
    TABLE = "table"
    JSON = "json"


@reads
async def check_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    everybody: AllOption = False,
    role: RoleOption = Role.OWNER,
    output: Annotated[
        CheckOutput,
        typer.Option(
            "--output",
            "-o",
            metavar="FORMAT",
            help="problems (a line for each tenant that has one), table or json (all tenants). Default: problems.",
            show_default=False,
        ),
    ] = CheckOutput.PROBLEMS,
    prefix: PrefixOption = "",
    admin: AdminOption = None,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Find out whether tenants work, and change nothing. Without names: all. Exits with 5 if one has a problem.

    Example: aiodbclient tenants check --cluster tenants-prod --store tenants.db
    """
    wanted = chosen(names, file, everybody or not (names or file))
    kind = CheckOutput.JSON if json else output
    where = Where(cluster=cluster, store=store, budget=budget, role=role, prefix=prefix, admin=admin)
    broken, unfinished, rows = list[str](), list[str](), list[dict[str, Any]]()

    def row(outcome: TenantChecked) -> dict[str, Any]:
        if outcome.problems:
            broken.append(outcome.name)
        if {Problem.UNFINISHED, Problem.REMOVAL_UNFINISHED}.intersection(outcome.problems):
            unfinished.append(outcome.name)
        now = outcome.credential
        return {
            "role": role.value,
            "state": "problems" if outcome.problems else "ok",
            "login": None if now is None else now.username,
            "since": None if now is None or now.since is None else now.since.isoformat(timespec="seconds"),
            "problems": list(outcome.problems),
        }

    def details(outcome: TenantChecked) -> str:
        members = row(outcome)
        if kind is CheckOutput.TABLE:
            rows.append({"name": outcome.name} | members | {"problems": ", ".join(outcome.problems)})
            return ""
        return f"{printable(outcome.name)}: {', '.join(outcome.problems)}" if outcome.problems else ""

    async with open_place(where) as place:
        total = await place.count() if wanted is None else len(wanted)
        run = place.tenants.check(wanted)
        shown = Shown(as_json=kind is CheckOutput.JSON, row=row, details=details)
        code = await follow(run, total=total, budget=place.budget, shown=shown)
    print_rows(rows, as_json=False)
    if not broken or code not in (DONE, SOME_FAILED):
        return code
    begun = "" if not unfinished else "; `aiodbclient tenants list` names the command that finishes what was begun"
    note(f"{len(broken)} with problems: `aiodbclient tenants repair` repairs them{begun}")
    return DIFFERENT if code == DONE else code


@writes
async def repair_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    everybody: AllOption = False,
    role: RoleOption = Role.OWNER,
    recreate: Annotated[
        bool, typer.Option("--recreate", help="Create missing databases again, empty. Their data is lost already.")
    ] = False,
    prefix: PrefixOption = "",
    private: PrivateOption = False,
    admin: AdminOption = None,
    show: ShowOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Repair the problems that `check` finds. Never drops data.

    Example: aiodbclient tenants repair --all --cluster tenants-prod --store tenants.db
    """
    wanted = chosen(names, file, everybody)
    where = Where(cluster=cluster, store=store, budget=budget, role=role, prefix=prefix, private=private, admin=admin)
    async with open_place(where) as place:
        total = await place.count() if wanted is None else len(wanted)
        return await do(place.tenants.repair(wanted, recreate=recreate), total, place, show=show, json=json)


@writes
async def rotate_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    everybody: AllOption = False,
    role: RoleOption = Role.OWNER,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Skip tenants whose credential is younger, such as 30d or 12h.", show_default=False
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Rotate also tenants that are not retired yet. Programs may still use what this ends.",
        ),
    ] = False,
    prefix: PrefixOption = "",
    private: PrivateOption = False,
    admin: AdminOption = None,
    show: ShowOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Give each tenant a new credential, with its other login. The old one works until `retire`.

    Example: aiodbclient tenants rotate alpha beta --cluster tenants-prod --store tenants.db
    Example: aiodbclient tenants rotate --all --older-than 30d --cluster tenants-prod --store tenants.db
    """
    wanted, age = chosen(names, file, everybody), duration(older_than, "--older-than")
    where = Where(cluster=cluster, store=store, budget=budget, role=role, prefix=prefix, private=private, admin=admin)
    async with open_place(where) as place:
        total = await place.count() if wanted is None else len(wanted)
        run = place.tenants.rotate(wanted, older_than=age, force=force)
        return await do(run, total, place, show=show, json=json, once=age is None)


@writes
async def retire_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    everybody: AllOption = False,
    role: RoleOption = Role.OWNER,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Skip tenants that were rotated more recently, such as 1d.", show_default=False
        ),
    ] = None,
    end_sessions: Annotated[
        bool,
        typer.Option("--end-sessions/--no-end-sessions", help="Whether to end open sessions of the old login."),
    ] = True,
    prefix: PrefixOption = "",
    private: PrivateOption = False,
    admin: AdminOption = None,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """End the credential from before `rotate`: its password and its sessions.

    Example: aiodbclient tenants retire alpha beta --cluster tenants-prod --store tenants.db
    Example: aiodbclient tenants retire --all --after 1d --cluster tenants-prod --store tenants.db
    """
    wanted, age = chosen(names, file, everybody), duration(after, "--after")
    where = Where(cluster=cluster, store=store, budget=budget, role=role, prefix=prefix, private=private, admin=admin)
    async with open_place(where) as place:
        total = await place.count() if wanted is None else len(wanted)
        return await do(place.tenants.retire(wanted, after=age, end_sessions=end_sessions), total, place, json=json)
