"""The commands for the end of tenants: suspend, resume and remove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ..errors import InvalidArgumentError
from ..tenants import Record, Role
from .arguments import Chosen, Place, Printed, RoleOption, ShowOption, YesOption, duration_option
from .asking import check_most, confirm, removal, some
from .running import writes
from .tenants_place import Opened, do

MaxOption = Annotated[
    int | None,
    typer.Option(
        "--max", metavar="N", min=0, help="Refuse to do it to more than N. --all --yes needs it.", show_default=False
    ),
]


@writes
async def suspend_tenants(
    chosen: Chosen, place: Place, printed: Printed, most: MaxOption = None, yes: YesOption = False
) -> int:
    """Suspend tenants: end all their logins and sessions, and keep their data. `resume` gives them back.

    With --all, type the number of tenants or the name of the cluster.

    Example: aiodbclient tenants suspend gamma --cluster tenants-prod --store tenants.db
    """
    _check_all(chosen, most, yes=yes)

    def ask(opened: Opened, names: Mapping[Role, Sequence[str]], missing: Mapping[str, str]) -> None:
        going = names[Role.OWNER]
        check_most(len(going), most)
        if chosen.everybody:
            question = f"Suspend {some(going)} ({len(going)}) on {opened.cluster}: end all their logins and sessions?"
            confirm(question, yes=yes, words=_typed(opened, going))

    return await do(
        place,
        chosen,
        [Role.OWNER],
        lambda tenants, names: tenants.suspend(names),
        printed,
        ask=ask,
        among=lambda record: not _suspended(record),
    )


@writes
async def resume_tenants(
    chosen: Chosen, place: Place, printed: Printed, yes: YesOption = False, show: ShowOption = False
) -> int:
    """Give suspended tenants their logins back, with new passwords.

    Example: aiodbclient tenants resume gamma --cluster tenants-prod --store tenants.db
    """

    def ask(opened: Opened, names: Mapping[Role, Sequence[str]], missing: Mapping[str, str]) -> None:
        going = names[Role.OWNER]
        confirm(f"Resume {some(going)} ({len(going)}) on {opened.cluster}?", yes=yes)

    return await do(
        place,
        chosen,
        [Role.OWNER],
        lambda tenants, names: tenants.resume(names),
        printed,
        show=show,
        ask=ask if chosen.everybody else None,
        among=_suspended,
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
        bool, typer.Option("--ignore-absent", help="Names that are not on record are no failure.")
    ] = False,
    suspended_for: Annotated[
        timedelta | None, duration_option("--suspended-for", "Remove only tenants that are suspended for so long.")
    ] = None,
    most: MaxOption = None,
    yes: YesOption = False,
) -> int:
    """Remove tenants: their logins, their databases with all data, and their records.

    With --all, type the number of tenants or the name of the cluster. With --role reader or writer: remove only such
    logins.

    Example: aiodbclient tenants remove gamma --cluster tenants-prod --store tenants.db --yes
    Example: aiodbclient tenants remove --all --suspended-for 30d --cluster tenants-prod --store tenants.db
    """
    _check_all(chosen, most, yes=yes)
    now = datetime.now(UTC)

    def ask(opened: Opened, names: Mapping[Role, Sequence[str]], missing: Mapping[str, str]) -> None:
        check_most(len(names[role]), most)
        absent = f" Not on record: {some(list(missing))}." if missing else ""
        what = "logins and records; the databases stay" if keep_database else ""
        words = _typed(opened, names[role]) if chosen.everybody else []
        confirm(f"{removal(names[role], opened.cluster, role, what)}{absent}", yes=yes, words=words)

    return await do(
        place,
        chosen,
        [role],
        lambda tenants, names: tenants.remove(names, keep_database=keep_database, suspended_for=suspended_for),
        printed,
        ask=ask,
        among=None if suspended_for is None else lambda record: _suspended(record, now - suspended_for),
        ignore_absent=ignore_absent,
    )


def _check_all(chosen: Chosen, most: int | None, *, yes: bool) -> None:
    if chosen.everybody and yes and most is None:
        raise InvalidArgumentError("--all --yes takes everything: add --max N, the most to take. Nothing was sent")


def _typed(opened: Opened, names: Sequence[str]) -> list[str]:
    """What to type before something is done to all: their number, or the name of the only cluster."""
    return [str(len(names)), *(opened.called.values() if len(opened.called) == 1 else ())]


def _suspended(record: Record, before: datetime | None = None) -> bool:
    """Whether a tenant is suspended, or was by then."""
    since = None if record.current is None else record.current.suspended
    return since is not None and (before is None or since <= before)
