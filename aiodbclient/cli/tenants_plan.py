"""What would be changed: ``tenants plan``."""

from __future__ import annotations

from ..tenants import Plan
from .arguments import (
    BudgetOption,
    ClusterOption,
    FromOption,
    JsonOption,
    NamesArgument,
    PrefixOption,
    PruneOption,
    StoreOption,
)
from .names import read_names
from .output import print_rows, printable, stdout_console, write
from .running import DIFFERENT, DONE, reads
from .tenants_place import Where, open_place

_SIGNS = {
    "create": ("+ {}", "green"),
    "resume": ("~ {} (begun, goes on)", "yellow"),
    "remove": ("- {}", "red"),
    "extra": ("  {} (on record, not among the names; left alone)", "dim"),
}


@reads
async def plan_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    prune: PruneOption = False,
    prefix: PrefixOption = "",
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Compare the names with the store, and change nothing. Exits with 5 if something differs.

    Example: aiodbclient tenants plan --from names.csv --cluster tenants-prod --store tenants.db
    """
    wanted = read_names(names, file)
    where = Where(cluster=cluster, store=store, budget=budget, prefix=prefix)
    async with open_place(where, plans=True) as place:
        plan = await place.tenants.plan(wanted, prune=prune)
    if json:
        print_rows(({"name": name, "change": change} for name, change in changes(plan)), as_json=True)
    else:
        print_plan(plan)
    return DIFFERENT if plan.create or plan.resume or (prune and plan.extra) else DONE


def changes(plan: Plan) -> list[tuple[str, str]]:
    """Each name with what is to be done with it: "create", "resume", "remove", "extra" or "keep"."""
    extra = "remove" if plan.prune else "extra"
    kinds = {"create": plan.create, "resume": plan.resume, extra: plan.extra, "keep": plan.keep}
    return [(name, kind) for kind, names in kinds.items() for name in names]


def print_plan(plan: Plan) -> None:
    """Print a line for each name that differs, and then how many there are of each kind."""
    console = stdout_console()
    with console.capture() as captured:
        for name, change in changes(plan):
            if change in _SIGNS:
                sign, style = _SIGNS[change]
                console.print(sign.format(printable(name)), style=style, soft_wrap=True)
        removed = len(plan.extra) if plan.prune else 0
        console.print(
            f"{len(plan.create)} to create, {len(plan.resume)} to go on with, {removed} to remove, "
            f"{len(plan.keep)} on record",
            soft_wrap=True,
        )
    write(captured.get())
