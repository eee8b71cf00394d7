"""The commands that only look at tenants: list, capacity, show and check."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from attrs import evolve

from ..errors import InvalidArgumentError
from ..tenants import ProblemKind, Role
from ..tenants._naming import record_name
from ..tenants._record import OnRecord, State
from .arguments import (
    Chosen,
    MostOption,
    Place,
    Recorded,
    RoleOption,
    RolesOption,
    ShowOption,
    option,
)
from .asking import FEW, some
from .delivery import as_env_file, as_secret, as_shell, row_of, since_of, uri_of, write_ca
from .failures import Exit
from .following import called
from .names import selecting
from .opening import shown
from .output import check_stdout, command_line, keep_stdout_private, note, safe, span, write
from .printing import Checked, Rows, Shown, Sorted, Table, print_rows
from .records import Records, is_suspended
from .running import runs
from .tenants_place import Opened, named, open_place, open_records, open_selection

if TYPE_CHECKING:
    from ..tenants import Credential, Store, TenantChecked

_UNFINISHED = {ProblemKind.UNFINISHED, ProblemKind.MOVING, ProblemKind.REMOVAL_UNFINISHED}
_KUBERNETES = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_LAST = ("since", "username")
_STATES = {State.USABLE: "ready", State.ABSENT: "begun", State.PROVISIONING: "begun"}


@runs
async def list_tenants(printed: Rows, place: Recorded) -> int:
    """List the tenants in the store, with their readers and writers.

    Without --cluster: of all clusters. It sends nothing, unless --cluster is a name that is not in the store.

    The column `pending` names the command to run next: `revoke_previous` revokes the previous credential.
    `provision`, `repair` or `rotate` finishes what was begun.

    Example: aiodbclient tenants list --cluster tenants-prod --store tenants.db
    """
    async with open_records(place) as on_record:
        rows = [
            _line(record, printed, on_record) for records in on_record.records.values() for record in records.values()
        ]
    rows.sort(key=lambda row: str(row["name"]))
    print_rows(rows, printed, last=_LAST, none=on_record.elsewhere() or f"{shown(place.store)} has no tenants")
    return on_record.end(Exit.DONE)


def _line(record: OnRecord, printed: Table, on_record: Records) -> dict[str, object]:
    now = record.current
    row: dict[str, object] = {"name": record.name, "role": record.role.value}
    if printed.as_json or len(on_record.called) > 1:
        row |= on_record.home(record.cluster, printed)
    row["state"] = _STATES.get(record.state, record.state.name.lower())
    if record.state is State.SUSPENDED and now is not None and now.suspended is not None:
        if printed.as_json:
            row["suspended"] = now.suspended.isoformat(timespec="seconds")
        else:
            row["state"] = f"suspended {span((datetime.now(UTC) - now.suspended).total_seconds())}"
    return row | _age(now, printed) | {"pending": ", ".join(record.pending) or None} | _login(now, printed)


def _age(now: Credential | None, printed: Table) -> dict[str, object]:
    """How old the credential is: for people, or as a time for programs."""
    if printed.as_json or now is None or now.since is None:
        return {} if printed.as_json else {"age": None}
    return {"age": datetime.now(UTC) - now.since}


def _login(now: Credential | None, printed: Table) -> dict[str, object]:
    login: dict[str, object] = {"username": None if now is None else now.username}
    return login | ({"since": None if now is None else since_of(now)} if printed.as_json or printed.wide else {})


@runs
async def list_capacity(printed: Sorted, place: Recorded, max_tenants: MostOption = None) -> int:
    """List how many tenants each cluster has, and how many more it may have.

    Without --cluster: the clusters in the store. It sends nothing, unless --cluster is a name that is not in the store.

    Example: aiodbclient tenants capacity --max-tenants 2000 --cluster tenants-prod --store tenants.db
    """
    async with open_place(place, most=max_tenants) as opened:
        rooms = await opened.tenants.capacity()
    rows = [
        opened.home(room.cluster, printed)
        | {
            "tenants": room.tenants,
            "max_tenants": room.max_tenants,
            "free": None if room.max_tenants is None else max(0, room.max_tenants - room.tenants),
        }
        for room in rooms
    ]
    print_rows(rows, printed)
    return Exit.DONE


@runs
async def show_tenants(
    chosen: Chosen,
    place: Recorded,
    printed: Shown,
    role: RoleOption = Role.OWNER,
    show: ShowOption = False,
    ca_file: Annotated[
        Path | None,
        option(
            "--ca-file",
            metavar="FILE",
            help="Print URIs that verify the server by the CA in this file. The file is written if it is not there; "
            "with -o k8s it is the path of the mounted ca.crt, and nothing is written.",
        ),
    ] = None,
    secret: Annotated[
        str | None, option("--secret-name", metavar="NAME", help="The name of the Secret of -o k8s.")
    ] = None,
    namespace: Annotated[
        str | None, option("--namespace", metavar="NAME", help="The namespace of the Secret of -o k8s.")
    ] = None,
) -> int:
    """Print the stored credentials of the names, or of all.

    It sends nothing, unless --cluster is a name that is not in the store.

    Example: aiodbclient tenants show alpha --cluster tenants-prod --store tenants.db --show
    Example: aiodbclient tenants show alpha --cluster tenants-prod --store tenants.db --output sh --ca-file ca.pem
    """
    wanted = named(chosen, default_all=True)
    if printed.output in ("env", "sh") and (wanted is None or len(wanted) != 1):
        raise InvalidArgumentError(f"-o {printed.output} prints the variables of one tenant: give one name")
    for part in filter(None, (secret, namespace)):
        if not _KUBERNETES.fullmatch(part):
            raise InvalidArgumentError(f"{part!r} is no name in Kubernetes: it has lower-case letters, digits, - and .")
    async with open_records(place) as opened:
        credentials, missing = opened.credentials(wanted, role)
    if wanted is None and not credentials:
        note(f"{shown(place.store)} has no tenants")
    if secret is not None and len(credentials) > 1:
        raise InvalidArgumentError("--secret-name is for one tenant: give one name")
    _print_credentials(credentials, printed, ca_file, show=show, secret=(secret, namespace))
    for name, why in missing.items():
        note(f"{safe(name)}: {why}")
    return opened.end(Exit.SOME_FAILED if missing else Exit.DONE)


def _print_credentials(
    credentials: list[Credential],
    printed: Shown,
    ca_file: Path | None,
    *,
    show: bool,
    secret: tuple[str | None, str | None],
) -> None:
    check_stdout("")
    if ca_file is not None and printed.output != "k8s" and credentials:
        for each in {each.ca: each for each in credentials}.values():
            write_ca(each, ca_file)
    path = None if ca_file is None else str(ca_file)
    prints_uris = show or printed.output in ("env", "sh", "uri", "k8s")
    if prints_uris:
        keep_stdout_private()
    if prints_uris and path is None and any(each.ca is not None for each in credentials):
        note("the URIs encrypt the connection but do not verify the server: for that, add --ca-file ca.pem")
    match printed.output:
        case "uri":
            write("".join(f"{uri_of(each, path)}\n" for each in credentials))
        case "env":
            write("".join(as_env_file(each, path) for each in credentials))
        case "sh":
            write("".join(as_shell(each, path) for each in credentials))
        case "k8s":
            write("---\n".join(as_secret(each, path, *secret) for each in credentials))
        case _:
            rows = [row_of(each, path, show=show, as_object=printed.as_json) for each in credentials]
            print_rows(rows, printed, last=("role", "engine", "port", "database"))


@runs
async def check_tenants(
    chosen: Chosen,
    place: Place,
    printed: Checked,
    role: RolesOption = None,
    not_on_record: Annotated[
        bool,
        option("--not-on-record", help="Find databases of tenants that the store lacks too, as after it was restored."),
    ] = False,
) -> int:
    """Find out whether tenants work, and change nothing. Without names: all. Exits with 5 if one has a problem.

    A tenant that another command works on is no problem. Readers and writers are checked with --role.

    What each problem means is in docs/how-to/check.md. `unknown_login`, for example: a login that is not on record can
    log in.

    Example: aiodbclient tenants check --role all --cluster tenants-prod --store tenants.db
    """
    roles: list[Role] = role or [Role.OWNER]
    if not_on_record and (chosen.names or chosen.file or roles != [Role.OWNER]):
        raise InvalidArgumentError("--not-on-record is for all tenants: give no names and no --role. Nothing was sent")
    broken: dict[tuple[str, str], TenantChecked] = {}
    busy, rows = set[tuple[str, str]](), list[dict[str, Any]]()

    def row(outcome: TenantChecked, role: str) -> dict[str, Any]:
        problems = [str(each.kind) for each in outcome.problems]
        state = "in progress" if (outcome.name, role) in busy else "problems" if problems else "ok"
        now = outcome.credential
        home = opened.home(None if now is None else now.cluster, printed) if printed.as_json else {}
        found = {"problems": problems if printed.as_json else ", ".join(problems)}
        return {"role": role} | home | {"state": state} | _age(now, printed) | found | _login(now, printed)

    def details(outcome: TenantChecked, role: str) -> str:
        if printed.output in ("table", "wide"):
            rows.append({"name": outcome.name} | row(outcome, role))
            return ""
        found = "in progress" if (outcome.name, role) in busy else ", ".join(each.kind for each in outcome.problems)
        return f"{safe(called(outcome.name, role))}: {found}" if found else ""

    async def settle(outcome: TenantChecked, role: str) -> TenantChecked:
        if _UNFINISHED & _kinds(outcome) and await _is_claimed(opened.store, outcome.name, Role(role)):
            busy.add((outcome.name, role))
            return evolve(outcome, problems=())
        if outcome.problems:
            broken[outcome.name, role] = outcome
        return outcome

    async with open_selection(place, chosen, roles, default_all=True, partly=True) as opened:
        owners = opened.records[Role.OWNER]
        asleep = sum(is_suspended(owners[name]) for name in opened.names.get(Role.OWNER, ()) if name in owners)
        report = opened.report(
            printed,
            row=row,
            details=details,
            settle=settle,
            summary=lambda failed: (
                ("" if broken or failed else ": all well") + (f", {asleep} suspended" if asleep else "")
            ),
        )
        if not_on_record:
            code = await opened.follow({Role.OWNER: opened.tenants.check()}, report)
        else:
            code = await opened.run(lambda tenants, names: tenants.check(names), report)
        unchecked = {its: opened.records[its] for its in Role if its not in roles}
    print_rows(rows, printed, last=_LAST)
    if opened.wanted is None and any(unchecked.values()):
        others = ", ".join(f"{len(each)} {its}{'s' * (len(each) > 1)}" for its, each in unchecked.items() if each)
        note(f"not checked: {others}. To check all: {opened.command('check', '--role', 'all')}")
    if broken and code in (Exit.DONE, Exit.SOME_FAILED):
        _say_what_helps(opened, broken)
        code = Exit.DIFFERENT if code == Exit.DONE else code
    return code


def _say_what_helps(opened: Opened, broken: Mapping[tuple[str, str], TenantChecked]) -> None:
    """Print the commands that repair these tenants, and which of them such a repair deletes."""
    strays = {name for (name, _), each in broken.items() if ProblemKind.NOT_ON_RECORD in _kinds(each)}
    elsewhere = strays.intersection(opened.records[Role.OWNER])
    lost = {name for (name, _), each in broken.items() if ProblemKind.DATABASE_MISSING in _kinds(each)} - elsewhere
    if lost:
        note(f"{some(sorted(lost))}: {opened.lost(selecting(sorted(lost)))}")
    for name in sorted(elsewhere):
        home = opened.records[Role.OWNER][name].cluster
        there = [called for id, called in opened.called.items() if id != home]
        forget = command_line(["store", "forget", opened.place.store, name])
        adopt = opened.command("provision", name, "--adopt", clusters=there)
        missing = ProblemKind.DATABASE_MISSING in _kinds(broken[name, Role.OWNER])
        where = "on another cluster than the one on record" if missing else "on another cluster too"
        note(f"{name}: a database of that name is {where}, as after a move that this store does not know.")
        if missing:
            note(f"If it is the tenant's, take it over there: {forget} && {adopt}")
        lost.add(name)
    if unknown := sorted(strays - elsewhere):
        adopt = opened.command("provision", *selecting(unknown), "--adopt")
        note(f"{some(unknown)}: on a cluster, and not on record. If they are this store's, take them over: {adopt}")
        lost.update(unknown)
    for role in Role:
        names = [name for name, its in broken if its == role and name not in lost]
        which = ["--all"] if len(names) > FEW and opened.wanted is None else selecting(names)
        if names:
            what = "" if role is Role.OWNER else f" {role}{'s' * (len(names) > 1)}"
            note(f"{len(names)}{what} with problems. To repair them: {opened.command('repair', *which, role=role)}")
        if going := opened.half_removed(names, role):
            what = "deletes their data" if role is Role.OWNER else f"deletes the {role}"
            note(f"repair finishes removals that began, which {what}: {some(going)}")
    if any(ProblemKind.UNFINISHED in _kinds(each) for each in broken.values()):
        note(f"to see which command finishes what was begun: {opened.command('list')}")


def _kinds(checked: TenantChecked) -> set[ProblemKind]:
    return {each.kind for each in checked.problems}


async def _is_claimed(store: Store, name: str, role: Role) -> bool:
    """Whether a process works on the tenant. To find out, this claims it for a moment."""
    claim = await store.claim(record_name(name, role), 10.0)
    if claim is not None:
        await store.release(claim)
    return claim is None
