"""Which users a client has deleted a moment ago. Pure."""

from __future__ import annotations

from itertools import islice

# Twice the half minute for which a deleted user may still be listed (Aiven, whose service it is, says so of its API).
_LISTED = 60.0


class Deletions:
    """The users whose deletion was sent less than a minute ago, by cluster and name."""

    __slots__ = ("_sent",)

    def __init__(self) -> None:
        self._sent: dict[tuple[str, str], float] = {}  # the oldest first

    def note(self, cluster_id: str, name: str, now: float) -> None:
        """Remember that a deletion is sent.

        Args:
            cluster_id: The cluster.
            name: The user.
            now: The time, in seconds of a monotonic clock.
        """
        self._sent.pop((cluster_id, name), None)
        self._sent[cluster_id, name] = now
        # Each new one drops up to two old ones: enough to keep it small, and quick however many there are.
        for old in tuple(islice(self._sent, 2)):
            if self._sent[old] <= now - _LISTED:
                del self._sent[old]

    def forget(self, cluster_id: str, name: str) -> None:
        """Forget that a deletion was sent: it was refused, or the user has been created again."""
        self._sent.pop((cluster_id, name), None)

    def may_be_listed_still(self, cluster_id: str, name: str, now: float) -> bool:
        """Whether a list may still have the user although it was deleted."""
        sent = self._sent.get((cluster_id, name))
        return sent is not None and sent > now - _LISTED
