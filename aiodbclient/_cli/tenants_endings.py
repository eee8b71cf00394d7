"""The commands for the end of tenants: suspend, resume and remove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ..tenants import Role
from .arguments import Chosen, MaxOption, Place, Printed, RoleOption, ShowOption, YesOption, duration_option
from .asking import confirm, confirm_ending, removal, some
from .running import writes
from .tenants_place import Opened, do, is_suspended


@writes
async def suspend_tenants(
    chosen: Chosen, place: Place, printed: Printed, most: MaxOption = None, yes: YesOption = False
) -> int:
    """Suspend tenants: end all their logins and sessions, and keep their data. `resume` gives them back.

    It asks first. With --all or --from, type the number of tenants or the name of the cluster.

    Example: aiodbclient tenants suspend gamma --yes --cluster tenants-prod --store tenants.db
    """

    def ask(opened: Opened, names: Mapping[Role, Sequence[str]], missing: Mapping[str, str]) -> None:
        going = names[Role.OWNER]
        question = f"Suspend {some(going)} ({len(going)}) on {opened.cluster}: end all their logins and sessions?"
        confirm_ending(
            question, len(going), typed=chosen.typed, cluster=opened.cluster, most=most, yes=yes, done="suspended"
        )

    return await do(
        place,
        chosen,
        [Role.OWNER],
        lambda tenants, names: tenants.suspend(names),
        printed,
        ask=ask,
        among=lambda record: not is_suspended(record),
    )


@writes
async def resume_tenants(
    chosen: Chosen, place: Place, printed: Printed, yes: YesOption = False, show: ShowOption = False
) -> int:
    """Give suspended tenants their logins back, with new passwords.

    Example: aiodbclient tenants resume gamma --cluster tenants-prod --store tenants.db
    """

    def ask(opened: Opened, names: Mapping[Role, Sequence[str]], missing: Mapping[str, str]) -> None:
        if going := names[Role.OWNER]:
            confirm(f"Resume {some(going)} ({len(going)}) on {opened.cluster}?", yes=yes)

    return await do(
        place,
        chosen,
        [Role.OWNER],
        lambda tenants, names: tenants.resume(names),
        printed,
        show=show,
        ask=ask if chosen.everybody else None,
        among=is_suspended,
    )


@writes
async def remove_tenants(
    chosen: Chosen,
    place: Place,
    printed: Printed,
    role: RoleOption = Role.OWNER,
    keep_database: Annotated[
        bool, typer.Option("--keep-database", help="Keep the databases and their data, for the administrator alone.")
    ] = False,
    ignore_absent: Annotated[
        bool, typer.Option("--ignore-absent", help="Leave out names that are not on record.")
    ] = False,
    suspended_for: Annotated[
        timedelta | None, duration_option("--suspended-for", "Remove only tenants that are suspended for so long.")
    ] = None,
    most: MaxOption = None,
    yes: YesOption = False,
) -> int:
    """Remove tenants: their logins, their databases with all data, and their records.

    It asks first. With --all or --from, type the number of tenants or the name of the cluster. If a name is not on
    record, nothing is removed. With --role reader or writer: remove only such logins.

    Example: aiodbclient tenants remove gamma --cluster tenants-prod --store tenants.db --yes
    Example: aiodbclient tenants remove --all --suspended-for 30d --cluster tenants-prod --store tenants.db
    """
    now = datetime.now(UTC)

    def ask(opened: Opened, names: Mapping[Role, Sequence[str]], missing: Mapping[str, str]) -> None:
        what = "logins and records; the databases stay" if keep_database else ""
        absent = f" Not on record: {some(list(missing))}." if missing else ""
        question, number = f"{removal(names[role], opened.cluster, role, what)}{absent}", len(names[role])
        confirm_ending(question, number, typed=chosen.typed, cluster=opened.cluster, most=most, yes=yes)

    return await do(
        place,
        chosen,
        [role],
        lambda tenants, names: tenants.remove(names, keep_database=keep_database, suspended_for=suspended_for),
        printed,
        ask=ask,
        among=None if suspended_for is None else lambda record: is_suspended(record, now - suspended_for),
        ignore_absent=ignore_absent,
    )
