"""The commands that change tenants: each follows a run."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from .. import Run
from ..errors import InvalidArgumentError
from ..tenants import TenantDone, TenantRemoved
from .arguments import (
    AdminOption,
    BudgetOption,
    ClusterOption,
    FromOption,
    JsonOption,
    MaxOption,
    NamesArgument,
    PrefixOption,
    PrivateOption,
    PruneOption,
    ShowOption,
    StoreOption,
    YesOption,
)
from .asking import confirm
from .delivery import lines_of, row_of
from .following import Shown, follow
from .names import read_names
from .output import tell
from .removing import check_most, some
from .running import STOPPED, writes
from .tenants_place import Place, Where, open_place


class IfExistsOption(StrEnum):
    """What happens to a login that exists and is not on record."""

    ADOPT = "adopt"
    RESET = "reset"
    ERROR = "error"


@writes
async def provision_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    if_exists: Annotated[
        IfExistsOption,
        typer.Option(metavar="adopt|reset|error", help="What happens to a login that exists and is not on record."),
    ] = IfExistsOption.ADOPT,
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
    """Make a database and a login for each name, and store the credentials. Tenants in the store are kept.

    Example: aiodbclient tenants provision --from names.csv --cluster tenants-prod --store tenants.db
    """
    wanted = read_names(names, file)
    if prune and if_exists is not IfExistsOption.ADOPT:
        raise InvalidArgumentError("--prune goes with --if-exists adopt alone")
    if if_exists is IfExistsOption.RESET and not confirm(
        f"Give each login of {cluster} that exists and is not on record a new password? The old ones stop working.",
        yes=yes,
    ):
        return STOPPED
    where = Where(cluster=cluster, store=store, budget=budget, prefix=prefix, private=private, admin=admin)
    async with open_place(where, makes=True) as place:
        if not prune:
            work = await _not_on_record(place, wanted)
            run = place.tenants.provision(wanted, if_exists=if_exists.value)
            return await _do(run, len(wanted), place, show, json, work)
        plan = await place.tenants.plan(wanted, prune=True)
        check_most(len(plan.extra), most)
        if plan.extra and not confirm(removal(plan.extra, cluster), yes=yes):
            return STOPPED
        return await _do(plan.apply(), len(plan.create) + len(plan.resume) + len(plan.extra), place, show, json)


async def _not_on_record(place: Place, names: Sequence[str]) -> int:
    """How many of the names will take requests."""
    wanted = set(names)
    kept = {record.name async for record in place.store.records() if record.current is not None}
    return len(wanted - kept)


@writes
async def rotate_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    prefix: PrefixOption = "",
    private: PrivateOption = False,
    admin: AdminOption = None,
    show: ShowOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Give each tenant a new credential, with its second login. The one before works until `retire`.

    Example: aiodbclient tenants rotate alpha beta --cluster tenants-prod --store tenants.db
    """
    wanted = read_names(names, file)
    where = Where(cluster=cluster, store=store, budget=budget, prefix=prefix, private=private, admin=admin)
    async with open_place(where) as place:
        records = {name: await place.store.get(name) for name in wanted}
        due = [name for name, record in records.items() if record is None or record.previous is None]
        if len(due) < len(wanted):
            tell(f"{len(wanted) - len(due)} of them have been rotated: retire them before they are rotated again")
        return await _do(place.tenants.rotate(due), len(due), place, show, json)


@writes
async def retire_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    prefix: PrefixOption = "",
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """End the credential from before `rotate`: its login gets a password that nobody has.

    Example: aiodbclient tenants retire alpha beta --cluster tenants-prod --store tenants.db
    """
    wanted = read_names(names, file)
    async with open_place(Where(cluster=cluster, store=store, budget=budget, prefix=prefix)) as place:
        return await _do(place.tenants.retire(wanted), len(wanted), place, False, json)


@writes
async def remove_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    most: MaxOption = None,
    prefix: PrefixOption = "",
    admin: AdminOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Remove tenants: their logins, their databases with all data, and their records.

    Example: aiodbclient tenants remove gamma --cluster tenants-prod --store tenants.db --yes
    """
    wanted = read_names(names, file)
    check_most(len(wanted), most)
    if not confirm(removal(wanted, cluster), yes=yes):
        return STOPPED
    where = Where(cluster=cluster, store=store, budget=budget, prefix=prefix, admin=admin)
    async with open_place(where) as place:
        return await _do(place.tenants.remove(wanted), len(wanted), place, False, json)


async def _do(run: Run[Any], total: int, place: Place, show: bool, json: bool, work: int | None = None) -> int:
    def row(outcome: TenantDone | TenantRemoved) -> dict[str, Any]:
        return {} if outcome.credential is None else row_of(outcome.credential, None, show=show, as_json=True)

    def details(outcome: TenantDone | TenantRemoved) -> str:
        return lines_of(outcome.credential) if show and outcome.credential is not None else ""

    shown = Shown(as_json=json, row=row, details=details)
    return await follow(run, total=total, budget=place.budget, shown=shown, work=work)


def removal(names: Sequence[str], cluster: str) -> str:
    """The question before tenants are removed."""
    return f"Remove {some(names)} from {cluster}: logins, databases with all data, and records?"
