"""The commands that change tenants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from attrs import define, evolve

from ...errors import DatabaseClientError
from ...tenants import Role
from ...tenants._records import Login, OperationKind, TenantRecord
from ..plumbing.asking import confirm, confirm_destructive
from ..plumbing.completion import cluster_names
from ..plumbing.failures import message_of
from ..plumbing.opening import shown
from ..plumbing.options import (
    Confirmation,
    FromOption,
    MaxTenantsOption,
    RoleOption,
    RolesOption,
    Selection,
    ShowOption,
    TenantNames,
    TenantOptions,
    duration_option,
    option,
    roles_of,
)
from ..plumbing.output import Output
from ..plumbing.printing import counted, sized, took
from ..plumbing.progress import called
from ..plumbing.records import is_suspended, is_young
from ..plumbing.running import runs
from .context import CommandContext, TenantReport, names_in, open_selection, open_tenants
from .credentials import lines_of, row_of

if TYPE_CHECKING:
    from ...bulk import Action
    from ...tenants import Problem

_UNDONE = {"rotate": "rotate", "provision": "provision", "prepare": "move", "move": "move"}  # what ``repair`` undoes
_REMOVAL = "Finish the removal of {} on {}, which deletes all data?"


@define
class _ChangeReport(TenantReport):
    """Prints changed tenants: credentials with ``show``, problems, and what to deliver."""

    show: bool = False

    def row(self, outcome: Any, role: str) -> dict[str, Any]:
        credential = outcome.credential
        row = {} if credential is None else row_of(credential, None, show=self.show, as_object=True)
        row["credential_changed"] = bool(self._delivery(outcome, role))
        if sessions := getattr(outcome, "sessions", 0):
            row["sessions"] = sessions
        row |= {"left": outcome.left} if getattr(outcome, "left", ()) else {}
        return row | ({"problems": list(map(str, outcome.problems))} if hasattr(outcome, "problems") else {})

    def text(self, outcome: Any, role: str) -> str:
        lines = list[str]()
        who, end = called(outcome.name, role), self._delivery(outcome, role)
        if problems := getattr(outcome, "problems", ()):
            fixed = self.context.named(", ".join(map(_describe, problems)))
            lines.append(f"{who}: {outcome.action}: {fixed}{end}")
        elif sessions := getattr(outcome, "sessions", 0):
            lines.append(f"{who}: {outcome.action}, {sessions} sessions of the previous login are open")
        elif outcome.action == "deleted" or (outcome.action in ("repaired", "resumed") and end):
            lines.append(f"{who}: {outcome.action}{end}{_describe_left(outcome)}")
        if self.show and outcome.credential is not None:
            lines.append(lines_of(outcome.credential))
        return "\n".join(lines)

    def _delivery(self, outcome: Any, role: str) -> str:
        """Say so if programs need another credential than they have; else return an empty text."""
        now, record = outcome.credential, self.context.records[Role(role)].get(outcome.name)
        before = None if record is None else record.current(Role(role))
        if now is None or outcome.record.suspended is not None or outcome.action in ("deleted", "suspended"):
            return ""
        if before is None or (before.username, before.password) != (now.username, now.password):
            return " (new credential: deliver it)"
        if any(each.kind == "unknown_login" for each in getattr(outcome, "problems", ())):
            return " (a login that is not on record, and may be newer, was ended: deliver the credential on record)"
        return ""


def _describe_left(outcome: Any) -> str:
    """Name the databases that a removal left, since they are not the tenant's own."""
    left = getattr(outcome, "left", ())
    what = f"the tenant's objects in {', '.join(left)} stay, such as in a copy that you made"
    return f" ({what}. They belong to a role aiodbclient_gone_...)" if left else ""


def _describe(problem: Problem) -> str:
    """Describe a problem that was repaired."""
    again = _UNDONE.get(problem.detail) if problem.kind == "unfinished" else None
    return str(problem) if again is None else f"{problem} (undone: run {again} again)"


@runs
async def provision_tenants(
    options: TenantOptions,
    output: Output,
    confirmation: Confirmation,
    names: TenantNames = None,
    file: FromOption = None,
    role: RoleOption = Role.OWNER,
    adopt: Annotated[bool, option("--adopt", help="Take over databases that the store does not have.")] = False,
    max_tenants: MaxTenantsOption = None,
    show: ShowOption = False,
) -> int:
    """Create a database and a login for each name.

    The credentials are stored. Tenants in the store are kept.

    With several clusters, a new tenant goes to the one with the fewest. --role reader or writer creates such a login
    for tenants in the store. It asks before --adopt, and before it finishes a removal.

    Example: aiodbclient tenants provision --from names.csv
    """
    selection = Selection(names=names, file=file)
    wanted = names_in(selection) or []
    is_owner = role is Role.OWNER
    new = wanted if is_owner else ()
    async with open_tenants(
        options, make=is_owner, new=new, dry_run=confirmation.dry_run, max_tenants=max_tenants
    ) as context:
        if going := context.half_removed(wanted, role):
            question = _REMOVAL.format(counted(going), context.cluster_names_of(going, role))
            confirm_destructive(f"{question} Then they are created again.", len(going), selection, confirmation)
        on_record = {*context.records[role], *context.entries.damaged}
        if adopt and (unseen := [name for name in wanted if name not in on_record]):
            question = (
                f"Take over {counted(unseen)}: the logins, and the databases with all data? "
                f"They are not on record in {shown(options.store)}, and may be in another store."
            )
            confirm(question, yes=confirmation.yes or confirmation.dry_run)
        missing = {name: context.why_missing(name, role) for name in wanted if (role, name) in context.others}
        here = [name for name in wanted if name not in missing]
        context = evolve(context, wanted=wanted, names={role: here}, missing=missing)
        report = _ChangeReport(output, options.verbose, context=context, show=show)
        action = "adopt, or create" if adopt else "create"
        would = confirmation.preview(lambda name, _: "keep" if name in on_record else action)
        if_exists: Literal["adopt", "error"] = "adopt" if adopt else "error"
        return await context.run(lambda tenants, names: tenants.provision(names, if_exists=if_exists), report, would)


@runs
async def repair_tenants(
    selection: Selection, options: TenantOptions, output: Output, confirmation: Confirmation, show: ShowOption = False
) -> int:
    """Repair the problems that `check` finds. It drops nothing, except that it finishes removals, and asks before.

    Readers and writers of a tenant are repaired with it.

    If it prints that a credential is new, give it to the tenant's programs (-o json: `credential_changed`).

    Example: aiodbclient tenants repair --all
    """
    async with open_selection(options, selection) as context:
        if going := context.half_removed(context.names[Role.OWNER]):
            confirm_destructive(
                _REMOVAL.format(counted(going), context.cluster_names_of(going)), len(going), selection, confirmation
            )
        report = _ChangeReport(output, options.verbose, context=context, show=show)
        return await context.run(lambda tenants, names: tenants.repair(names), report, confirmation.preview("repair"))


@define
class _RotationReport(_ChangeReport):
    skips_young: bool = False

    def summary(self, counts: Mapping[Action, int]) -> str:
        kept = sum(count for action, count in counts.items() if action == "kept")
        suspended = sum(is_suspended(each) for _, each in self.context.selected)
        reasons = ["suspended"] if suspended else []
        reasons += ["younger than --older-than"] if self.skips_young and kept > suspended else []
        said = f"{kept} kept"
        return super().summary(counts).replace(said, f"{said} ({' or '.join(reasons)})" if reasons else said)

    def next_step(self, left: Sequence[str]) -> str:
        return super().next_step(left) + ("" if self.skips_young else ", with --older-than 1h")


@runs
async def rotate_tenants(
    selection: Selection,
    options: TenantOptions,
    output: Output,
    confirmation: Confirmation,
    role: RolesOption = "owner",
    older_than: Annotated[
        timedelta | None, duration_option("--older-than", "Skip younger credentials, such as 30d.")
    ] = None,
    force: Annotated[bool, option("--force", help="Revoke previous logins first. It asks.")] = False,
    show: ShowOption = False,
) -> int:
    """Give each tenant a new credential. The previous one works until `revoke-previous`.

    A tenant whose previous login is not revoked yet is refused, unless --force revokes it. To go on after a stop, add
    --older-than 1h: it skips those that are rotated.

    Example: aiodbclient tenants rotate --all --older-than 30d
    """
    async with open_selection(options, selection, roles_of(role)) as context:
        old = {
            (each.name, role)
            for role, each in context.selected
            if not (is_suspended(each) or is_young(each, role, older_than))
        }
        if force:
            due = _previous_logins(context, older_than)
            question = f"Revoke the previous logins of {_listed(due)}? Programs that still use them stop working."
            confirm_destructive(question, len(due), selection, confirmation)
        report = _RotationReport(
            output, options.verbose, context=context, show=show, skips_young=older_than is not None
        )
        return await context.run(
            lambda tenants, names: tenants.rotate(names, older_than=older_than, force=force),
            report,
            confirmation.preview(lambda name, role: "rotate" if (name, role) in old else "keep"),
        )


def _previous_logins(context: CommandContext, older_than: timedelta | None) -> list[tuple[TenantRecord, Login]]:
    """The previous logins that are not revoked yet, with their records."""
    return [
        (each, previous)
        for role, each in context.selected
        if (previous := each.previous(role)) is not None and not is_young(each, role, older_than)
    ]


def _listed(due: list[tuple[TenantRecord, Login]]) -> str:
    return counted([called(each.name, login.role) for each, login in due], "logins")


async def _count_sessions(context: CommandContext, due: list[tuple[TenantRecord, Login]]) -> str:
    """How many sessions of the previous logins are open, for a question."""
    from ..._http.call import RequestStats  # slow to import
    from ..._http.maintenance import MaintenanceWait

    clusters = context.tenants._context.clusters  # pyright: ignore[reportPrivateUsage]  # of this package
    clusters, count = clusters.for_run(MaintenanceWait()), 0
    try:
        for record, login in due:
            found = await clusters.get(record.cluster, RequestStats())
            count += await found.server.count_sessions(login.username)
    except DatabaseClientError as error:
        return f"sessions (how many is unknown: {context.named(message_of(error))})"
    return f"{count} open sessions"


@runs
async def revoke_previous(
    selection: Selection,
    options: TenantOptions,
    output: Output,
    confirmation: Confirmation,
    role: RolesOption = "owner",
    older_than: Annotated[
        timedelta | None, duration_option("--older-than", "Keep logins that were replaced later, such as 1d.")
    ] = None,
    unused: Annotated[bool, option("--unused", help="Keep logins that have open sessions.")] = False,
) -> int:
    """Revoke the credentials from before the last rotation.

    Programs that still use them stop working. It asks first, and says how many sessions are open.

    Example: aiodbclient tenants revoke-previous --all --older-than 1d
    """
    async with open_selection(options, selection, roles_of(role), destroys=True) as context:
        due = _previous_logins(context, older_than)
        previous = {(each.name, login.role) for each, login in due}
        sessions = (
            "sessions" if confirmation.yes or confirmation.dry_run or not due else await _count_sessions(context, due)
        )
        question = f"Revoke the previous logins of {_listed(due)}, and end their {sessions}?"
        confirm_destructive(question, len(due), selection, confirmation)
        report = _ChangeReport(output, options.verbose, context=context)
        return await context.run(
            lambda tenants, names: tenants.revoke_previous(names, older_than=older_than, unused=unused),
            report,
            confirmation.preview(lambda name, role: "revoke" if (name, role) in previous else "keep"),
        )


@runs
async def suspend_tenants(
    selection: Selection, options: TenantOptions, output: Output, confirmation: Confirmation
) -> int:
    """Revoke all logins of tenants, end their sessions, and keep their data.

    `resume` gives them new passwords.

    Example: aiodbclient tenants suspend gamma --yes
    """
    async with open_selection(
        options, selection, among=lambda record: not is_suspended(record), destroys=True
    ) as context:
        going = context.names[Role.OWNER]
        question = f"Suspend {counted(going)} on {context.cluster_names_of(going)}, and end their sessions?"
        confirm_destructive(question, len(going), selection, confirmation)
        report = _ChangeReport(output, options.verbose, context=context)
        return await context.run(lambda tenants, names: tenants.suspend(names), report, confirmation.preview("suspend"))


@runs
async def resume_tenants(selection: Selection, options: TenantOptions, output: Output, show: ShowOption = False) -> int:
    """Give suspended tenants their logins back, with new passwords.

    Example: aiodbclient tenants resume gamma
    """
    async with open_selection(options, selection, among=is_suspended) as context:
        report = _ChangeReport(output, options.verbose, context=context, show=show)
        return await context.run(lambda tenants, names: tenants.resume(names), report)


@define
class _RemovalReport(_ChangeReport):
    ignores_absent: bool = False

    def next_step(self, left: Sequence[str]) -> str:
        by_name = self.context.wanted is not None and not self.ignores_absent  # those that are gone are not on record
        return super().next_step(left) + (", with --ignore-absent" if by_name else "")


@runs
async def remove_tenants(
    selection: Selection,
    options: TenantOptions,
    output: Output,
    confirmation: Confirmation,
    role: RoleOption = Role.OWNER,
    ignore_absent: Annotated[bool, option("--ignore-absent", help="Leave out names that are not on record.")] = False,
    older_than: Annotated[
        timedelta | None, duration_option("--older-than", "Only those suspended for so long, such as 30d.")
    ] = None,
) -> int:
    """Remove tenants with all their data.

    Their logins, databases and records are deleted. If a name is not on record, nothing is removed. --role reader or
    writer removes only such logins.

    Example: aiodbclient tenants remove gamma
    """
    among = None if older_than is None else partial(is_suspended, before=datetime.now(UTC) - older_than)
    async with open_selection(options, selection, [role], among=among, partly=True, destroys=True) as context:
        if not ignore_absent or any((role, name) in context.others for name in context.missing):
            context = context.whole()
        else:
            context = evolve(context, missing={})
        going = context.names[role]
        what = "logins, databases with all data, and records" if role is Role.OWNER else f"the {role} logins"
        question = f"Remove {counted(going)} from {context.cluster_names_of(going, role)}: {what}?"
        confirm_destructive(question, len(going), selection, confirmation)
        report = _RemovalReport(output, options.verbose, context=context, ignores_absent=ignore_absent)
        return await context.run(
            lambda tenants, names: tenants.remove(names, suspended_for=older_than),
            report,
            confirmation.preview("remove"),
        )


@define
class _MoveReport(_ChangeReport):
    target: str = ""

    def row(self, outcome: Any, role: str) -> dict[str, Any]:
        moved = {"frozen": outcome.frozen.total_seconds(), "bytes": outcome.bytes, "left": outcome.left or None}
        return super().row(outcome, role) | moved | {"reason": self._why_kept(outcome)}

    def text(self, outcome: Any, role: str) -> str:
        if why := self._why_kept(outcome):
            return f"{outcome.name}: kept, {why}"
        end = " (new credential: deliver it)" if outcome.record.suspended is None else " (suspended)"
        left = f"; {outcome.left}" if outcome.left else ""
        frozen = took(outcome.frozen.total_seconds())
        operation = self.context.records[Role.OWNER][outcome.name].operation
        if operation is not None and operation.kind is OperationKind.MOVE:
            frozen += ", and before that since a move was interrupted"
        return f"{outcome.name}: moved, {sized(outcome.bytes)}, frozen for {frozen}{end}{left}"

    def _why_kept(self, outcome: Any) -> str | None:
        """Say why a tenant was not moved; None if it was."""
        if self.context.clusters.get(outcome.credential.cluster) != self.target:
            return f"with {sized(outcome.bytes)} it would be frozen for longer than --max-frozen"
        return None if outcome.action == "moved" else "it is there already"


@runs
async def move_tenants(
    selection: Selection,
    options: TenantOptions,
    output: Output,
    confirmation: Confirmation,
    to: Annotated[str, option("--to", metavar="CLUSTER", help="The cluster to move to.", autocompletion=cluster_names)],
    max_frozen: Annotated[
        timedelta | None, duration_option("--max-frozen", "Do not move a tenant whose copy takes longer. Default: 10m.")
    ] = None,
) -> int:
    """Move tenants to another cluster.

    Their readers and writers move too. While a tenant is copied, it is frozen: none of its logins can connect.

    It needs pg_dump and pg_restore. MySQL does not support it.

    Example: aiodbclient tenants move alpha --to tenants-2
    """
    async with open_selection(options, selection, more=[to]) as context:
        target = next((id for id, name in context.clusters.items() if to in (id, name)), to)
        to_move = [each.name for _, each in context.selected if each.cluster != target]
        if context.wanted is None:
            context = evolve(context, names={Role.OWNER: to_move})
        name = context.clusters[target]
        question = (
            f"Move {counted(to_move)} from {context.cluster_names_of(to_move)} to {name}? While a tenant is copied, no "
            "login can connect. Programs without TenantPools need the new credentials and the new host."
        )
        confirm_destructive(question, len(to_move), selection, confirmation)
        report = _MoveReport(output, options.verbose, context=context, target=name)
        most = {} if max_frozen is None else {"max_frozen": max_frozen}
        would = confirmation.preview(lambda name, _: "move" if name in to_move else "keep")
        return await context.run(lambda tenants, names: tenants.move(names, to=target, **most), report, would)
