"""Runs the script ``slots.lua`` in Valkey, and keeps the account the same as the facts there."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Protocol, cast

from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from ..account import Account
from .facts import dump, load
from .messages import Ask, Forgot, Late, Reply, decoded, micro

_SCRIPT = files("aiodbclient._pacing.shared").joinpath("slots.lua").read_text("utf-8")


class _Script(Protocol):
    async def __call__(self, keys: Sequence[str], args: Sequence[str]) -> object: ...


class ForgottenError(ValkeyError):
    """Valkey has lost what this process told it, and has begun a new memory, which is named ``epoch``."""

    def __init__(self, epoch: str) -> None:
        super().__init__("it has lost its memory")
        self.epoch = epoch


class Memory:
    """What Valkey keeps for all processes of one token, as this process knows it.

    Args:
        account: What this process knows of the token. ``run`` tells its facts to Valkey, or replaces them by newer
        ones. client: The connection. keys: The keys of the script. timeout: Seconds after which an ask is given up.

    Attributes:
        told: When Valkey last replied, or 0.0.
    """

    def __init__(self, account: Account, client: Valkey, keys: Sequence[str], timeout: float) -> None:
        self.told = 0.0
        self._account = account
        # redis-py's types, which valkey inherited, do not say that this is a coroutine function.
        self._script = cast(_Script, client.register_script(_SCRIPT))
        self._keys = keys
        self._timeout = timeout
        self._epoch = ""
        self._facts = ""  # as Valkey has them
        self._version = 0  # of these
        self._offset = 0.0  # s by which the server's clock is ahead of ours
        self._round_trip = math.inf  # s, of the ask that told the offset

    @property
    def knows_all(self) -> bool:
        """Whether Valkey has the facts that this process has."""
        return self._facts == dump(self._account, self._offset)

    async def run(self, ask: Ask, details: dict[str, Any]) -> Reply:
        """Run the script once. Tell it the facts if they changed here, and take them over if others changed them.

        Args:
            ask: What is asked for, to check the reply against it.
            details: The same and more, as the script reads it.

        Raises:
            ForgottenError: Valkey has lost its memory. The script has done nothing.
            ValkeyError: The server refuses, or answers nonsense. The script may have run all the same.
            OSError: The connection failed. The script may have run all the same, as it may where this is cancelled.
        """
        now = time.monotonic()
        facts = dump(self._account, self._offset)
        # At the first contact it is not known yet what the server's clock shows.
        new = facts if self.told and facts != self._facts else None
        details = details | {"epoch": self._epoch, "version": self._version}
        if self.told:
            details["expires"] = micro(now + self._offset + self._timeout)
        if new is not None:
            details["facts"] = new
        try:
            reply = decoded(await self._script(self._keys, [json.dumps(details)]), ask, len(self._account.windows))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            # Also what the library raises where the bytes are no answer of its protocol.
            raise ValkeyError(f"it does not answer as a Valkey does ({type(error).__name__})") from None
        if isinstance(reply, Late):
            # But it has not been given up, so the server's clock was set.
            self.told, self._round_trip = 0.0, math.inf
            raise ValkeyError("its clock was set")
        if isinstance(reply, Forgot):
            raise ForgottenError(reply.epoch)
        self._take_over(reply, new, now)
        return reply

    def forget(self, epoch: str) -> None:
        """Valkey has the memory ``epoch`` now, and no facts."""
        self._epoch, self._version, self._facts = epoch, 0, ""

    def _take_over(self, reply: Reply, new: str | None, asked: float) -> None:
        received = time.monotonic()
        offset = reply.now - (asked + received) / 2
        if received - asked <= self._round_trip or abs(offset - self._offset) > 1.0:
            # The quicker the round trip, the more exact the offset. It changes seldom, as all facts change with it.
            self._offset, self._round_trip = offset, received - asked
        self._epoch, self._version, self.told = reply.epoch, reply.version, received
        if not reply.stale:
            self._facts = self._facts if new is None else new
        elif reply.facts is not None:
            self._facts = ""  # where those make no sense, the next run writes ours over them
            try:
                load(self._account, reply.facts, self._offset)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ValkeyError(f"it holds facts that make no sense ({type(error).__name__})") from None
            self._facts = dump(self._account, self._offset)
