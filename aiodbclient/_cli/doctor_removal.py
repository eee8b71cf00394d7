"""How ``doctor --try`` removes what it made, and looks until it is sure that nothing is left."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from .. import Cluster, ClusterClient
from .._request.waits import waits
from ..clusters import request_below
from ..engines import CAPABILITIES, Engine
from ..errors import DatabaseClientError, NotFoundError
from ..tenants import Role, Tenants
from ..tenants._naming import names_of
from ..tenants._prefixes import list_objects
from .doctor_findings import Findings
from .output import note

_CUT = 12  # characters: MySQL has room for no more of the tenant's name in the name of a second login
_LATE = 35.0  # s for which a request without an answer may still be performed: the client's timeout, and some
_LAG = 15.0  # s for which reads may still show what was deleted
_PAUSE = 1.5  # s between two looks


async def remove(
    findings: Findings, tenants: Tenants, cluster: ClusterClient, info: Cluster, name: str, pending: set[str]
) -> None:
    """Remove the tenant and everything else whose name begins as ``name``, and print whether anything is left."""
    error: object = None
    try:
        if pending:
            note(f"wait: a creation has no answer and may still be performed; looking for up to {_LATE:.0f} s")
            await _await_late(cluster, info, name, pending)
        async for outcome in tenants.remove([name]):
            error = outcome.error
        if error is not None:
            note(f"{error}; deleting its logins and its database one by one")
        left = await _delete_all(cluster, info, name)
        if error is not None and not left:
            error = await _forget_roles(tenants, cluster, info, name)
        if left:
            error = f"still there: {', '.join(left)}"
    except DatabaseClientError as ended:
        error = ended
    if error is None:
        findings.ok("removed", f"nothing of {name} is left: the API was asked until nothing was listed")
    else:
        findings.fail(
            "removed", error, f"Look for {name} with `users list` and `dbs list`, and delete what is left by hand"
        )


async def unfinished(tenants: Tenants, engine: Engine | str) -> set[str]:
    """The tenant's names that a request without an answer may still create."""
    names = set[str]()
    for role in Role:
        async for record in tenants.role(role).records():
            if record.current is None or record.intended is not None:
                names |= {record.name, *names_of(record.name, engine, role=role).logins}
    return names


async def _await_late(cluster: ClusterClient, info: Cluster, name: str, pending: set[str]) -> None:
    """Wait until a pending name appears that was not there, or its request is too old to be performed."""
    before = set(await _ours(cluster, info, name))
    for wait in waits(_LATE, longest=_PAUSE):
        await asyncio.sleep(wait)
        if any(each in pending for _, each in {*await _ours(cluster, info, name)} - before):
            return


async def _delete_all(cluster: ClusterClient, info: Cluster, name: str) -> list[str]:
    """Delete what is ours, and look until nothing is listed. Returns what is left."""
    left: list[tuple[str, str]] = []
    for wait in waits(_LAG, longest=_PAUSE):
        await asyncio.sleep(wait)
        left = await _ours(cluster, info, name)
        if not left:
            break
        for kind, each in left:
            with suppress(NotFoundError):  # deleted, and still listed
                await request_below(cluster, "DELETE", kind, each)
    return [each for _, each in left]


async def _ours(cluster: ClusterClient, info: Cluster, name: str) -> list[tuple[str, str]]:
    """The kind and name of everything in the cluster whose name begins as ``name``."""
    known = CAPABILITIES[info.engine]
    listed = [("users", user.name) for user in await cluster.users.list()]
    if known.tenants == "database":
        listed += [("dbs", db.name) for db in await cluster.dbs.list()]
    else:
        kind = "topics" if info.engine == Engine.KAFKA else "indexes"
        listed += [(kind, each) for each in await list_objects(cluster, info.engine)]
    return [(kind, each) for kind, each in listed if each.startswith(name[:_CUT])]


async def _forget_roles(tenants: Tenants, cluster: ClusterClient, info: Cluster, name: str) -> Exception | None:
    """Remove the roles of the server that ``remove`` did not reach. Returns why they may be left."""
    try:
        site = await tenants._tenancy.sites[cluster.id].read(cluster)  # pyright: ignore[reportPrivateUsage]
        if site.sql is not None:
            for role in reversed(Role):
                await site.sql.forget(names_of(name, info.engine, role=role))
    except DatabaseClientError as error:
        return error
    return None
