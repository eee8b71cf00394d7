"""The command ``aiodbclient doctor``: what is missing, before it hurts."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from ..engines import MYSQL, POSTGRESQL
from .arguments import AdminOption, ListedOn, PrivateOption, option
from .failures import Exit
from .opening import find_cluster, open_client
from .output import STORE_VARIABLE
from .printing import Printed
from .running import changes, runs


@runs
async def examine(
    place: ListedOn,
    printed: Printed,
    store: Annotated[
        str | None, option("--store", envvar=STORE_VARIABLE, metavar="STORE", help="Check this store and its key too.")
    ] = None,
    attempt: Annotated[
        bool,
        option(
            "--try",
            help="Prove what this package assumes of the provider: make logins, take a throw-away tenant through its "
            "whole life, and ask the API what it sees of it.",
        ),
    ] = False,
    private: PrivateOption = False,
    admin: AdminOption = None,
) -> int:
    """Check everything that tenants need. Prints a line for each check: ok, FAIL with what to do, or a note.

    Without --try it only reads. With it, it creates logins and a
    tenant called doctor-..., and removes them whatever happens: within two minutes and 60 requests.

    Example: aiodbclient doctor tenants-prod
    Example: aiodbclient doctor tenants-prod --try -o json
    """
    from .doctor_checks import check_cluster, check_server, check_store, check_token
    from .doctor_findings import Findings, StepFailedError
    from .doctor_trial import live  # slow to import, as those are, and not needed for help

    cluster, findings = place.target, Findings(as_json=printed.as_json)
    async with open_client(place.budget) as (client, _):
        try:
            await check_token(findings, client)
        except StepFailedError:
            return Exit.SOME_FAILED
        found = await find_cluster(client, cluster)
        if attempt:
            changes()
        if store is not None:
            await check_store(findings, store, found.id)
        info = None
        with suppress(StepFailedError):
            info = await check_cluster(findings, found, private=private, admin=admin)
            if info.engine in POSTGRESQL | MYSQL:
                await check_server(findings, found, info, private=private, admin=admin)
        if attempt and info is not None and not findings.failed:
            await live(findings, found, info, private=private, admin=admin)
        elif attempt:
            findings.skip("--try", "fix what failed above first")
    return Exit.SOME_FAILED if findings.failed else Exit.DONE
