"""A text in Valkey or Redis. Needs the extra ``valkey``."""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from typing import Any

from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from .._dsn import has_late_at
from ..errors import InvalidArgumentError
from .cells import LARGEST, Step
from .fleet import CellError

# Writes ARGV[2], for ARGV[3] milliseconds, if ARGV[1] is the digest of what is there. Otherwise returns what is there,
# and the server's clock.
_SWAP = f"""
local held = redis.call('GETRANGE', KEYS[1], 0, {LARGEST})
if ARGV[1] == redis.sha1hex(held) then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
return {{held, redis.call('TIME')}}
"""


class ValkeyCell:
    """The text at one key."""

    def __init__(self, url: str, key: str, lives: float) -> None:
        client = None
        with suppress(ValueError, TypeError, AttributeError):  # the exception could quote a password from the URL
            if url.startswith("unix:") or not has_late_at(url):
                # No timeout of the library's: with one it can lose a cancellation on Python 3.11. The budget has one.
                client = Valkey.from_url(url, socket_timeout=None)
        if client is None:
            raise InvalidArgumentError(
                "url must be like postgresql://user@host/db or valkey://localhost:6379/0 (or valkeys://, redis://, "
                "rediss://, unix://), with / ? and # in the password written as %2F, %3F and %23"
            )
        options = client.connection_pool.connection_kwargs
        self.where = str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")
        self._client = client
        self._script: Any = client.register_script(_SWAP)  # its type does not say that it is a coroutine function
        self._key = f"aiodbclient:{{{key}}}:budget"
        self._lives = math.ceil(lives * 1000)

    async def change(self, step: Step) -> None:
        """As for ``Cell``. The text is written only if it is still the one that was read."""
        held, text = None, ""
        while (found := await self._exchange(held, text)) is not None:
            held, now = found
            text = step(held, now)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _exchange(self, held: str | None, text: str) -> tuple[str, float] | None:
        """Write ``text`` if the key has ``held``. Otherwise return what it has, and the server's time."""
        digest = "" if held is None else hashlib.sha1(held.encode("latin-1"), usedforsecurity=False).hexdigest()
        try:
            answer = await self._script([self._key], [digest, text, self._lives])
            if answer == 1:
                return None
            found, (seconds, micro) = answer
            return bytes(memoryview(found)).decode("latin-1"), int(seconds) + int(micro) / 1_000_000
        except (ValkeyError, OSError) as error:
            why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise CellError(why) from None
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:  # also of the library
            raise CellError(f"it does not answer as a Valkey does ({type(error).__name__})") from None
