"""The size of tenants: one query for each cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import TypeAlias

from attrs import evolve, frozen

from .._bulk.run import check_iterable
from .._http.call import RequestStats
from .._http.maintenance import MaintenanceWait
from ..errors import DatabaseClientError
from ._capacity import ClusterCapacity
from ._context import Context
from ._naming import check_tenant
from ._record import OnRecord, State, no_database
from .errors import StoreError


@frozen(kw_only=True)
class Usage:
    """How much of its cluster a tenant uses.

    Attributes:
        name: The tenant.
        cluster: The id of its cluster; None if it has none.
        bytes: The size of its database; None if it is unknown.
        connections: How many sessions are open in its database; on MySQL those of its logins. None if it is unknown.
        error: Why they are unknown, or None.
    """

    name: str
    cluster: str | None = None
    bytes: int | None = None
    connections: int | None = None
    error: DatabaseClientError | None = None


_OfServer: TypeAlias = Mapping[str, tuple[int, int]] | DatabaseClientError


async def _read(context: Context, clusters: Iterable[str]) -> dict[str, _OfServer]:
    """Ask all servers at the same time for the size and the sessions of each database."""
    servers = context.servers.for_job(MaintenanceWait())

    async def read(cluster: str) -> _OfServer:
        try:
            return await (await servers.server(cluster, RequestStats())).server.usage()
        except DatabaseClientError as error:
            return error

    async with asyncio.TaskGroup() as tasks:
        reading = {each: tasks.create_task(read(each)) for each in clusters}
    return {each: task.result() for each, task in reading.items()}


async def usage_of(context: Context, names: Iterable[str] | AsyncIterable[str] | None) -> AsyncIterator[Usage]:
    """Yield the usage of each tenant. See ``Tenants.usage``."""
    if names is None:
        found = [_on_record(each) async for each in context.entries()]
    else:
        check_iterable(names, "usage")
        given = [each async for each in names] if isinstance(names, AsyncIterable) else names
        found = [await _named(context, each) for each in given]
    clusters = dict.fromkeys(each.cluster for each in found if each.cluster is not None)
    servers = await _read(context, clusters)
    if any(_lacks_database(context, each, servers) for each in found):  # it may be on another cluster
        servers |= await _read(context, [each for each in context.servers.clients if each not in servers])
    for each in found:
        if each.cluster is None:
            yield each
        elif isinstance(of_server := servers[each.cluster], DatabaseClientError):
            yield evolve(each, error=of_server)
        elif (of_database := of_server.get(context.prefix + each.name)) is None:
            database = context.prefix + each.name
            others = (cluster for cluster, its in servers.items() if isinstance(its, Mapping) and database in its)
            yield evolve(each, error=each.error or no_database(each.name, database, next(others, None)))
        else:
            yield evolve(each, bytes=of_database[0], connections=of_database[1], error=None)


def _lacks_database(context: Context, usage: Usage, servers: Mapping[str, _OfServer]) -> bool:
    of_server = None if usage.cluster is None else servers[usage.cluster]
    return isinstance(of_server, Mapping) and context.prefix + usage.name not in of_server


async def _named(context: Context, given: str) -> Usage:
    name = check_tenant(given)
    try:
        return _on_record(await context.record(name))
    except DatabaseClientError as error:
        return Usage(name=name, error=error)


def _on_record(entry: OnRecord | StoreError) -> Usage:
    """Where a tenant is, or why that is unknown. Also why it may have no database."""
    if isinstance(entry, StoreError):
        return Usage(name=entry.damaged[0], error=entry)
    is_whole = entry.state not in (State.ABSENT, State.PROVISIONING, State.REMOVING)
    return Usage(name=entry.name, cluster=entry.cluster, error=None if is_whole else entry.unusable())


async def capacity_of(context: Context) -> list[ClusterCapacity]:
    """The capacity of each cluster, with the size of its tenants. See ``Tenants.capacity``."""
    capacities = await context.placement.capacities()
    servers = await _read(context, [each.cluster for each in capacities])
    names = context.servers.name
    return [evolve(each, name=names(each.cluster), bytes=_total(servers[each.cluster])) for each in capacities]


def _total(of_server: _OfServer) -> int | None:
    return None if isinstance(of_server, DatabaseClientError) else sum(size for size, _ in of_server.values())
