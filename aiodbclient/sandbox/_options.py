"""``NewCluster``: the options of a cluster to add."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike

from attrs import field, fields, frozen

from ._validation import JSON


def _path(given: str | PathLike[str] | None) -> str | None:
    return None if given is None else str(given)


def _list(given: Iterable[str]) -> list[str]:
    return list(given)


@frozen
class NewCluster:
    """A cluster to add. ``Sandbox.add_cluster`` describes the fields, and has the same defaults."""

    engine: str = field(converter=str)
    name: str | None = None
    dsn: str | None = field(default=None, repr=False)
    backend: str | None = None
    server: str | None = field(default=None, converter=_path)
    tls: bool = True
    version: str | None = None
    num_nodes: int = 1
    region: str = "nyc3"
    size: str = "db-s-1vcpu-1gb"
    tags: list[str] = field(factory=list[str], converter=_list)
    cluster_id: str | None = None
    online_after: float = 0.0

    def record(self) -> JSON:
        """The fields to store for ``restored``. The DSN is not stored: its server may have moved by then."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return kept | {"dsn": self.dsn is not None}

    @staticmethod
    def restored(record: JSON) -> NewCluster:
        """Create it from a stored record. The record of an older sandbox may lack fields."""
        return NewCluster(**{name: record[name] for name in _KEPT if name in record})


_NOT_KEPT = {"name", "dsn", "cluster_id", "online_after"}  # the cluster stores its name and id itself
_KEPT: list[str] = [attribute.name for attribute in fields(NewCluster) if attribute.name not in _NOT_KEPT]
