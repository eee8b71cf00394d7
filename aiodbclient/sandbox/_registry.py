"""``Registry``: the clusters of a sandbox. It adds, stops and restores them."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from ._backends import MemoryBackend
from ._behind import NewCluster, behind
from ._clusters import SandboxCluster
from ._data import Data, mapping
from ._faults import Faults
from ._reach import Reach, SandboxCA
from ._topics import Topics


class Registry(Mapping[str, SandboxCluster]):
    """The running clusters, by id."""

    def __init__(self, reach: Reach, faults: Faults) -> None:
        self._reach = reach
        self._faults = faults
        self._clusters: dict[str, SandboxCluster] = {}
        self._taken: dict[str, str] = {}  # ids by name, from the moment in which ``add`` begins
        self._restored: set[str] = set()  # names that were restored and not yet added in this run
        self._is_open = False
        self._data: Data | None = None
        self._kept: MutableMapping[str, Any] = {}
        self._authority = SandboxCA({})

    def __getitem__(self, cluster_id: str) -> SandboxCluster:
        return self._clusters[cluster_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._clusters)

    def __len__(self) -> int:
        return len(self._clusters)

    async def open(self, data: Data | None) -> None:
        """Start the clusters stored in ``data``, and store those that are added from now on."""
        self._data = data
        self._kept = mapping(data, "clusters")
        self._authority = SandboxCA(mapping(data, "authority"))
        self._is_open = True
        for name, record in self._kept.items():
            if not record["dsn"]:  # the server of a DSN may have moved: ``add`` must pass the DSN again
                await self._restore(name, record)

    async def close(self) -> None:
        """Stop and forget all clusters. ``data`` keeps them."""
        self._is_open = False
        clusters = list(self._clusters.values())
        self._faults.detach()
        for forgotten in (self._clusters, self._taken, self._restored):
            forgotten.clear()
        try:
            await asyncio.gather(*(cluster.backend.stop() for cluster in clusters))
        finally:
            self._data, self._kept, self._authority = None, {}, SandboxCA({})

    async def add(self, new: NewCluster) -> str:
        """Add a cluster, or find a restored one with the same name and engine, and return its id."""
        name = self._free_name(new.engine) if new.name is None else new.name
        if name in self._restored:
            return self._kept_id(name, new)
        if not name or name in self._taken:
            raise ValueError(f"a cluster named {name!r} exists already" if name else "name must not be empty")
        cluster_id = _uuid(new.cluster_id or self._kept.get(name, {}).get("id"))
        if cluster_id in self._taken.values():
            raise ValueError(f"a cluster with the id {cluster_id} exists already")
        cluster = self._made(new, name, cluster_id)
        self._taken[name] = cluster_id
        try:
            await self._start(cluster)
        except BaseException:
            self._taken.pop(name, None)
            raise
        if new.online_after > 0:
            cluster.set_status("creating", new.online_after)
        kind = "memory" if isinstance(cluster.backend, MemoryBackend) else "postgres"
        self._kept[name] = cluster.record() | {"backend": kind}
        return cluster_id

    async def _start(self, cluster: SandboxCluster) -> None:
        await cluster.backend.start()
        if not self._is_open:
            await cluster.backend.stop()
            raise RuntimeError("the sandbox stopped before the cluster was added")
        if cluster.backend.embedded is not None:
            self._faults.attach(cluster.id, cluster.backend.embedded)
        self._clusters[cluster.id] = cluster

    async def _restore(self, name: str, record: dict[str, Any]) -> None:
        cluster = self._made(NewCluster.restored(record), name, record["id"])
        cluster.restore(record)
        self._taken[name] = cluster.id
        self._restored.add(name)
        await self._start(cluster)

    def _made(self, new: NewCluster, name: str, cluster_id: str) -> SandboxCluster:
        backend = behind(new, name, cluster_id, self._authority, self._data, self._reach)
        topics = Topics(new.engine, mapping(self._data, f"topics of {cluster_id}"))
        return SandboxCluster(cluster_id, name, backend, topics, new)

    def _kept_id(self, name: str, new: NewCluster) -> str:
        """The id of a restored cluster that is added for the first time in this run."""
        kept = self._clusters[self._taken[name]]
        if kept.engine != new.engine or (new.cluster_id is not None and _uuid(new.cluster_id) != kept.id):
            raise ValueError(f"{name!r} is stored as a {kept.engine} cluster with the id {kept.id}")
        self._restored.discard(name)
        return kept.id

    def _free_name(self, engine: str) -> str:
        taken = self._taken.keys() - self._restored
        return next(name for number in itertools.count(1) if (name := f"{engine}-{number}") not in taken)


def _uuid(given: str | None) -> str:
    if given is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(given))
    except ValueError:
        raise ValueError(f"cluster_id must be a UUID, not {given!r}") from None
