"""Runs ``slots.lua`` in Valkey, and keeps this process's facts in step with those there."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from ..account import Account
from ..window import SlidingWindow
from .facts import Facts
from .messages import Ask, LateError, Reply, micro, read_reply

_SOURCE = files("aiodbclient._pacing.shared").joinpath("slots.lua").read_text("utf-8")
_NONSENSE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


class Script:
    """The script, as one process runs it.

    Args:
        account: What this process knows of the token.
        client: The connection to Valkey.
        keys: The keys of the script.
        timeout: Seconds after which this process gives an ask up.

    Attributes:
        facts: The account's facts, to be shared with the other processes.
        replied: When Valkey last replied, or 0.0.
    """

    def __init__(self, account: Account, client: Valkey, keys: Sequence[str], timeout: float) -> None:
        self.facts = Facts(account)
        self.replied = 0.0
        self._account = account
        self._registered: Any = client.register_script(_SOURCE)  # its type does not say that it is a coroutine function
        self._keys = keys
        self._timeout = timeout
        self._epoch = ""
        self._version = 0  # of the facts in Valkey
        self._offset = 0.0  # s by which the server's clock is ahead of ours
        self._round_trip = math.inf  # s, of the ask by which the offset was measured

    async def run(self, ask: Ask, report: dict[str, Any]) -> Reply:
        """Run the script once. Sends the facts that changed here, and takes over those that changed elsewhere.

        Args:
            ask: What to ask for.
            report: What else the script reads: who asks, and which slots ended.

        Raises:
            ForgottenError: Valkey has lost its memory. The script has done nothing.
            ValkeyError: The server refuses, or its reply is nonsense. The script may have run all the same.
            OSError: The connection failed. The script may have run all the same, as it may after a cancellation.
        """
        now, facts, account = time.monotonic(), self.facts, self._account
        details = report | {
            "epoch": self._epoch,
            "version": self._version,
            "windows": [_described(window, now) for window in account.windows],
            "closed": micro(max(0.0, account.gate.until - now)),
            "at_most": -1 if math.isinf(account.gate.at_most) else account.gate.at_most,
            "interactive": ask.interactive,
            "bulk": ask.bulk,
            "places": [
                {"place": place.place, "bulk": place.bulk, "patience": micro(min(max(place.patience, 0.0), 1e6))}
                for place in ask.places
            ],
            "wants": not ask.sync,
        }
        changed = False
        if self.replied:  # before the first reply the server's clock is unknown
            details["expires"] = micro(now + self._offset + self._timeout)
            if changed := facts.note(now):
                details["facts"] = facts.dump(self._offset)
        try:
            reply = read_reply(await self._registered(self._keys, [json.dumps(details)]), ask, len(account.windows))
        except LateError:
            # This process still waits, so somebody set the server's clock.
            self.replied, self._round_trip = 0.0, math.inf
            raise ValkeyError("its clock was set") from None
        except _NONSENSE as error:
            # The library, too, raises these where the bytes are no answer of its protocol.
            raise ValkeyError(f"it does not answer as a Valkey does ({type(error).__name__})") from None
        received = time.monotonic()
        offset = reply.now - (now + received) / 2
        if received - now <= self._round_trip or abs(offset - self._offset) > 1.0:
            # The quicker the round trip, the more exact the offset.
            self._offset, self._round_trip = offset, received - now
        self._epoch, self._version, self.replied = reply.epoch, reply.version, received
        if reply.stale:
            facts.unsent = True  # if theirs are nonsense, the next run replaces them with ours
            if reply.facts is not None:
                try:
                    facts.merge(reply.facts, self._offset)
                except _NONSENSE as error:
                    raise ValkeyError(f"it holds facts that make no sense ({type(error).__name__})") from None
                facts.unsent = changed
        elif changed:
            facts.unsent = False
        return reply

    def start_over(self, epoch: str) -> None:
        """Valkey has a new memory ``epoch``, without facts."""
        self._epoch, self._version, self.facts.unsent = epoch, 0, True


def _described(window: SlidingWindow, now: float) -> dict[str, Any]:
    described: dict[str, Any] = {"limit": window.limit, "length": micro(window.seconds), "others": 0}
    if others := window.others.at(now):
        opens = window.others.falls_to(others - 1)
        described |= {"others": others, "opens": micro(max(0.0, opens - now))}
    return described
