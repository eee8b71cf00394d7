"""The commands that make and remove tenants, and how every command here follows its run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from .. import Run
from ..errors import InvalidArgumentError
from ..tenants import Role
from .arguments import (
    AdminOption,
    AdoptOption,
    AllOption,
    BudgetOption,
    ClusterOption,
    FromOption,
    JsonOption,
    MaxOption,
    NamesArgument,
    NewNamesArgument,
    PrefixOption,
    PrivateOption,
    PruneOption,
    RoleOption,
    ShowOption,
    StoreOption,
    YesOption,
)
from .asking import confirm
from .delivery import lines_of, row_of
from .following import Shown, follow
from .names import locate_names
from .output import printable
from .removing import check_most, some
from .running import STOPPED, writes
from .stores import IfMissing
from .tenants_place import Place, Where, chosen, open_place


class IfExistsOption(StrEnum):
    """What happens to a login or a database that exists and is not on record."""

    ADOPT = "adopt"
    RESET = "reset"
    ERROR = "error"


@writes
async def provision_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NewNamesArgument = None,
    file: FromOption = None,
    role: RoleOption = Role.OWNER,
    adopt: AdoptOption = False,
    if_exists: Annotated[
        IfExistsOption,
        typer.Option(
            metavar="error|adopt|reset",
            help="What to do with a login or database that exists and is not on record: fail, take it over, or take it "
            "over and give the login a new password.",
        ),
    ] = IfExistsOption.ERROR,
    prune: PruneOption = False,
    most: MaxOption = None,
    prefix: PrefixOption = "",
    private: PrivateOption = False,
    admin: AdminOption = None,
    yes: YesOption = False,
    show: ShowOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Create a database and a login for each name, and store the credentials. Tenants in the store are kept.

    With --role reader or writer: create such a login for tenants that are in the store.

    Example: aiodbclient tenants provision --from names.csv --cluster tenants-prod --store tenants.db
    """
    wanted = locate_names(names, file)
    if adopt and if_exists is IfExistsOption.RESET:
        raise InvalidArgumentError("--adopt keeps passwords and --if-exists reset replaces them: give one of them")
    action = IfExistsOption.ADOPT if adopt else if_exists
    if action is IfExistsOption.RESET and not confirm(
        f"Give each login of {cluster} that exists and is not on record a new password? The old ones stop working.",
        yes=yes,
    ):
        return STOPPED
    where = Where(cluster=cluster, store=store, budget=budget, role=role, prefix=prefix, private=private, admin=admin)
    async with open_place(where, IfMissing.MAKE if role is Role.OWNER else IfMissing.FAIL) as place:
        if not prune:
            work = await _not_on_record(place, wanted)
            run = place.tenants.provision(wanted, if_exists=action.value)
            return await do(run, len(wanted), place, show=show, json=json, work=work)
        place.check(wanted)
        plan = await place.tenants.plan(wanted, prune=True, if_exists=action.value)
        check_most(len(plan.extra), most)
        if plan.extra and not confirm(_removal(plan.extra, cluster), yes=yes):
            return STOPPED
        changed = (plan.create, plan.adopt, plan.conflict, plan.resume, plan.repair, plan.extra)
        return await do(plan.apply(), sum(map(len, changed)), place, show=show, json=json)


async def _not_on_record(place: Place, names: Iterable[str]) -> int:
    """How many of the names will take requests."""
    kept = {record.name async for record in place.tenants.records() if record.current is not None}
    return len(set(names) - kept)


@writes
async def remove_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    everybody: AllOption = False,
    role: RoleOption = Role.OWNER,
    keep_database: Annotated[
        bool, typer.Option("--keep-database", help="Keep the databases and their data, for the administrator alone.")
    ] = False,
    most: MaxOption = None,
    prefix: PrefixOption = "",
    admin: AdminOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Remove tenants: their logins, their databases with all data, and their records.

    With --role reader or writer: remove only such logins.

    Example: aiodbclient tenants remove gamma --cluster tenants-prod --store tenants.db --yes
    """
    wanted = chosen(names, file, everybody)
    if wanted is not None:
        check_most(len(wanted), most)
        if not confirm(_removal(wanted, cluster, role, keep_database=keep_database), yes=yes):
            return STOPPED
    where = Where(cluster=cluster, store=store, budget=budget, role=role, prefix=prefix, admin=admin)
    async with open_place(where) as place:
        if wanted is None:
            wanted = await place.names()
            check_most(len(wanted), most)
            if wanted and not confirm(_removal(wanted, cluster, role, keep_database=keep_database), yes=yes):
                return STOPPED
        return await do(place.tenants.remove(wanted, keep_database=keep_database), len(wanted), place, json=json)


async def do(
    run: Run[Any],
    total: int,
    place: Place,
    *,
    json: bool,
    show: bool = False,
    work: int | None = None,
    once: bool = False,
) -> int:
    """Follow a run of tenants. Prints the credentials with ``show``, and the problems that were repaired.

    Args:
        run: The run.
        total: The number of its names.
        place: Where it works.
        json: Whether to print JSON.
        show: Whether to print secrets.
        work: The number of names that will take requests; None: all.
        once: Whether the work must not be done twice.
    """

    def row(outcome: Any) -> dict[str, Any]:
        credential = outcome.credential
        members = {} if credential is None else row_of(credential, None, show=show, as_json=True)
        return members | ({"problems": list(outcome.problems)} if hasattr(outcome, "problems") else {})

    def details(outcome: Any) -> str:
        problems = getattr(outcome, "problems", ())
        repaired = [f"{printable(outcome.name)}: {outcome.action}: {', '.join(problems)}"] if problems else []
        return "\n".join(repaired + ([lines_of(outcome.credential)] if show and outcome.credential is not None else []))

    shown = Shown(as_json=json, row=row, details=details)
    return await follow(run, total=total, budget=place.budget, shown=shown, work=work, once=once)


def _removal(names: Sequence[str], cluster: str, role: Role = Role.OWNER, *, keep_database: bool = False) -> str:
    """The question before tenants are removed."""
    if role is not Role.OWNER:
        return f"Remove the {role} logins of {some(names)} from {cluster}?"
    what = "logins and records; the databases stay" if keep_database else "logins, databases with all data, and records"
    return f"Remove {some(names)} from {cluster}: {what}?"
