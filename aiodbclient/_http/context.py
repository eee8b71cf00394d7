"""What the calls on one cluster share: its id, its engine, the guard, and the limit of user writes at a time."""

from __future__ import annotations

import asyncio
import binascii
import ssl
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from .._json.converter import Authority, ClusterEngine
from ..engines import Engine, guard
from ..errors import NotFoundError, PermissionDeniedError
from ..models import Cluster
from .call import Call, Options, RequestStats
from .events import logger
from .maintenance import MaintenanceWait
from .operations import GET_CA, GET_CLUSTER, Operation, check_name
from .pages import read_all
from .response import Response
from .transport import Transport

T = TypeVar("T")

# The engine of a cluster that the token may not read. The guard passes it, like every unknown engine.
_UNREADABLE = "unreadable"
_REPLICA = "if this is the id of a replica, pass its engine: client.cluster(id, engine=...)"


# Twice the 30 s for which the API may still list a deleted user (Aiven's documentation; Aiven runs the databases).
_LISTED = 60.0


class Deletions:
    """The users whose deletion the client sent less than a minute ago, by cluster and name."""

    __slots__ = ("_sent",)

    def __init__(self) -> None:
        self._sent: dict[tuple[str, str], float] = {}  # the oldest first

    def note(self, cluster_id: str, name: str, now: float) -> None:
        """Note that the client sends a deletion."""
        self._sent.pop((cluster_id, name), None)
        self._sent[cluster_id, name] = now
        # Each call drops at most two old entries: this bounds both the size and the time of a call.
        for old in tuple(islice(self._sent, 2)):
            if self._sent[old] <= now - _LISTED:
                del self._sent[old]

    def forget(self, cluster_id: str, name: str) -> None:
        """Forget a deletion: the API refused it, or the user was created again."""
        self._sent.pop((cluster_id, name), None)

    def may_be_listed_still(self, cluster_id: str, name: str, now: float) -> bool:
        """Whether the API may still list the user although it was deleted."""
        sent = self._sent.get((cluster_id, name))
        return sent is not None and sent > now - _LISTED


class ClientCache:
    """What a client knows about clusters, by id, the locks for reading it, and the limits of user writes at a time."""

    def __init__(self, user_writes: int | None = None) -> None:
        self.user_writes = user_writes  # how many each cluster gets at a time; None for as many as its engine takes
        self.writers: dict[str, asyncio.Semaphore] = {}
        self.engines: dict[str, Engine | str] = {}
        self.reads: dict[tuple[object, ...], asyncio.Future[None]] = {}  # of engines; other calls await them
        self.cas: dict[str, str] = {}  # as PEM
        self.ca_locks: dict[str, asyncio.Lock] = {}
        self.deletions: Deletions = Deletions()

    def writers_of(self, cluster_id: str, *, one_at_a_time: bool) -> asyncio.Semaphore | None:
        """Return what limits the user writes on the cluster at a time; None if nothing does."""
        limit = 1 if one_at_a_time else self.user_writes
        return None if limit is None else self.writers.setdefault(cluster_id, asyncio.Semaphore(limit))


class ClusterContext(NamedTuple):
    """One cluster, from the view of its calls."""

    transport: Transport
    memory: ClientCache
    cluster_id: str  # in the API's spelling
    given_engine: Engine | str | None
    options: Options
    maintenance: MaintenanceWait | None = None  # of the run that the calls are part of

    @property
    def engine(self) -> Engine | str | None:
        """The engine that was given or read, or None."""
        if self.given_engine is not None:
            return self.given_engine
        learned = self.memory.engines.get(self.cluster_id)
        return None if learned == _UNREADABLE else learned

    @property
    def was_seen(self) -> bool:
        """Whether this client has read the cluster, or is not allowed to."""
        return self.cluster_id in self.memory.engines

    async def send(
        self,
        operation: Operation,
        name: str,
        body: Mapping[str, Any] | None = None,
        settings: Iterable[str] = (),
    ) -> Response:
        """Send an operation on the user or db ``name``, if the cluster's engine supports it."""
        check_name(name)
        path = operation.path(self.cluster_id, name)
        engine = await self.learn_engine()
        capabilities = guard(engine, operation.name, settings)
        writers = None
        if operation.writes and operation.on == "users":
            one_at_a_time = capabilities is not None and capabilities.concurrent_user_writes == 1
            writers = self.memory.writers_of(self.cluster_id, one_at_a_time=one_at_a_time)
        call = Call(
            operation,
            path,
            self.options,
            cluster_id=self.cluster_id,
            name=name,
            engine=engine,
            body=body,
            writers=writers,
        )
        return await self.deliver(call)

    async def deliver(self, call: Call) -> Response:
        """Send ``call``; within a run also after the cluster refused it with 412. Raises as ``Transport.send``."""
        if self.maintenance is None:
            return await self.transport.send(call)
        return await self.maintenance.send(call, self.cluster_id, self.transport.send, self.read_cluster)

    async def list(self, operation: Operation, model: type[T]) -> list[T]:
        """Read all users or dbs of the cluster, if its engine supports them. Raises as ``send``."""
        guard(await self.learn_engine(), operation.name)
        path = operation.path(self.cluster_id)
        return await read_all(self.transport, operation, path, model, self.options)

    async def read(self, operation: Operation, model: type[T]) -> T:
        """Send an operation on the cluster itself, and return the ``model`` in the answer."""
        call = Call(operation, operation.path(self.cluster_id), self.options, cluster_id=self.cluster_id)
        return (await self.transport.send(call)).read(model)

    async def read_cluster(self) -> Cluster:
        """Read the cluster, and store its engine."""
        cluster = await self.read(GET_CLUSTER, Cluster)
        self.memory.engines[self.cluster_id] = cluster.engine
        return cluster

    async def read_ca(self) -> str:
        """Return the CA certificate of the cluster as PEM. Each client reads it once."""
        cas = self.memory.cas
        async with self.memory.ca_locks.setdefault(self.cluster_id, asyncio.Lock()):
            if self.cluster_id not in cas:
                call = Call(GET_CA, GET_CA.path(self.cluster_id), self.options, cluster_id=self.cluster_id)
                answer = await self.transport.send(call)
                pem = _pem(answer.read(Authority).certificate)
                if pem is None:
                    raise answer.invalid("holds no certificate, as PEM in base64")
                cas[self.cluster_id] = pem
            return cas[self.cluster_id]

    async def learn_engine(self) -> Engine | str:
        """Return the engine. Reads the cluster if it is unknown, once per client."""
        engine = self.given_engine or self.memory.engines.get(self.cluster_id)
        while engine is None:
            await self._read_engine()
            engine = self.memory.engines.get(self.cluster_id)
        return engine

    def for_bulk(self, stats: RequestStats, maintenance: MaintenanceWait | None = None) -> ClusterContext:
        """Return this context for one name of a run; ``maintenance`` is the run's, unless the context has one."""
        maintenance = self.maintenance or maintenance
        options = self.options._replace(meter=stats, bulk=maintenance is not None)
        return self._replace(options=options, maintenance=maintenance)

    async def _read_engine(self) -> None:
        """Read the cluster, or wait for another call that already reads it with the same options."""
        options = self.options
        reading = (self.cluster_id, options.max_wait, options.timeout, options.retry, options.bulk)
        reads = self.memory.reads
        if reading in reads:
            await asyncio.shield(reads[reading])
            return
        done = reads[reading] = asyncio.get_running_loop().create_future()
        try:
            self.memory.engines[self.cluster_id] = (await self.read(GET_CLUSTER, ClusterEngine)).engine
        except PermissionDeniedError:
            logger.warning(
                "the token may not read cluster %s, so its engine is not known and its calls are not guarded",
                self.cluster_id,
            )
            self.memory.engines[self.cluster_id] = _UNREADABLE
        except Exception as error:
            if isinstance(error, NotFoundError):
                error.args = (f"{error.args[0]}; {_REPLICA}",)
            done.set_exception(error)
            done.exception()  # retrieved, so that asyncio does not warn if no call waits
            raise
        finally:
            del reads[reading]
            if not done.done():  # cancelled, perhaps: then one of the waiting calls reads instead
                done.set_result(None)


def _pem(encoded: str) -> str | None:
    """Return the certificates in ``encoded``, or None if there are none."""
    try:
        pem = binascii.a2b_base64(encoded).decode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ValueError, ssl.SSLError):
        return None
    return pem
