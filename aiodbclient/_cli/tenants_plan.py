"""What would be changed: ``tenants plan``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..tenants import Plan, Role
from .arguments import (
    AdminOption,
    AdoptOption,
    BudgetOption,
    ClusterOption,
    FromOption,
    JsonOption,
    MaxOption,
    NewNamesArgument,
    PrefixOption,
    PruneOption,
    RoleOption,
    StoreOption,
)
from .names import locate_names
from .output import print_rows, printable, stdout_console, write
from .removing import check_most
from .running import DIFFERENT, DONE, reads
from .stores import IfMissing
from .tenants_place import Where, open_place

_SIGNS = {
    "create": ("+ {}", "green"),
    "adopt": ("+ {} (adopted: its login or database exists{})", "yellow"),
    "conflict": ("! {} (in conflict: its login or database exists and is not on record; --adopt takes it over)", "red"),
    "resume": ("~ {} (unfinished, will be resumed)", "yellow"),
    "repair": ("~ {} (has problems: `tenants check` lists them)", "yellow"),
    "remove": ("- {}", "red"),
    "extra": ("  {} (on record, not among the names; left alone)", "dim"),
}


@reads
async def plan_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NewNamesArgument = None,
    file: FromOption = None,
    role: RoleOption = Role.OWNER,
    prune: PruneOption = False,
    most: MaxOption = None,
    adopt: AdoptOption = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Check the tenants in the store too.")] = False,
    prefix: PrefixOption = "",
    admin: AdminOption = None,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Compare the names with the store and the cluster, and change nothing. Exits with 5 if something differs.

    Example: aiodbclient tenants plan --from names.csv --cluster tenants-prod --store tenants.db
    """
    wanted = locate_names(names, file)
    where = Where(cluster=cluster, store=store, budget=budget, role=role, prefix=prefix, admin=admin)
    async with open_place(where, IfMissing.EMPTY) as place:
        place.check(wanted)
        plan = await place.tenants.plan(wanted, prune=prune, refresh=refresh, if_exists="adopt" if adopt else "error")
    if json:
        print_rows(({"name": name, "change": change} for name, change in _changes(plan)), as_json=True)
    else:
        _print(plan)
    if prune:
        check_most(len(plan.extra), most)
    differs = plan.create or plan.adopt or plan.conflict or plan.resume or plan.repair or (prune and plan.extra)
    return DIFFERENT if differs else DONE


def _changes(plan: Plan) -> list[tuple[str, str]]:
    """Each name with its change: a key of ``_SIGNS``, or "keep"."""
    kinds = {
        "create": plan.create,
        "adopt": plan.adopt,
        "conflict": plan.conflict,
        "resume": plan.resume,
        "repair": plan.repair,
        "remove" if plan.prune else "extra": plan.extra,
        "keep": plan.keep,
    }
    return [(name, kind) for kind, names in kinds.items() for name in names]


def _print(plan: Plan) -> None:
    """Print a line for each name that differs, and then the number of each kind."""
    console = stdout_console()
    with console.capture() as captured:
        for name, change in _changes(plan):
            if change in _SIGNS:
                sign, style = _SIGNS[change]
                shut_out = plan.shut_out.get(name)
                more = f"; {', '.join(map(printable, shut_out))} can no longer use it" if shut_out else ""
                console.print(sign.format(printable(name), more), style=style, soft_wrap=True)
        counts = [
            f"{len(plan.create)} to create",
            f"{len(plan.resume)} to resume",
            f"{len(plan.extra) if plan.prune else 0} to remove",
            f"{len(plan.keep)} to keep",
        ]
        others = {"to adopt": plan.adopt, "in conflict": plan.conflict, "to repair": plan.repair}
        counts += [f"{len(names)} {what}" for what, names in others.items() if names]
        console.print(", ".join(counts), soft_wrap=True)
    write(captured.get())
