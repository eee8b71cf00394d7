"""A plan as text: one line for each name, like a diff."""

from __future__ import annotations

from ..tenants import Plan
from .output import printable, stdout_console, write

_SIGNS = {
    "create": ("+ {}", "green"),
    "resume": ("~ {} (begun, goes on)", "yellow"),
    "remove": ("- {}", "red"),
    "extra": ("  {} (on record, not among the names; left alone)", "dim"),
}


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
