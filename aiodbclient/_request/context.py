"""What the calls on one cluster share: where they go, what its engine is, and who may write at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

from .._json.converter import Answer, ClusterEngine, read
from ..engines import CAPABILITIES, Engine, guard
from ..errors import PermissionDeniedError
from ..models import Cluster
from .call import Meter, Options
from .operations import GET_CLUSTER, Operation
from .paths import CLUSTERS
from .transport import Transport, logger

_UNREADABLE = "unreadable"  # an engine that no cluster has: the guard lets it through as it does every unknown one


class Memory:
    """What a client has learned of clusters, and the locks of those that bear one user write at a time."""

    __slots__ = ("engines", "reads", "write_locks")

    def __init__(self) -> None:
        self.engines: dict[str, Engine | str] = {}
        self.reads: dict[tuple[str, float | None, bool], asyncio.Future[None]] = {}
        self.write_locks: dict[str, asyncio.Lock] = {}


class Scope(NamedTuple):
    """One cluster as its users and dbs see it."""

    transport: Transport
    memory: Memory
    cluster_id: str
    given_engine: Engine | str | None
    options: Options

    @property
    def path(self) -> str:
        return f"{CLUSTERS}/{self.cluster_id}"

    @property
    def engine(self) -> Engine | str | None:
        """The engine that was given, or else learned, or None."""
        if self.given_engine is not None:
            return self.given_engine
        learned = self.memory.engines.get(self.cluster_id)
        return None if learned == _UNREADABLE else learned

    async def read_cluster(self) -> Cluster:
        """``clusters.get``."""
        cluster = read(await self.transport.request(GET_CLUSTER, self.path, options=self.options), "database", Cluster)
        self.memory.engines[self.cluster_id] = cluster.engine
        return cluster

    async def learn_engine(self) -> Engine | str:
        """The engine, read once for the client where it is not known yet."""
        engine = self.given_engine or self.memory.engines.get(self.cluster_id)
        while engine is None:
            await self._read_engine()
            engine = self.memory.engines.get(self.cluster_id)
        return engine

    async def allow(self, operation: Operation, settings: Iterable[str] = ()) -> None:
        """The guard."""
        guard(await self.learn_engine(), operation.name, settings)

    def for_bulk(self, meter: Meter) -> Scope:
        """This scope for one name of a bulk run: in the budget's bulk lane, however long it takes, counted by
        ``meter``.
        """
        return self._replace(options=Options(bulk=True, meter=meter))

    async def write_user(self, operation: Operation, path: str, body: dict[str, Any] | None = None) -> Answer:
        """Send a user write: alone, where the engine bears no two at a time."""
        capabilities = CAPABILITIES.get(self.engine or "")
        if capabilities is None or capabilities.concurrent_user_writes > 1:
            return await self.transport.request(operation, path, body, self.options)
        turn = self.memory.write_locks.setdefault(self.cluster_id, asyncio.Lock())
        return await self.transport.request(operation, path, body, self.options, turn)

    async def _read_engine(self) -> None:
        """Read the cluster, or wait for whoever is reading it with the same patience and in the same lane.

        A failed read fails all who wait for it, a cancelled one none.
        """
        reads, reading = self.memory.reads, (self.cluster_id, self.options.max_wait, self.options.bulk)
        if reading in reads:
            await asyncio.shield(reads[reading])
            return
        done = reads[reading] = asyncio.get_running_loop().create_future()
        try:
            answer = await self.transport.request(GET_CLUSTER, self.path, options=self.options)
            self.memory.engines[self.cluster_id] = read(answer, "database", ClusterEngine).engine
        except PermissionDeniedError:
            logger.warning(
                "the token may not read cluster %s, so its engine is not known and its calls are not guarded",
                self.cluster_id,
            )
            self.memory.engines[self.cluster_id] = _UNREADABLE
        except Exception as error:
            done.set_exception(error)
            done.exception()  # seen, should nobody wait for it
            raise
        finally:
            del reads[reading]
            if not done.done():
                done.set_result(None)
