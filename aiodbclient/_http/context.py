"""What the calls on one cluster share: its id, its engine, and the guard."""

from __future__ import annotations

import asyncio
import binascii
import copy
import ssl
from collections.abc import Awaitable, Callable
from itertools import islice
from math import inf
from time import monotonic
from typing import NamedTuple, TypeVar

from attrs import define, field

from .._json import Authority, Body, ClusterEngine, encode
from ..engines import Engine, guard
from ..errors import DatabaseClientError, PermissionDeniedError
from ..models import ClusterInfo, Connection
from .call import Call, Options, RequestStats, WriteLocks
from .events import logger
from .maintenance import MaintenanceWait
from .operations import CREATE_USER, DELETE_USER, GET_CA, GET_CLUSTER, GET_USER, Operation
from .pages import ListedT, read_all
from .response import Response
from .transport import Transport

T = TypeVar("T")

_FORBIDDEN_TTL = 60.0  # seconds for which a cluster that the token may not read is not read again
_REPLICA = "if this is the id of a replica, pass its engine: client.cluster(id, engine=...)"
_NO_CLUSTER = "no cluster has this id"
_NEW_CLUSTER = "a cluster that has just come online may not be ready yet"

# Twice the 30 s for which the API may still list a deleted user (Aiven's documentation; Aiven runs the databases).
_DELETED_TTL = 60.0


@define(eq=False)
class ClientCache:
    """What a client knows about clusters, by id, and the locks of writes on them."""

    engines: dict[str, Engine | str] = field(factory=dict)
    forbidden: dict[str, float] = field(factory=dict)  # when the API said that the token may not read the cluster
    cas: dict[str, str] = field(factory=dict)  # as PEM
    connections: dict[tuple[str, bool], Connection] = field(factory=dict)  # for ``uri_for``; True: the private one
    reads: dict[tuple[object, ...], asyncio.Future[None]] = field(factory=dict)  # other calls wait for them
    write_locks: dict[str, WriteLocks] = field(factory=dict)
    deleted: dict[tuple[str, str], float] = field(factory=dict)  # users, and when that was sent, the oldest first


class ClusterContext(NamedTuple):
    """One cluster, from the view of its calls."""

    transport: Transport
    cache: ClientCache
    cluster_id: str  # in the API's spelling
    given_engine: Engine | None
    options: Options
    maintenance: MaintenanceWait | None = None  # of the run that the calls are part of

    @property
    def engine(self) -> Engine | str | None:
        """The engine that was read or else given, or None."""
        return self.cache.engines.get(self.cluster_id) or self.given_engine

    @property
    def was_read(self) -> bool:
        """Whether this client has read the cluster."""
        return self.cluster_id in self.cache.engines

    async def send(self, operation: Operation, name: str, body: Body | None = None) -> Response:
        """Send an operation on the user or db ``name``, if the cluster's engine supports it and the settings in it."""
        path = operation.path(self.cluster_id, name)
        encoded, settings = (None, []) if body is None else encode(body)
        engine = await self.learn_engine()
        capabilities = guard(engine, operation.name, settings)
        if operation is DELETE_USER:
            note_deletion(self.cache.deleted, (self.cluster_id, name), monotonic())
        locks = None
        if capabilities.concurrent_user_writes == 1 and operation.writes and operation.on == "users":
            locks = self.cache.write_locks.setdefault(self.cluster_id, WriteLocks())
        call = Call(
            operation,
            path,
            self.options,
            self.cluster_id,
            name=name,
            engine=engine,
            body=encoded,
            write_locks=locks,
            not_found="" if operation.idempotent else _NEW_CLUSTER,
        )
        if self.maintenance is not None:
            response = await self.maintenance.send(call, self.transport, self.read_cluster)
        else:
            response = await self.transport.send(call)
        if operation in (CREATE_USER, GET_USER):
            self.cache.deleted.pop((self.cluster_id, name), None)  # it exists, so the list is right
        return response

    def may_be_listed_still(self, name: str) -> bool:
        """Whether the API may still list the user although this client deleted it less than a minute ago."""
        return monotonic() - self.cache.deleted.get((self.cluster_id, name), -inf) < _DELETED_TTL

    async def call(self, operation: Operation, name: str, model: type[T], body: Body | None = None) -> T:
        """Send an operation on the user or db ``name``, and return the model that its answer holds."""
        return (await self.send(operation, name, body)).read(model)

    async def list(self, operation: Operation, model: type[ListedT]) -> list[ListedT]:
        """Read all users or dbs of the cluster, if its engine supports them."""
        guard(await self.learn_engine(), operation.name)
        return await read_all(self.transport, operation, operation.path(self.cluster_id), model, self.options)

    async def check_exists(self, listing: Operation) -> None:
        """Raise NotFoundError if there is no such cluster. A replica has lists too, but cannot be read itself."""
        guard(await self.learn_engine(), listing.name)
        if not self.was_read:
            path = f"{listing.path(self.cluster_id)}?per_page=1"
            await self.transport.send(Call(listing, path, self.options, not_found=_NO_CLUSTER))

    async def read_cluster(self) -> ClusterInfo:
        """Read the cluster, and store its engine."""
        call = Call(GET_CLUSTER, GET_CLUSTER.path(self.cluster_id), self.options, self.cluster_id)
        cluster = (await self.transport.send(call)).read(ClusterInfo)
        self.cache.engines[self.cluster_id] = cluster.engine
        return cluster

    async def read_ca(self) -> str:
        """Return the CA certificate of the cluster as PEM, which each client reads once."""
        while self.cluster_id not in self.cache.cas:
            await self._share(GET_CA, self._read_ca)
        return self.cache.cas[self.cluster_id]

    async def learn_engine(self) -> Engine | str | None:
        """Return the engine, reading it once per client if it is unknown, or None if the token may not read it."""
        while (engine := self.cache.engines.get(self.cluster_id) or self.given_engine) is None:
            if monotonic() - self.cache.forbidden.get(self.cluster_id, -inf) < _FORBIDDEN_TTL:
                return None
            await self._share(GET_CLUSTER, self._read_engine)
        return engine

    def with_stats(self, stats: RequestStats, maintenance: MaintenanceWait | None = None) -> ClusterContext:
        """Return this context with ``stats``; with ``maintenance`` its calls are a run's, which wait behind others."""
        maintenance = self.maintenance or maintenance
        options = self.options._replace(stats=stats, bulk=maintenance is not None)
        return self._replace(options=options, maintenance=maintenance)

    async def _share(self, operation: Operation, read: Callable[[], Awaitable[None]]) -> None:
        """Call ``read``, or wait for another call that does so with the same options."""
        options, reads = self.options, self.cache.reads
        key = (operation, self.cluster_id, options.max_wait, options.timeout, options.retry, options.bulk)
        if key in reads:
            try:
                await asyncio.shield(reads[key])
            except DatabaseClientError as error:
                failure = copy.copy(error)  # each call that waits has an exception of its own
            else:
                return
            raise failure
        done = reads[key] = asyncio.get_running_loop().create_future()
        try:
            await read()
        except Exception as error:
            done.set_exception(error)
            done.exception()  # retrieved, so that asyncio does not warn if no call waits
            raise
        finally:
            del reads[key]
            if not done.done():  # cancelled, perhaps: then one of the waiting calls reads instead
                done.set_result(None)

    async def _read_engine(self) -> None:
        path = GET_CLUSTER.path(self.cluster_id)
        call = Call(GET_CLUSTER, path, self.options, self.cluster_id, not_found=_REPLICA)
        try:
            self.cache.engines[self.cluster_id] = (await self.transport.send(call)).read(ClusterEngine).engine
        except PermissionDeniedError as error:
            if not error.id:  # not the API's: a proxy says nothing of the token
                raise
            logger.warning(
                "the token may not read cluster %s, so its engine is not known and its calls are not guarded",
                self.cluster_id,
            )
            self.cache.forbidden[self.cluster_id] = monotonic()

    async def _read_ca(self) -> None:
        response = await self.transport.send(Call(GET_CA, GET_CA.path(self.cluster_id), self.options, self.cluster_id))
        pem = _pem(response.read(Authority).certificate)
        if pem is None:
            raise response.invalid("holds no certificate, as PEM in base64")
        self.cache.cas[self.cluster_id] = pem


def note_deletion(deleted: dict[tuple[str, str], float], user: tuple[str, str], now: float) -> None:
    """Note that ``user`` is deleted, and forget older deletions."""
    deleted.pop(user, None)
    deleted[user] = now
    # Each call drops at most two old entries: this bounds both the size and the time of a call.
    for old in tuple(islice(deleted, 2)):
        if deleted[old] <= now - _DELETED_TTL:
            del deleted[old]


def _pem(encoded: str) -> str | None:
    """Return the certificates in ``encoded``, or None if there are none."""
    try:
        pem = binascii.a2b_base64(encoded).decode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ValueError, ssl.SSLError):
        return None
    return pem
