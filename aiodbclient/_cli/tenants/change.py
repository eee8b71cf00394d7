"""The commands that change tenants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Literal

from attrs import evolve

from ...errors import DatabaseClientError, InvalidArgumentError
from ...tenants import Role
from ...tenants._records import Login, TenantRecord
from ..plumbing.asking import confirm
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
from ..plumbing.printing import counted
from ..plumbing.progress import called
from ..plumbing.records import is_suspended, is_young
from ..plumbing.running import runs
from .context import CommandContext, names_in, open_selection, open_tenants
from .reports import ChangeReport, MoveReport, RotationReport

_REMOVAL = "Finish the removal of {} on {}, which deletes all data?"


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
    wanted = names_in(selection, takes_all=False) or []
    is_owner = role is Role.OWNER
    if adopt and not is_owner:
        raise InvalidArgumentError(f"--adopt takes over databases: leave it out with --role {role.value}")
    new = wanted if is_owner else ()
    async with open_tenants(
        options, make=is_owner, new=new, dry_run=confirmation.dry_run, max_tenants=max_tenants
    ) as context:
        context = evolve(context, wanted=wanted, selection=selection, confirmation=confirmation)
        if going := context.half_removed(wanted, role):
            question = _REMOVAL.format(counted(going), context.cluster_names_of(going, role))
            context.confirm(f"{question} Then they are created again.", going)
        on_record = {*context.records[role], *context.entries.damaged}
        if adopt and (unseen := [name for name in wanted if name not in on_record]):
            question = (
                f"Take over {counted(unseen)}: the logins, and the databases with all data? "
                f"They are not on record in {shown(options.store)}, and may be in another store."
            )
            confirm(question, yes=confirmation.yes or confirmation.dry_run)
        missing = {name: context.why_missing(name, role) for name in wanted if (role, name) in context.others}
        here = [name for name in wanted if name not in missing]
        context = evolve(context, names={role: here}, missing=missing)
        report = ChangeReport(output, options.verbose, context=context, show=show)
        works = {name for name, each in context.records[role].items() if each.credential(role)}
        if_exists: Literal["adopt", "error"] = "adopt" if adopt else "error"
        return await context.run(
            lambda tenants, names: tenants.provision(names, if_exists=if_exists),
            report,
            lambda name, _: "keep" if name in works else "adopt" if adopt and name not in on_record else "create",
        )


@runs
async def repair_tenants(
    selection: Selection, options: TenantOptions, output: Output, confirmation: Confirmation, show: ShowOption = False
) -> int:
    """Repair the problems that `check` finds.

    Readers and writers of a tenant are repaired with it.

    It deletes data in two cases only. It finishes an interrupted removal, and asks first. It drops what a move or an
    interrupted creation left on another cluster.

    If it prints that a credential is new, give it to the tenant's programs (-o json: `credential_changed`).

    Example: aiodbclient tenants repair --all
    """
    async with open_selection(options, selection, confirmation=confirmation) as context:
        if going := context.half_removed(context.names[Role.OWNER]):
            context.confirm(_REMOVAL.format(counted(going), context.cluster_names_of(going)), going)
        report = ChangeReport(output, options.verbose, context=context, show=show)
        return await context.run(
            lambda tenants, names: tenants.repair(names),
            report,
            lambda name, _: "remove" if name in going else "repair, or keep",
        )


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
    force: Annotated[bool, option("--force", help="Ask, then revoke previous logins first.")] = False,
    show: ShowOption = False,
) -> int:
    """Give each tenant a new credential. The previous one works until `revoke-previous`.

    A tenant whose previous login is not revoked yet is refused, unless --force revokes it. To go on after a stop, add
    --older-than 1h: it skips those that are rotated.

    Example: aiodbclient tenants rotate --all --older-than 30d
    """
    async with open_selection(options, selection, roles_of(role), confirmation=confirmation) as context:
        if force:
            due = _previous_logins(context, older_than)
            context.confirm(
                f"Revoke the previous logins of {_listed(due)}? Programs that still use them stop working.", due
            )
        report = RotationReport(output, options.verbose, context=context, show=show, skips_young=older_than is not None)
        if older_than is None:
            report.again += ", with --older-than 1h"
        return await context.run(
            lambda tenants, names: tenants.rotate(names, older_than=older_than, force=force),
            report,
            "rotate",
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
    clusters, count = clusters.for_job(MaintenanceWait()), 0
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
        timedelta | None, duration_option("--older-than", "Keep logins replaced within this time, such as 1d.")
    ] = None,
    unused: Annotated[bool, option("--unused", help="Keep logins that have open sessions.")] = False,
) -> int:
    """Revoke the credentials from before the last rotation.

    Programs that still use them stop working. It asks first, and says how many sessions are open.

    Example: aiodbclient tenants revoke-previous --all --older-than 1d
    """
    async with open_selection(options, selection, roles_of(role), confirmation=confirmation, destroys=True) as context:
        due = _previous_logins(context, older_than)
        sessions = (
            "sessions" if confirmation.yes or confirmation.dry_run or not due else await _count_sessions(context, due)
        )
        context.confirm(f"Revoke the previous logins of {_listed(due)}, and end their {sessions}?", due)
        report = ChangeReport(output, options.verbose, context=context)
        would = "revoke, or keep" if unused else "revoke"
        return await context.run(
            lambda tenants, names: tenants.revoke_previous(names, older_than=older_than, unused=unused),
            report,
            lambda name, role: would if context.records[role][name].previous(role) else "keep",
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
        options, selection, confirmation=confirmation, among=lambda record: not is_suspended(record), destroys=True
    ) as context:
        going = context.names[Role.OWNER]
        context.confirm(
            f"Suspend {counted(going)} on {context.cluster_names_of(going)}, and end their sessions?", going
        )
        report = ChangeReport(output, options.verbose, context=context)
        return await context.run(lambda tenants, names: tenants.suspend(names), report, "suspend")


@runs
async def resume_tenants(selection: Selection, options: TenantOptions, output: Output, show: ShowOption = False) -> int:
    """Give suspended tenants their logins back, with new passwords.

    Example: aiodbclient tenants resume gamma
    """
    async with open_selection(options, selection, among=is_suspended) as context:
        report = ChangeReport(output, options.verbose, context=context, show=show)
        return await context.run(lambda tenants, names: tenants.resume(names), report)


@runs
async def remove_tenants(
    selection: Selection,
    options: TenantOptions,
    output: Output,
    confirmation: Confirmation,
    role: RoleOption = Role.OWNER,
    ignore_absent: Annotated[bool, option("--ignore-absent", help="Leave out names that are not on record.")] = False,
    older_than: Annotated[
        timedelta | None, duration_option("--older-than", "Only tenants suspended for at least this long, such as 30d.")
    ] = None,
) -> int:
    """Remove tenants with all their data.

    Their logins, databases and records are deleted. If a name is not on record, nothing is removed. --role reader or
    writer removes only such logins.

    Example: aiodbclient tenants remove gamma
    """
    among = None if older_than is None else partial(is_suspended, before=datetime.now(UTC) - older_than)
    async with open_selection(
        options, selection, [role], confirmation=confirmation, among=among, partly=True, destroys=True
    ) as context:
        if not ignore_absent or any((role, name) in context.others for name in context.missing):
            context = context.whole()
        else:
            context = evolve(context, missing={})
        going = context.names[role]
        what = "logins, databases with all data, and records" if role is Role.OWNER else f"the {role} logins"
        context.confirm(f"Remove {counted(going)} from {context.cluster_names_of(going, role)}: {what}?", going)
        report = ChangeReport(output, options.verbose, context=context)
        if context.wanted is not None and not ignore_absent:  # those that are gone are not on record
            report.again += ", with --ignore-absent"
        return await context.run(
            lambda tenants, names: tenants.remove(names, suspended_for=older_than), report, "remove"
        )


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
    async with open_selection(options, selection, confirmation=confirmation, more=[to]) as context:
        target = next((id for id, name in context.clusters.items() if to in (id, name)), to)
        to_move = [each.name for _, each in context.selected if each.cluster != target]
        if context.wanted is None:
            context = evolve(context, names={Role.OWNER: to_move})
        name = context.clusters[target]
        context.confirm(
            f"Move {counted(to_move)} from {context.cluster_names_of(to_move)} to {name}? While a tenant is copied, no "
            "login can connect. Programs without TenantPools need the new credentials and the new host.",
            to_move,
        )
        report = MoveReport(output, options.verbose, context=context, target=name)
        most = {} if max_frozen is None else {"max_frozen": max_frozen}
        return await context.run(
            lambda tenants, names: tenants.move(names, to=target, **most),
            report,
            lambda name, _: "move" if name in to_move else "keep",
        )
