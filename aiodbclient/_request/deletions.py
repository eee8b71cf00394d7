"""Remember which users a client deleted recently. Pure."""

from __future__ import annotations

from itertools import islice

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
