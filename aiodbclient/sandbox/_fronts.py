"""``ServerFronts``: sends the SQL faults to the fronts of the embedded PostgreSQLs, and reads their counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from ._clusters import SandboxCluster
from ._fault import Fault


class ServerFronts:
    """The fronts of the clusters that have one.

    Args:
        clusters: The clusters, by their ids.
    """

    def __init__(self, clusters: Mapping[str, SandboxCluster]) -> None:
        self._clusters = clusters
        self._faults: Sequence[Fault] = ()
        self._counts: dict[str, dict[str, tuple[int, int]]] = {}  # the last known, by cluster and fault

    def publish(self, faults: Sequence[Fault]) -> None:
        """Replace all faults by these."""
        self.remember()  # a removed fault keeps its counts
        self._faults = faults
        for cluster in self._clusters.values():
            self.prepare(cluster)

    def prepare(self, cluster: SandboxCluster) -> None:
        """Send the faults to the front of ``cluster``."""
        mine = [fault.spec() for fault in self._faults if fault.cluster in (None, cluster.id)]
        self._ask(cluster, {"faults": mine})

    def count(self, fault: Fault) -> tuple[int, int]:
        """How many logins and statements ``fault`` has matched, and how many it has failed, on all clusters."""
        self.remember()
        counts = [counts.get(str(fault.id), (0, 0)) for counts in self._counts.values()]
        return sum(seen for seen, _ in counts), sum(fired for _, fired in counts)

    def remember(self) -> None:
        """Read the counts of all fronts."""
        for cluster in self._clusters.values():
            self._ask(cluster, {})

    def _ask(self, cluster: SandboxCluster, order: dict[str, object]) -> None:
        front = cluster.backend.front()
        if front is not None:
            with suppress(RuntimeError):  # the server was killed
                known = self._counts.setdefault(cluster.id, {})
                known.update(front.ask(**order))
