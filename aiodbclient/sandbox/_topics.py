"""``Topics``: the topics of a Kafka cluster, or the indexes of an OpenSearch cluster. They are names only. Pure."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from ..engines import Engine
from ._answers import SandboxAnswer, not_found, unsupported
from ._validation import JSON

_ENGINE_OF: dict[str, str] = {"topics": Engine.KAFKA, "indexes": Engine.OPENSEARCH}
# Kafka's rule is in org.apache.kafka.common.internals.Topic, OpenSearch's in its manual ("Create index").
_NAMES: dict[str, re.Pattern[str]] = {
    "topics": re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}"),
    "indexes": re.compile(r'(?!\.{1,2}\Z)[^A-Z_+ \-:"*/\\|?#><,\x00-\x1f][^A-Z :"*/\\|?#><,\x00-\x1f]{0,254}'),
}


class Topics:
    """The topics or indexes of one cluster."""

    def __init__(self, engine: str, created: MutableMapping[str, Any]) -> None:
        self._engine = engine
        self._created = created

    def add(self, kind: str, name: str) -> None:
        """Create the topic or index ``name`` if it does not exist."""
        if self._engine != _ENGINE_OF[kind]:
            raise ValueError(f"a {self._engine} cluster has no {kind}; only {_ENGINE_OF[kind]} clusters do")
        if not _NAMES[kind].fullmatch(name):
            raise ValueError(f"{name!r} is not a valid name for {kind} of {_ENGINE_OF[kind]}")
        self._created.setdefault(name, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    def answer(self, kind: str, verb: str, name: str) -> SandboxAnswer:
        """Answer ``list``, or ``delete`` of ``name``, or raise Refusal."""
        if self._engine != _ENGINE_OF[kind]:
            raise unsupported()
        if verb == "list":
            described = _topic if kind == "topics" else _index
            return SandboxAnswer(200, {kind: [described(each, at) for each, at in self._created.items()]})
        if name not in self._created:
            raise not_found()
        del self._created[name]
        return SandboxAnswer(204)


def _topic(name: str, _: str) -> JSON:
    return {"name": name, "state": "active", "replication_factor": 2, "partition_count": 3}


def _index(name: str, created: str) -> JSON:
    return {
        "index_name": name,
        "created_time": created,
        "number_of_shards": 1,
        "number_of_replicas": 1,
        "size": 208,
        "health": "green",
        "status": "open",
    }
