"""The commands ``aiodbclient tenants``."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer
from attrs import frozen

from .. import Run
from ..engines import guard_tenants
from ..errors import InvalidArgumentError
from ..tenants import (
    Credential,
    PostgresStore,
    SQLiteStore,
    Store,
    TenantDone,
    TenantPlanOutcome,
    TenantRemoved,
    Tenants,
)
from .arguments import (
    AdminOption,
    BudgetOption,
    ClusterOption,
    FromOption,
    JsonOption,
    NamesArgument,
    PrefixOption,
    PrivateOption,
    ShowOption,
    StoreOption,
    YesOption,
)
from .names import read_names
from .output import confirm, print_rows, tell
from .plans import changes, print_plan
from .progress import follow
from .running import DIFFERENT, DONE, SOME_FAILED, STOPPED, AnyBudget, cluster_by_id, find_cluster, open_client, runs

app = typer.Typer(
    no_args_is_help=True,
    help="Tenants: each has a database and a login that owns it and reaches nothing else, on record. "
    "Whatever ends a command: run it again, and it goes on.",
)

_SHOWN = 10  # names that a question lists at most

PruneOption = Annotated[
    bool, typer.Option("--prune", help="Remove the tenants on record that are not among the names.")
]


class IfExistsOption(StrEnum):
    """What happens to a login that exists and is not on record."""

    ADOPT = "adopt"
    RESET = "reset"
    ERROR = "error"


@frozen
class OpenTenants:
    """The tenants of a cluster, their open store, and the budget of the requests.

    Attributes:
        tenants: The tenants.
        store: The store.
        budget: The budget.
    """

    tenants: Tenants
    store: Store
    budget: AnyBudget


@asynccontextmanager
async def _open(
    cluster: str,
    store: str,
    budget: str | None,
    prefix: str = "",
    private: bool = False,
    admin: str | None = None,
    *,
    offline: bool = False,
) -> AsyncGenerator[OpenTenants]:
    """Find the cluster, then open the store.

    In this order, so that a cluster which can have no tenants leaves no new file of a store behind.

    Args:
        cluster: The cluster's id or name.
        store: The store: a path, or the URL of a PostgreSQL.
        budget: The URL of a shared budget, or None.
        prefix: As for ``Tenants``.
        private: As for ``Tenants``.
        admin: As for ``Tenants``.
        offline: Whether a cluster given by its id is used without asking the API.

    Raises:
        UnsupportedOperationError: The cluster can have no tenants.
    """
    opened = _store(store)
    async with open_client(budget) as (client, limit):
        found = (cluster_by_id(client, cluster) if offline else None) or await find_cluster(client, cluster)
        if found.engine is not None:
            guard_tenants(found.engine)
        async with opened:
            yield OpenTenants(Tenants(found, opened, prefix=prefix, private=private, admin=admin), opened, limit)


def _store(where: str) -> Store:
    key = [part.strip() for part in os.environ.get("AIODBCLIENT_STORE_KEY", "").split(",") if part.strip()] or None
    return PostgresStore(where, key=key) if "://" in where else SQLiteStore(where, key=key)


@app.command("plan")
@runs
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
    """Compare the names with what is on record, and change nothing. Exits with 5 if something differs.

    Example: aiodbclient tenants plan --from names.csv --cluster tenants-prod --store tenants.db
    """
    wanted = read_names(names, file)
    async with _open(cluster, store, budget, prefix) as place:
        plan = await place.tenants.plan(wanted, prune=prune)
    if json:
        print_rows(({"name": name, "change": change} for name, change in changes(plan)), as_json=True)
    else:
        print_plan(plan)
    return DIFFERENT if plan.create or plan.resume or (prune and plan.extra) else DONE


@app.command("provision")
@runs
async def provision_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    if_exists: Annotated[
        IfExistsOption, typer.Option(help="What happens to a login that exists and is not on record.")
    ] = IfExistsOption.ADOPT,
    prune: PruneOption = False,
    prefix: PrefixOption = "",
    private: PrivateOption = False,
    admin: AdminOption = None,
    yes: YesOption = False,
    show: ShowOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Give each name a database and a login, and put them on record. What is on record is kept.

    Example: aiodbclient tenants provision --from names.csv --cluster tenants-prod --store tenants.db
    """
    wanted = read_names(names, file)
    if prune and if_exists is not IfExistsOption.ADOPT:
        raise InvalidArgumentError("--prune goes with --if-exists adopt alone")
    if if_exists is IfExistsOption.RESET and not confirm(
        f"Give each login of {cluster} that is there and on no record a new password? "
        "Programs that have the old one cannot log in anew.",
        yes=yes,
    ):
        return STOPPED
    async with _open(cluster, store, budget, prefix, private, admin) as place:
        if not prune:
            run = place.tenants.provision(wanted, if_exists=if_exists.value)
            return await _do(run, len(wanted), place, show, json)
        plan = await place.tenants.plan(wanted, prune=True)
        if plan.extra and not confirm(_removal(plan.extra, cluster), yes=yes):
            return STOPPED
        return await _do(plan.apply(), len(plan.create) + len(plan.resume) + len(plan.extra), place, show, json)


@app.command("rotate")
@runs
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
    """Let a second login of each tenant take over. The one before works until `retire`.

    Tenants whose credential from before is not retired yet are left alone: it would end while programs use it.

    Example: aiodbclient tenants rotate alpha beta --cluster tenants-prod --store tenants.db
    """
    wanted = read_names(names, file)
    async with _open(cluster, store, budget, prefix, private, admin) as place:
        records = {name: await place.store.get(name) for name in wanted}
        due = [name for name, record in records.items() if record is None or record.previous is None]
        if len(due) < len(wanted):
            already = len(wanted) - len(due)
            has, them, they = ("has", "it", "it is") if already == 1 else ("have", "them", "they are")
            tell(f"{already} of them {has} been rotated: retire {them} before {they} rotated again")
        return await _do(place.tenants.rotate(due), len(due), place, show, json)


@app.command("retire")
@runs
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
    async with _open(cluster, store, budget, prefix) as place:
        return await _do(place.tenants.retire(wanted), len(wanted), place, False, json)


@app.command("remove")
@runs
async def remove_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    prefix: PrefixOption = "",
    admin: AdminOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Remove tenants: their logins, their database with all that is in it, and their record.

    Example: aiodbclient tenants remove alpha --cluster tenants-prod --store tenants.db
    """
    wanted = read_names(names, file)
    if not confirm(_removal(wanted, cluster), yes=yes):
        return STOPPED
    async with _open(cluster, store, budget, prefix, admin=admin) as place:
        return await _do(place.tenants.remove(wanted), len(wanted), place, False, json)


@app.command("show")
@runs
async def show_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    show: ShowOption = False,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Print what is on record of the names, or of all. Passwords and URIs only with --show.

    Example: aiodbclient tenants show alpha --cluster tenants-prod --store tenants.db --show
    """
    wanted = read_names(names, file) if names or file else []
    async with _open(cluster, store, budget, offline=True) as place:
        on_record = wanted or [record.name async for record in place.store.records()]
        found = {name: await place.tenants.get(name) for name in on_record}
    print_rows((_row(each, show, json) for each in found.values() if each is not None), as_json=json)
    missing = [name for name in wanted if found[name] is None]
    for name in missing:
        tell(f"{name}: no credential is on record")
    return SOME_FAILED if missing else DONE


async def _do(run: Run[TenantPlanOutcome], total: int, place: OpenTenants, show: bool, json: bool) -> int:
    def row(outcome: TenantDone | TenantRemoved) -> dict[str, Any]:
        return {} if outcome.credential is None else _row(outcome.credential, show, as_json=True)

    return await follow(run, total=total, budget=place.budget, row=row, as_json=json)


def _removal(names: Sequence[str], cluster: str) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    told = ", ".join(names[:_SHOWN])
    return f"Remove {told}{more} from {cluster}: logins, databases with all that is in them, and records?"


def _row(credential: Credential, show: bool, as_json: bool) -> dict[str, Any]:
    told = {
        "name": credential.name,
        "username": credential.username,
        "database": credential.database,
        "host": credential.host,
        "port": credential.port,
        "engine": credential.engine,
    }
    if show:
        told |= {"password": credential.password, "uri": credential.uri}
        kafka = {"access_cert": credential.access_cert, "access_key": credential.access_key}
        told |= {name: value for name, value in kafka.items() if value is not None}
        if as_json:
            told["ca"] = credential.ca
    return told
