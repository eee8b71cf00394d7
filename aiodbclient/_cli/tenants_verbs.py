"""The commands that change tenants: provision, repair, rotate and revoke, suspend, resume and remove."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated

from attrs import evolve

from ..tenants import Role
from .arguments import (
    AdoptOption,
    Chosen,
    Listed,
    MaxOption,
    MostOption,
    Place,
    RoleOption,
    RolesOption,
    ShowOption,
    YesOption,
    duration_option,
    option,
)
from .asking import asks, confirm, confirm_ending, has_terminal, removal, some
from .files import read_names
from .names import selecting
from .opening import shown
from .output import counted, note, this_command
from .printing import Printed
from .records import is_awake, is_suspended, is_young, waits_for_revoke
from .running import runs
from .tenants_place import open_place, open_selection, report_of

if TYPE_CHECKING:
    from ..tenants._record import OnRecord

_RUN_AGAIN = timedelta(hours=1)  # until then, a rotation that was killed is run again


@runs
async def provision_tenants(
    listed: Listed,
    place: Place,
    printed: Printed,
    role: RoleOption = Role.OWNER,
    adopt: AdoptOption = False,
    max_tenants: MostOption = None,
    most: MaxOption = None,
    yes: YesOption = False,
    show: ShowOption = False,
) -> int:
    """Create a database and a login for each name, and store the credentials. Tenants in the store are kept.

    With several clusters, a new tenant goes to the one with the fewest. With --role reader or writer: create such a
    login for tenants that are in the store. --adopt asks before it takes over what exists.

    It asks before it finishes removals that were stopped, which deletes their data, and creates those tenants again.

    Example: aiodbclient tenants provision --from names.csv --cluster tenants-prod --store tenants.db
    """
    wanted = read_names(listed.names, listed.file)
    async with open_place(place, "make" if role is Role.OWNER else "fail", max_tenants, wanted) as opened:
        report = report_of(printed, opened, show=show)
        if renewed := opened.half_removed(wanted, role):
            cluster = opened.clusters_of(renewed, role)
            what = removal(renewed, cluster, role, "finish their removal, which deletes their data")
            question, number, typed = f"{what} They are created again, empty.", len(renewed), listed.file is None
            confirm_ending(question, number, typed=typed, cluster=cluster, most=most, yes=yes)
        if adopt and (unseen := opened.unseen(wanted, role)):
            confirm(
                f"{some(unseen)} ({len(unseen)}): not on record in {shown(opened.place.store)}. If their logins or "
                "databases exist, another store may own them. Take over what exists, with all data?",
                yes=yes,
            )
        kept = {name for name, each in opened.records[role].items() if each.current is not None}
        run = opened.in_role(role).provision(wanted, if_exists="adopt" if adopt else "error")
        work = len(set(wanted) - kept)
        return await evolve(opened, names={role: wanted}).follow({role: run}, report, work=work)


@runs
async def repair_tenants(
    chosen: Chosen,
    place: Place,
    printed: Printed,
    role: RolesOption = None,
    yes: YesOption = False,
    show: ShowOption = False,
) -> int:
    """Repair the problems that `check` finds. Drops nothing in the databases, except that it finishes removals.

    It ends logins that are not on record (`unknown_login`): after a restore of the store, those that were made after
    the backup. Where it says so (-o json: `credential_changed`), deliver the credential on record.

    On a terminal it asks before it finishes removals. Without a terminal it goes on: each was confirmed when it began,
    and `check` names them.

    Example: aiodbclient tenants repair --all --cluster tenants-prod --store tenants.db
    """
    async with open_selection(place, chosen, role or [Role.OWNER]) as opened:
        for its, names in opened.names.items():
            going = opened.half_removed(names, its)
            cluster = opened.clusters_of(going, its)
            question = removal(going, cluster, its, "finish their removal, which deletes their data")
            number, typed, agreed = len(going), opened.typed, yes or not has_terminal()
            confirm_ending(question, number, typed=typed, cluster=cluster, most=len(names), yes=agreed)
        report = report_of(printed, opened, show=show)
        return await opened.run(lambda tenants, names: tenants.repair(names), report)


@runs
async def rotate_tenants(
    chosen: Chosen,
    place: Place,
    printed: Printed,
    role: RolesOption = None,
    older_than: Annotated[
        timedelta | None,
        duration_option("--older-than", "Skip tenants whose credential is younger, such as 30d or 12h."),
    ] = None,
    force: Annotated[
        bool,
        option("--force", help="Rotate also tenants that are not revoked yet. Programs may still use what this ends."),
    ] = False,
    yes: YesOption = False,
    show: ShowOption = False,
) -> int:
    """Give each tenant a new credential, with its other login. The old one works until `revoke_previous`.

    --force ends old logins that programs may still use, so it asks first.

    After a crash, run it again: --all and --from leave out tenants that were rotated within the last hour and wait for
    `revoke_previous`.

    Example: aiodbclient tenants rotate alpha beta --cluster tenants-prod --store tenants.db
    Example: aiodbclient tenants rotate --all --older-than 30d --yes --cluster tenants-prod --store tenants.db
    """
    again = older_than is None and not force and not chosen.typed

    def is_fresh(record: OnRecord | None) -> bool:
        return again and record is not None and waits_for_revoke(record) and is_young(record, _RUN_AGAIN)

    def is_due(record: OnRecord) -> bool:
        return not is_suspended(record) and (older_than is None or not is_young(record, older_than))

    async with open_selection(place, chosen, role or [Role.OWNER]) as opened:
        total, records, cluster = opened.total, opened.records, opened.cluster
        owners = records[Role.OWNER]
        left = {its: [n for n in names if not is_fresh(records[its].get(n))] for its, names in opened.names.items()}
        opened = evolve(opened, names=left)
        if fresh := total - opened.total:
            note(f"rotated within the last hour, and left alone until `revoke_previous`: {fresh}")
        due = [record for its in left for name in left[its] if (record := records[its].get(name)) and is_due(record)]
        ends = sum(map(waits_for_revoke, due))
        going = len(due) if force else len(due) - ends
        if (chosen.everybody and asks(going)) or (force and ends):
            olds = f"{counted(ends, 'old login')}: programs that still use {'it stop' if ends == 1 else 'them stop'}"
            ended = f"This ends {olds} working." if force else "The old ones keep working."
            refused = "" if force or not ends else f" Refused, since they wait for `revoke_previous`: {ends}."
            asleep = [each.name for each in owners.values() if chosen.everybody and is_suspended(each)]
            alone = f" Suspended, and left alone: {some(asleep)}." if asleep else ""
            logins = counted(going, "login")
            confirm(f"Give {logins} on {cluster} new credentials? {ended}{refused}{alone}", yes=yes)

        def rest(done: Collection[str]) -> str:
            """The command for the others: this one refuses what it rotated, or with --force rotates it again."""
            if not done:
                return this_command()
            names = dict.fromkeys(name for its in left.values() for name in its if name not in done)
            roles = [] if role is None else ["--role", role[0] if len(role) == 1 else "all"]
            flags = (("--force", force), ("--yes", force and yes), ("--show", show), ("--json", printed.as_json))
            options = [*roles, *(flag for flag, given in flags if given)]
            return opened.command("rotate", *selecting(list(names)), *options, again=True)

        return await opened.run(
            lambda tenants, names: tenants.rotate(names, older_than=older_than, force=force),
            evolve(report_of(printed, opened, show=show), ways=partial(opened.ways, rotates=True)),
            again=rest if older_than is None and not again else None,
        )


@runs
async def revoke_previous(
    chosen: Chosen,
    place: Place,
    printed: Printed,
    role: RolesOption = None,
    older_than: Annotated[
        timedelta | None, duration_option("--older-than", "Skip tenants that were rotated more recently, such as 1d.")
    ] = None,
    yes: YesOption = False,
) -> int:
    """Revoke the previous credential, and end its sessions. Programs that still use it stop working, so it asks first.

    Example: aiodbclient tenants revoke-previous alpha beta --cluster tenants-prod --store tenants.db --yes
    Example: aiodbclient tenants revoke-previous --all --older-than 1d --yes --cluster tenants-prod --store tenants.db
    """
    async with open_selection(place, chosen, role or [Role.OWNER]) as opened:
        records, cluster = opened.records, opened.cluster
        found = [records[its].get(name) for its, names in opened.names.items() for name in names]
        due = [each for each in found if each is not None and each.previous is not None]
        olds = [each.name for each in due if older_than is None or not is_young(each, older_than)]
        if olds or (chosen.everybody and asks(0)):
            names = list(dict.fromkeys(olds))
            number = f" ({len(olds)} logins of {len(names)} tenants)" if len(olds) > 1 else ""
            confirm(
                f"Revoke the previous logins of {some(names) or 'no tenant'}{number} on {cluster}, and end their "
                "sessions? Programs that still use them stop working.",
                yes=yes,
            )
        return await opened.run(
            lambda tenants, names: tenants.revoke_previous(names, older_than=older_than), report_of(printed, opened)
        )


@runs
async def suspend_tenants(
    chosen: Chosen, place: Place, printed: Printed, most: MaxOption = None, yes: YesOption = False
) -> int:
    """Suspend tenants: end all their logins and sessions, and keep their data. `resume` gives them back.

    It asks first. With --all or --from, type the number of tenants or the name of the cluster.

    Example: aiodbclient tenants suspend gamma --yes --cluster tenants-prod --store tenants.db
    """
    async with open_selection(place, chosen, [Role.OWNER], among=is_awake) as opened:
        going = opened.names[Role.OWNER]
        cluster = opened.clusters_of(going, Role.OWNER)
        question = f"Suspend {some(going)} ({len(going)}) on {cluster}: end all their logins and sessions?"
        number, typed = len(going), opened.typed
        confirm_ending(question, number, typed=typed, cluster=cluster, most=most, yes=yes, done="suspended")
        return await opened.run(lambda tenants, names: tenants.suspend(names), report_of(printed, opened))


@runs
async def resume_tenants(
    chosen: Chosen, place: Place, printed: Printed, yes: YesOption = False, show: ShowOption = False
) -> int:
    """Give suspended tenants their logins back, with new passwords.

    Example: aiodbclient tenants resume gamma --cluster tenants-prod --store tenants.db
    """
    async with open_selection(place, chosen, [Role.OWNER], among=is_suspended) as opened:
        going = opened.names[Role.OWNER]
        if chosen.everybody and asks(len(going)):
            confirm(f"Resume {some(going) or 'no tenant'} ({len(going)}) on {opened.cluster}?", yes=yes)
        report = report_of(printed, opened, show=show)
        return await opened.run(lambda tenants, names: tenants.resume(names), report)


@runs
async def remove_tenants(
    chosen: Chosen,
    place: Place,
    printed: Printed,
    role: RoleOption = Role.OWNER,
    ignore_absent: Annotated[bool, option("--ignore-absent", help="Leave out names that are not on record.")] = False,
    older_than: Annotated[
        timedelta | None,
        duration_option("--older-than", "Remove only tenants that are suspended, and were so long ago, such as 30d."),
    ] = None,
    most: MaxOption = None,
    yes: YesOption = False,
) -> int:
    """Remove tenants: their logins, their databases with all data, and their records.

    It asks first. With --all or --from, type the number of tenants or the name of the cluster. If a name is not on
    record, nothing is removed. With --role reader or writer: remove only such logins.

    Example: aiodbclient tenants remove gamma --cluster tenants-prod --store tenants.db --yes
    Example: aiodbclient tenants remove --all --older-than 30d --cluster tenants-prod --store tenants.db
    """
    before = None if older_than is None else datetime.now(UTC) - older_than
    among = None if before is None else partial(is_suspended, before=before)
    async with open_selection(place, chosen, [role], among=among, partly=ignore_absent) as opened:
        absent = opened.missing
        is_foreign = any(opened.foreign(name, role) for name in absent)  # then it is on record
        if is_foreign:
            opened = opened.whole()
        elif ignore_absent:
            opened = evolve(opened, names={role: [*opened.names[role], *absent]}, missing={})
        going = [name for name in opened.names[role] if name not in absent]
        lacking = f" Not on record: {some(list(absent))}." if absent else ""
        cluster = opened.clusters_of(going, role)
        question = f"{removal(going, cluster, role)}{lacking}"
        number, typed = len(going), opened.typed
        if not opened.missing:
            confirm_ending(question, number, typed=typed, cluster=cluster, most=most, yes=yes)
        code = await opened.run(
            lambda tenants, names: tenants.remove(names, suspended_for=older_than),
            report_of(printed, opened),
            again=lambda done: this_command("--ignore-absent"),
        )
        if opened.missing and not is_foreign:
            note(f"to leave out what is not on record: {this_command('--ignore-absent')}")
        return code
