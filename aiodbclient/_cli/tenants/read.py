"""The commands that only look at tenants: list, capacity, show, check and usage."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from attrs import define, evolve, field

from ...errors import InvalidArgumentError
from ...tenants import Role
from ...tenants._naming import names_of
from ...tenants._records import OperationKind, TenantRecord, TenantState, newer_logins
from ...tenants._stores import is_claimed
from ..plumbing.failures import Exit, message_of
from ..plumbing.files import listed
from ..plumbing.opening import patiently, shown
from ..plumbing.options import (
    MaxTenantsOption,
    RoleOption,
    Selection,
    ShowOption,
    StoreOptions,
    TenantOptions,
    option,
    suggest,
)
from ..plumbing.output import CredentialOutput, ListOutput, Output
from ..plumbing.printing import note, sized, some, span, write
from ..plumbing.progress import FailureGroups
from ..plumbing.records import Records, is_suspended
from ..plumbing.running import runs
from .context import CommandContext, names_in, open_records, open_selection
from .credentials import as_env_file, as_secret, created_at, row_of, uri_of, write_ca
from .reports import TenantReport

if TYPE_CHECKING:
    from ...bulk import Action
    from ...tenants import Credential, Problem, TenantChecked, Usage

_ADOPT = "forget and adopt"
_UNFINISHED = {"unfinished", "moving", "removal_unfinished"}  # of ``ProblemKind``, which is slow to import
_KUBERNETES = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@runs
async def list_tenants(output: ListOutput, options: StoreOptions) -> int:
    """List the tenants in the store.

    If the store knows the clusters, it sends nothing to the API. The column `pending` names the command to run next.

    Example: aiodbclient tenants list
    """
    async with open_records(options) as on_record:
        rows = [
            _line(each, role, output, on_record) for role, its in on_record.records.items() for each in its.values()
        ]
    rows.sort(key=lambda row: str(row["name"]))
    on_record.say_how_many(*Role)
    output.rows(rows, empty=on_record.only_others() or f"{shown(options.store)} has no tenants")
    return on_record.entries.end(Exit.DONE)


def _line(record: TenantRecord, role: Role, output: Output, on_record: Records) -> dict[str, object]:
    login, state = record.current(role), record.state(role)
    row: dict[str, object] = {"name": record.name, "role": role.value}
    row |= on_record.cluster_columns(record.cluster, as_json=output.as_json)
    row["state"] = state.value
    suspended = record.suspended if state is TenantState.SUSPENDED else None
    if output.as_json:
        row |= {} if suspended is None else {"suspended": suspended.isoformat(timespec="seconds")}
        row["created"] = created_at(login)
    else:
        if suspended is not None:
            row["state"] = f"suspended {span((datetime.now(UTC) - suspended).total_seconds())}"
        row["age"] = None if login is None else datetime.now(UTC) - login.created
    row["version"] = record.version
    row["pending"] = ", ".join(record.pending(role)) or None
    if not output.as_json and row["pending"] == "revoke-previous":
        row["pending"] = "revoke-previous (optional)"
    return row | {"username": login and login.username}


@runs
async def list_capacity(output: ListOutput, options: StoreOptions, max_tenants: MaxTenantsOption = None) -> int:
    """List how many tenants each cluster has.

    If the store knows the clusters, it sends nothing to the API. Tenants of all prefixes count.

    Example: aiodbclient tenants capacity --max-tenants 2000
    """
    async with open_records(options) as on_record:
        others = [each for (role, _), each in on_record.others.items() if role is Role.OWNER]
        counts = Counter(each.cluster for each in (*on_record.records[Role.OWNER].values(), *others))
    output.rows(
        on_record.cluster_columns(id, as_json=output.as_json) | {"tenants": counts[id], "max_tenants": max_tenants}
        for id in on_record.clusters
    )
    return Exit.DONE


@runs
async def show_tenants(
    selection: Selection,
    options: StoreOptions,
    output: CredentialOutput,
    role: RoleOption = Role.OWNER,
    show: ShowOption = False,
    ca_file: Annotated[
        Path | None,
        option(
            "--ca-file",
            metavar="FILE",
            help="Write the CA to FILE, and print URIs that verify the server by it.",
        ),
    ] = None,
    secret: Annotated[str | None, option("--secret-name", metavar="NAME", help="The Secret's name, for k8s.")] = None,
    namespace: Annotated[str | None, option("--namespace", metavar="NAME", help="Its namespace, for k8s.")] = None,
) -> int:
    """Print stored credentials.

    Without names, it prints those of all tenants. If the store knows the clusters, it sends nothing to the API. With
    -o k8s, --ca-file is the path of the mounted ca.crt.

    Example: aiodbclient tenants show alpha -o uri --ca-file ca.pem
    """
    wanted = names_in(selection, default_all=True)
    if (output.form == "env" or secret) and (wanted is None or len(wanted) != 1):
        raise InvalidArgumentError("-o env and --secret-name are for one tenant: give one name")
    for part in filter(None, (secret, namespace)):
        if not _KUBERNETES.fullmatch(part):
            raise InvalidArgumentError(f"{part!r} is not a valid name in Kubernetes: use a-z, 0-9, - and .")
    async with open_records(options) as on_record:
        credentials, missing = on_record.credentials(wanted, role)
    if wanted is None and not credentials:
        note(f"{shown(options.store)} has no tenants")
    _print_credentials(credentials, output, ca_file, show=show, secret=(secret, namespace))
    for name, why in missing.items():
        note(f"{name}: {why}")
    return on_record.entries.end(Exit.SOME_FAILED if missing else Exit.DONE)


def _print_credentials(
    credentials: list[Credential],
    output: CredentialOutput,
    ca_file: Path | None,
    *,
    show: bool,
    secret: tuple[str | None, str | None],
) -> None:
    if ca_file is not None and output.form != "k8s":
        for each in {each.ca: each for each in credentials}.values():
            write_ca(each, ca_file)
    path = None if ca_file is None else str(ca_file)
    prints_uris = show or output.form in ("env", "uri", "k8s")
    if prints_uris and path is None and any(each.ca is not None for each in credentials):
        note("the URIs encrypt the connection but do not verify the server: for that, add --ca-file ca.pem")
    match output.form:
        case "uri":
            write("".join(f"{uri_of(each, path)}\n" for each in credentials))
        case "env":
            write("".join(as_env_file(each, path) for each in credentials))
        case "k8s":
            write("---\n".join(as_secret(each, path, *secret) for each in credentials))
        case _:
            output.rows(row_of(each, path, show=show, as_object=output.as_json) for each in credentials)


@define
class _CheckReport(TenantReport):
    broken: dict[str, TenantChecked] = field(factory=dict[str, Any])
    busy: set[str] = field(factory=set[str])

    async def settled(self, outcome: Any, role: str) -> Any:
        """Hide the problems of a tenant that another command works on."""
        if outcome.error is not None or not outcome.problems:
            return outcome
        is_unfinished = any(each.kind in _UNFINISHED for each in outcome.problems)
        if is_unfinished and await is_claimed(self.context.store, outcome.name):
            self.busy.add(outcome.name)
            return evolve(outcome, problems=())
        self.broken[outcome.name] = outcome
        return outcome

    def row(self, outcome: Any, role: str) -> dict[str, Any]:
        now = outcome.credential
        problems = [{"kind": each.kind, "detail": each.detail} for each in outcome.problems]
        state = "in progress" if outcome.name in self.busy else "problems" if problems else "ok"
        columns = self.context.cluster_columns(now and now.cluster, as_json=True)
        login = {"username": now and now.username, "created": created_at(now)}
        return columns | {"state": state, "problems": problems} | login

    def text(self, outcome: Any, role: str) -> str:
        found = "in progress" if outcome.name in self.busy else ", ".join(map(str, outcome.problems))
        found = self.context.named(found)
        return f"{outcome.name}: {found}" if found else ""

    def summary(self, counts: Mapping[Action, int]) -> str:
        parts = [super().summary(counts)]
        parts += [f"{len(self.broken)} with problems"] if self.broken else []
        parts += [f"{len(self.busy)} in progress"] if self.busy else []
        parts += (
            [f"{asleep} suspended"] if (asleep := sum(is_suspended(each) for _, each in self.context.selected)) else []
        )
        is_well = counts and not self.broken and not self.busy and "failed" not in counts
        well = ": all well" if is_well else ""
        return f"{', '.join(parts)}{well}"


@runs
async def check_tenants(
    selection: Selection,
    options: TenantOptions,
    output: Output,
    not_on_record: Annotated[
        bool, option("--not-on-record", help="Find tenants that the store lacks, such as after a restore.")
    ] = False,
) -> int:
    """Check whether tenants work.

    It changes nothing. Without names, it checks all tenants. It checks their readers and writers too. Exits with 5 if
    a tenant has a problem. docs/how-to/troubleshooting.md explains each problem.

    Example: aiodbclient tenants check alpha
    """
    if not_on_record and (selection.names or selection.file):
        raise InvalidArgumentError("--not-on-record is for all tenants: give no names")
    async with open_selection(options, selection, default_all=True, partly=True) as context:
        report = _CheckReport(output, options.verbose, context=context)
        if not_on_record:
            code = await context.follow([(Role.OWNER.value, context.tenants.check(not_on_record=True))], report)
        else:
            code = await context.run(lambda tenants, names: tenants.check(names), report)
    if report.busy:
        note("in progress: another process works on it, or died less than 30 seconds ago")
    if report.broken and code in (Exit.DONE, Exit.SOME_FAILED):
        _say_what_helps(context, report.broken)
        code = Exit.DIFFERENT
    return code


def _say_what_helps(context: CommandContext, broken: Mapping[str, TenantChecked]) -> None:
    """Print the commands that repair these tenants, or what else helps."""
    groups = defaultdict[tuple[str, ...], list[str]](list)
    for name in sorted(broken):  # they were checked in any order
        groups[_what_helps(context, name, broken[name].problems)].append(name)
    for (text, *command), names in groups.items():
        if command[:1] == [_ADOPT]:
            text = f"{text}: {context.suggest_adoption(names, *command[1:])}"
        elif command:
            options = context.with_leftovers(names) if command == ["repair"] else context.options
            text = f"{text}: {suggest(options, 'tenants', command[0], *listed(names), *command[1:])}"
        note(f"{some(names)}: {text}")


def _what_helps(context: CommandContext, name: str, problems: Sequence[Problem]) -> tuple[str, ...]:
    """What to print for a tenant with problems, then the words of the command that helps, without the names."""
    found = {str(each.kind): each.detail for each in problems}
    if "not_on_record" in found and "database_missing" in found:
        other = found["not_on_record"]
        return (
            f"the database is on the cluster {other}: it was moved after this store was copied. To take it over",
            _ADOPT,
            other,
        )
    if "not_on_record" in found:
        return (
            "the database is not in this store. Is it the right store? If the tenant is yours, to take it over",
            *((_ADOPT,) if any(each == name for _, each in context.others) else ("provision", "--adopt")),
        )
    if "run " in found.get("database_missing", ""):
        return ("its database has another name, or no right of the tenant. Run what the problem says, and check again",)
    if " may create in it" in found.get("database_missing", ""):
        return (
            "the database belongs to another role: databases were exchanged, or the tenant's role was renamed. Find "
            "out which, and rename it back",
        )
    if "database_missing" in found:
        return (
            "the database is gone. Is it on a cluster that you did not name? Add it with `--cluster`. Otherwise "
            "restore the database from a backup",
        )
    if context.half_removed([name]):
        return ("a removal that began is not finished. `tenants remove` or `tenants repair` does it",)
    if "login_missing" in found and found.get("unfinished") == OperationKind.SUSPEND:
        return ("the tenant was suspended after this store was copied. To suspend it here too", "suspend")
    if _has_newer_login(context, name, problems):
        return (
            "another store knows the tenant: use that store. If it is lost, to take the tenant over",
            _ADOPT,
        )
    if found == {"unfinished": OperationKind.ROTATE}:
        record = context.records[Role.OWNER].get(name)
        role = Role.OWNER if record is None or record.operation is None else record.operation.role
        return ("to finish the rotation", "rotate", *(() if role in (None, Role.OWNER) else ("--role", str(role))))
    return ("to repair", "repair")


def _has_newer_login(context: CommandContext, name: str, problems: Sequence[Problem]) -> bool:
    """Whether a login is newer than all on record, so that every command that changes the tenant fails."""
    record = context.records[Role.OWNER].get(name)
    if record is None:
        return False
    names = names_of(name, record.engine, context.options.prefix)
    return bool(newer_logins(record, names, [each.detail for each in problems if each.kind == "unknown_login"]))


@runs
async def show_usage(selection: Selection, options: TenantOptions, output: ListOutput) -> int:
    """Print the size and the connections of tenants.

    The largest comes first. Without names, it prints all tenants.

    Example: aiodbclient tenants usage
    """
    found: list[Usage] = []
    async with open_selection(options, selection, default_all=True, partly=True) as context:
        groups = defaultdict[str, list[str]](list)
        for name in context.names[Role.OWNER]:
            record = context.records[Role.OWNER].get(name)
            groups["" if record is None else record.cluster].append(name)

        async def read(cluster: str, names: list[str]) -> None:
            async with patiently(context.clusters.get(cluster, context.cluster)):
                found.extend([each async for each in context.tenants.usage(names)])

        try:
            async with asyncio.TaskGroup() as tasks:
                for cluster, names in groups.items():
                    tasks.create_task(read(cluster, names))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:  # also if it is stopped while a cluster does not answer
            code = _print_usage(context, output, found)
    return context.entries.end(code)


def _print_usage(context: CommandContext, output: ListOutput, found: list[Usage]) -> int:
    found.sort(key=lambda each: (-(each.bytes or 0), each.name))
    failed = dict(context.missing)
    failed |= {each.name: context.named(message_of(each.error)) for each in found if each.error is not None}
    rows = [{"name": each.name} | context.cluster_columns(each.cluster, as_json=output.as_json) for each in found]
    for row, each in zip(rows, found, strict=True):
        if output.as_json:
            row |= {"bytes": each.bytes, "connections": each.connections, "error": failed.get(each.name)}
        else:
            row |= {"size": None if each.bytes is None else sized(each.bytes), "connections": each.connections}
    if not output.as_json and any(each.error is None for each in found):
        size, connections = (sum(getattr(each, which) or 0 for each in found) for which in ("bytes", "connections"))
        rows.append({"name": "total", "size": sized(size), "connections": connections})
    output.rows(rows)
    groups = FailureGroups()
    for name, why in failed.items():
        if groups.add(name, why.replace(name, "")):
            note(f"{name}: {why}")
    groups.say()
    return Exit.SOME_FAILED if failed else Exit.DONE
