"""Valkey as one process knows it: the script that is run there, which memory it has, and what its clock shows."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Protocol, cast

from attrs import define, field
from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from ..account import Account
from .facts import dump, load
from .messages import Ask, Forgot, Late, Reply, decoded, micro

_SCRIPT = files("aiodbclient._pacing.shared").joinpath("slots.lua").read_text("utf-8")


class _Script(Protocol):
    async def __call__(self, keys: Sequence[str], args: Sequence[str]) -> object: ...


class ForgottenError(ValkeyError):
    """Valkey has another memory than the one that this process told what it did. It has ``epoch``."""

    def __init__(self, epoch: str) -> None:
        super().__init__("it has lost its memory")
        self.epoch = epoch


@define(eq=False)
class Memory:
    """What Valkey keeps for all processes of one token. ``account`` is what this process knows of the token."""

    account: Account
    _client: Valkey = field(repr=False)
    _keys: tuple[str, ...]
    _timeout: float
    told: float = field(init=False, default=0.0)  # when it last told what is used; 0.0: it never did
    _script: _Script = field(init=False, repr=False)
    _epoch: str = field(init=False, default="")
    _facts: str = field(init=False, default="")  # as Valkey has them
    _version: int = field(init=False, default=0)
    _round_trip: float = field(init=False, default=math.inf)  # s, of the ask that told the offset
    _offset: float = field(init=False, default=0.0)  # s by which the server's clock is ahead of ours

    def __attrs_post_init__(self) -> None:
        # redis-py's types, which valkey inherited, do not say that this is a coroutine function.
        self._script = cast(_Script, self._client.register_script(_SCRIPT))

    @property
    def knows_all(self) -> bool:
        """Valkey has the facts that this process has."""
        return self._facts == dump(self.account, self._offset)

    async def run(self, ask: Ask, details: dict[str, Any]) -> Reply:
        """Run the script once, tell it what changed of the facts, and take over those that are newer.

        Raises ForgottenError, another ValkeyError where the server refuses or answers nonsense, and OSError. With these
        two, and where it is cancelled, it may have run all the same.
        """
        now = time.monotonic()
        facts = dump(self.account, self._offset)
        # At the first contact it is not known yet what the server's clock shows.
        new = facts if self.told and facts != self._facts else None
        details = details | {"epoch": self._epoch, "version": self._version}
        if self.told:
            details["expires"] = micro(now + self._offset + self._timeout)
        if new is not None:
            details["facts"] = new
        try:
            reply = decoded(await self._script(self._keys, [json.dumps(details)]), ask, len(self.account.windows))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            # Also what the library raises where the bytes are no answer of its protocol.
            raise ValkeyError(f"it does not answer as a Valkey does ({type(error).__name__})") from None
        if isinstance(reply, Late):
            # This one was not, as it is here: the server's clock was set.
            self.told, self._round_trip = 0.0, math.inf
            raise ValkeyError("its clock was set")
        if isinstance(reply, Forgot):
            raise ForgottenError(reply.epoch)
        self._take_over(reply, new, now)
        return reply

    def forget(self, epoch: str) -> None:
        """Begin with a memory that knows nothing."""
        self._epoch, self._version, self._facts = epoch, 0, ""

    def _take_over(self, reply: Reply, new: str | None, asked: float) -> None:
        received = time.monotonic()
        offset = reply.now - (asked + received) / 2
        if received - asked <= self._round_trip or abs(offset - self._offset) > 1.0:
            # The quicker, the more exact. It stays as it is until there is a better one, as all facts depend on it.
            self._offset, self._round_trip = offset, received - asked
        self._epoch, self._version, self.told = reply.epoch, reply.version, received
        if not reply.stale:
            self._facts = self._facts if new is None else new
        elif reply.facts is not None:
            self._facts = ""  # where those make no sense, the next run writes ours over them
            try:
                load(self.account, reply.facts, self._offset)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ValkeyError(f"it holds facts that make no sense ({type(error).__name__})") from None
            self._facts = dump(self.account, self._offset)
