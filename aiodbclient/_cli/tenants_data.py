"""The commands that are about the data of tenants: usage and move."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from attrs import evolve

from ..errors import InvalidArgumentError
from ..tenants import Role
from .arguments import Chosen, MaxOption, Place, YesOption, argument, duration_option, option
from .asking import confirm_ending, some
from .completion import cluster_names, tenant_names
from .failures import Exit, message_of
from .output import note, safe, took
from .printing import Printed, Table, print_rows
from .running import runs
from .tenants_place import named, open_place, open_selection, report_of

if TYPE_CHECKING:
    from ..tenants import Usage

_UNITS = ("B", "kB", "MB", "GB", "TB")
_SORTS = {"size": "bytes", "connections": "connections"}


@runs
async def show_usage(
    chosen: Chosen,
    place: Place,
    printed: Table,
    sort: Annotated[
        str, option("--sort", metavar="size|connections|name|cluster", help="What comes first. Default: size.")
    ] = "size",
) -> int:
    """Print the size of each tenant's database and its open connections, with the total. Without names: of all.

    Example: aiodbclient tenants usage --sort size --cluster tenants-prod --store tenants.db
    """
    if sort not in (*_SORTS, "name", "cluster"):
        raise InvalidArgumentError(
            f"--sort {sort}: no such column; there are name, cluster, size, connections. Nothing was sent"
        )
    async with open_selection(place, chosen, [Role.OWNER], default_all=True, partly=True) as opened:
        found = [each async for each in opened.tenants.usage(opened.names[Role.OWNER])]
        found.sort(key=lambda each: each.name)
        if sort == "cluster":
            found.sort(key=lambda each: opened.called.get(each.cluster or "", ""))
        if sort in _SORTS:
            found.sort(key=lambda each: getattr(each, _SORTS[sort]) or 0, reverse=True)
        rows = [{"name": each.name} | opened.home(each.cluster, printed) | _usage(each, printed) for each in found]
    size, connections = (sum(getattr(each, which) or 0 for each in found) for which in ("bytes", "connections"))
    total = {"name": "total", "size": sized(size), "connections": connections}
    if not printed.as_json and len(opened.called) < 2:
        rows = [{key: value for key, value in row.items() if key != "cluster"} for row in rows]
    print_rows(rows if printed.as_json else [*rows, total], printed)
    failed = dict(opened.missing) | {each.name: message_of(each.error) for each in found if each.error is not None}
    for name, why in failed.items():
        note(f"{safe(name)}: {why}")
    return opened.end(Exit.SOME_FAILED if failed else Exit.DONE)


def _usage(usage: Usage, printed: Table) -> dict[str, object]:
    if printed.as_json:
        error = None if usage.error is None else message_of(usage.error)
        return {"bytes": usage.bytes, "connections": usage.connections, "error": error}
    return {"size": None if usage.bytes is None else sized(usage.bytes), "connections": usage.connections}


def sized(number: int) -> str:
    """A number of bytes for people: ``512 B``, ``7.9 MB``."""
    size, unit = float(number), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{number} B"


@runs
async def move_tenants(
    place: Place,
    printed: Printed,
    to: Annotated[str, option("--to", metavar="CLUSTER", help="The cluster to move to.", autocompletion=cluster_names)],
    names: Annotated[
        list[str] | None, argument("[NAME]...", "The tenants. Names or --all.", autocompletion=tenant_names)
    ] = None,
    everybody: Annotated[bool, option("--all", help="All tenants that are on another cluster.")] = False,
    origin: Annotated[
        str | None,
        option("--from", metavar="CLUSTER", help="Only tenants on this cluster.", autocompletion=cluster_names),
    ] = None,
    max_frozen: Annotated[
        timedelta | None,
        duration_option("--max-frozen", "Leave a tenant where it is if it would be shut for longer, such as 60s."),
    ] = None,
    most: MaxOption = None,
    yes: YesOption = False,
) -> int:
    """Move tenants to another cluster, with their readers and writers. While one is copied, no login of it may enter.

    It asks first. With --all, type the number of tenants or the name of the cluster. It needs pg_dump and pg_restore,
    or mysqldump and mysql of MySQL.

    Example: aiodbclient tenants move alpha --cluster tenants-prod --to tenants-2 --store tenants.db --yes
    """
    wanted = named(Chosen(names=names, everybody=everybody))
    sources = [each for each in (origin, *(place.clusters or ())) if each is not None]
    async with open_place(evolve(place, clusters=list(dict.fromkeys([*sources, to])))) as opened:
        there = next(id for id, name in opened.called.items() if name == to)
        found, missing = opened.select(wanted, Role.OWNER)
        if len(opened.called) == 1 and (wanted is None or missing):  # what is there already is kept
            raise InvalidArgumentError("from which cluster? Give its name or id as --from or --cluster")
        records = opened.records[Role.OWNER]
        homes = {name: opened.called.get(records[name].cluster or "") for name in found if name in records}
        going = [name for name in found if homes.get(name) != to and origin in (None, homes.get(name))]
        if wanted is None:
            found = going
        elif origin is not None:
            missing |= {name: f"it is not on {safe(origin)}" for name in found if homes.get(name) not in (origin, to)}
            found = [name for name in found if name not in missing]
        chosen = {Role.OWNER: found}
        opened = evolve(opened, wanted=wanted, typed=not everybody, names=chosen, missing=missing).whole()
        going = [name for name in going if name in opened.names[Role.OWNER]]
        cluster = opened.clusters_of(going, Role.OWNER)
        question = (
            f"Move {some(going)} ({len(going)}) from {cluster} to {safe(to)}: shut each while it is copied? Each gets "
            "new credentials: programs that do not use TenantPools need them, and the new host."
        )
        number, typed = len(going), opened.typed
        confirm_ending(question, number, typed=typed, cluster=cluster, most=most, yes=yes, done="moved")
        plain = report_of(printed, opened)

        def row(outcome: Any, role: str) -> dict[str, Any]:
            moved = {"frozen": outcome.frozen.total_seconds(), "bytes": outcome.bytes, "left": outcome.left or None}
            return plain.row(outcome, role) | moved | {"reason": why_kept(outcome)}

        def why_kept(outcome: Any) -> str | None:
            """Why a tenant was not moved; None if it was."""
            if outcome.credential.cluster != there:
                return f"with {sized(outcome.bytes)} it would be shut for longer than --max-frozen"
            return None if outcome.action == "moved" else "it is there already"

        def details(outcome: Any, role: str) -> str:
            name, credential = safe(outcome.name), outcome.credential
            if why := why_kept(outcome):
                return f"{name}: kept, {why}"
            end = " (new credential: deliver it)" if credential.suspended is None else " (suspended)"
            left = f"; {safe(outcome.left)}" if outcome.left else ""
            return f"{name}: moved, {sized(outcome.bytes)}, shut for {took(outcome.frozen.total_seconds())}{end}{left}"

        report = evolve(plain, row=row, details=details)
        limits: dict[str, Any] = {} if max_frozen is None else {"max_frozen": max_frozen}
        return await opened.run(lambda tenants, names: tenants.move(names, there, **limits), report)
