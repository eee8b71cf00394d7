"""What is on record of tenants: ``tenants list`` and ``tenants show``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidArgumentError
from ..tenants import Credential, Record, Role
from ..tenants._intent import pending
from .arguments import (
    BudgetOption,
    ClusterOption,
    FromOption,
    JsonOption,
    NamesArgument,
    PrefixOption,
    RoleOption,
    ShowOption,
    StoreOption,
)
from .delivery import as_secret, as_shell, row_of, uri_of, write_ca
from .names import read_names
from .output import check_stdout, note, print_rows, write
from .running import DONE, SOME_FAILED, reads
from .tenants_place import Where, open_records


class Output(StrEnum):
    """The form in which ``show`` prints."""

    TABLE = "table"
    JSON = "json"
    ENV = "env"
    URI = "uri"
    K8S = "k8s"


OutputOption = Annotated[
    Output,
    typer.Option(
        "--output",
        "-o",
        metavar="FORMAT",
        help="table, json, env (for a shell), uri, or k8s (a Secret). The last three print secrets without --show. "
        "Default: table.",
        show_default=False,
    ),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        help="Print URIs that verify the server by the CA in this file. The file is written if it is not there; with "
        "--output k8s it is the path of the mounted ca.crt, and nothing is written.",
        show_default=False,
    ),
]


@reads
async def list_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    prefix: PrefixOption = "",
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """List the tenants in the store, with their readers and writers. Sends nothing if CLUSTER is an id.

    The column `pending` names the command to run next: `retire` ends the credential from before the last rotation.
    `provision`, `repair` or `rotate` finishes what was begun.

    Example: aiodbclient tenants list --cluster tenants-prod --store tenants.db
    """
    async with open_records(Where(cluster=cluster, store=store, budget=budget, prefix=prefix)) as tenants:
        rows = [_line(record, role) for role in Role async for record in tenants.role(role).records()]
    rows.sort(key=lambda row: str(row["name"]))
    print_rows(rows, as_json=json, none=f"{store} has no tenants")
    return DONE


def _line(record: Record, role: Role) -> dict[str, object]:
    now = record.current
    return {
        "name": record.name,
        "role": role.value,
        "state": "begun" if now is None else "ready" if now.suspended is None else "suspended",
        "login": None if now is None else now.username,
        "since": None if now is None or now.since is None else now.since.isoformat(timespec="seconds"),
        "pending": ", ".join(pending(record)) or None,
    }


@reads
async def show_tenants(
    cluster: ClusterOption,
    store: StoreOption,
    names: NamesArgument = None,
    file: FromOption = None,
    role: RoleOption = Role.OWNER,
    prefix: PrefixOption = "",
    show: ShowOption = False,
    output: OutputOption = Output.TABLE,
    ca_file: CaFileOption = None,
    json: JsonOption = False,
    budget: BudgetOption = None,
) -> int:
    """Print the stored credentials of the names, or of all. Sends nothing if CLUSTER is an id.

    Example: aiodbclient tenants show alpha --cluster tenants-prod --store tenants.db --show
    Example: aiodbclient tenants show alpha --cluster tenants-prod --store tenants.db --output env --ca-file ca.pem
    """
    wanted = read_names(names, file) if names or file else []
    kind = Output.JSON if json else output
    if kind is Output.ENV and len(wanted) != 1:
        raise InvalidArgumentError("--output env prints the variables of one tenant: give one name")
    where = Where(cluster=cluster, store=store, budget=budget, role=role, prefix=prefix)
    async with open_records(where) as tenants:
        on_record = wanted or [record.name async for record in tenants.records()]
        found = {name: await tenants.get(name) for name in on_record}
    credentials = [each for each in found.values() if each is not None]
    if not wanted and not credentials:
        note(f"{store} has no tenants")
    _print(credentials, kind, ca_file, show=show)
    missing = [name for name in wanted if found[name] is None]
    for name in missing:
        note(f"{name}: no credential is stored. `aiodbclient tenants provision` creates one")
    return SOME_FAILED if missing else DONE


def _print(credentials: list[Credential], kind: Output, ca_file: Path | None, *, show: bool) -> None:
    check_stdout("")
    if ca_file is not None and kind is not Output.K8S and credentials:
        write_ca(credentials[0], ca_file)
    path = None if ca_file is None else str(ca_file)
    prints_uris = show or kind not in (Output.TABLE, Output.JSON)
    if prints_uris and path is None and any(each.ca is not None for each in credentials):
        note("the URIs encrypt the connection but do not verify the server: for that, add --ca-file ca.pem")
    match kind:
        case Output.URI:
            write("".join(f"{uri_of(each, path)}\n" for each in credentials))
        case Output.ENV:
            write("".join(as_shell(each, path) for each in credentials))
        case Output.K8S:
            write("---\n".join(as_secret(each, path) for each in credentials))
        case Output.TABLE | Output.JSON:
            as_json = kind is Output.JSON
            print_rows((row_of(each, path, show=show, as_json=as_json) for each in credentials), as_json=as_json)
