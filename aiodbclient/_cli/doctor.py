"""The command ``aiodbclient doctor``: what is missing, before it hurts."""

from __future__ import annotations

from typing import Annotated

import typer

from .arguments import STORE_VARIABLE, AdminOption, ClusterArgument, OnCluster, Printed, PrivateOption, split
from .doctor_checks import Findings, check_budget, check_cluster, check_servers, check_store, check_token
from .doctor_trial import live
from .opening import find_cluster, open_client
from .running import DONE, SOME_FAILED, writes


@writes
async def examine(
    place: OnCluster,
    printed: Printed,
    words: ClusterArgument = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            envvar=STORE_VARIABLE,
            metavar="STORE",
            help="Check this store and its key too.",
            show_default=False,
        ),
    ] = None,
    attempt: Annotated[
        bool,
        typer.Option(
            "--try", help="Take a throw-away tenant through its whole life: created, rotated, retired, removed."
        ),
    ] = False,
    private: PrivateOption = False,
    admin: AdminOption = None,
) -> int:
    """Check everything that tenants need. Prints a line for each check: ok, or what to do.

    Without --try it only reads. With it, it creates one tenant called doctor-..., and removes it whatever happens.

    Example: aiodbclient doctor tenants-prod
    Example: aiodbclient doctor tenants-prod --try
    """
    cluster, _ = split(words, place.cluster, 0)
    findings = Findings(as_json=printed.as_json)
    async with open_client(place) as (client, paced):
        if not await check_budget(findings, paced):
            return SOME_FAILED
        if not await check_token(findings, client):
            return SOME_FAILED
        found = await find_cluster(client, cluster)
        if store is not None:
            await check_store(findings, store, found.id)
        info = await check_cluster(findings, found, private=private, admin=admin)
        if info is not None:
            await check_servers(findings, found, info, private=private, admin=admin)
        if attempt and not findings.failed:
            await live(findings, found, private=private, admin=admin)
        elif attempt:
            findings.skip("--try", "fix what failed above first")
    return SOME_FAILED if findings.failed else DONE
