"""The command ``aiodbclient doctor``: what is missing, before it hurts."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from ...engines import MYSQL, POSTGRESQL
from ...errors import InvalidArgumentError
from ..plumbing.failures import Exit
from ..plumbing.opening import find_clusters, is_missing, open_client, open_store, patiently
from ..plumbing.options import AdminOption, ClusterOptions, PrivateOption, option, store_option
from ..plumbing.output import Output
from ..plumbing.records import read_entries
from ..plumbing.running import runs


@runs
async def examine(
    options: ClusterOptions,
    output: Output,
    store: Annotated[str | None, store_option("Check this store and its key too.")] = None,
    attempt: Annotated[bool, option("--try", help="Make a login and a throw-away tenant, and remove them.")] = False,
    private: PrivateOption = False,
    admin: AdminOption = None,
) -> int:
    """Check everything that tenants need. Prints a line for each check: ok, FAIL with what to do, or a note.

    Without --try, it only reads. With --try, it creates a login and a tenant called doctor-..., runs the operations on
    them, and removes them whatever happens, within two minutes and 60 requests.

    Example: aiodbclient doctor --try
    """
    from .checks import Findings, StepFailedError, check_cluster, check_server, check_store, check_token
    from .trial import live  # slow to import, as those are, and not needed for help

    findings = Findings(output)
    async with open_client() as client:
        try:
            async with patiently():
                await check_token(findings, client)
        except StepFailedError:
            return Exit.UNUSABLE
        clusters = await find_clusters(client, options.clusters or await _clusters_in(store))
        if store is not None:
            await check_store(findings, store, [each.id for each in clusters.values()])
        for name, found in clusters.items():
            info, failed = None, findings.failed
            with suppress(StepFailedError):
                async with patiently(name):
                    info = await check_cluster(findings, found, private=private, admin=admin)
                    if info.engine in POSTGRESQL | MYSQL:
                        await check_server(findings, found, info, private=private, admin=admin)
            if attempt and info is not None and findings.failed == failed:
                await live(findings, found, info, private=private, admin=admin)
            elif attempt:
                findings.skip("--try", "fix what failed above first")
    return Exit.SOME_FAILED if findings.failed else Exit.DONE


async def _clusters_in(store: str | None) -> list[str]:
    if store is not None and not is_missing(store):
        async with open_store(store) as opened:
            if found := [*(await read_entries(opened)).clusters()]:
                return found
    raise InvalidArgumentError("which cluster? Add --cluster, or a --store that has tenants")
