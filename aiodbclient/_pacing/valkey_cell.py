"""A text in Valkey or Redis. Needs the extra ``valkey``."""

from __future__ import annotations

import asyncio
import hashlib
import math
from contextlib import suppress
from typing import Any

import backoff
from valkey.asyncio import Valkey
from valkey.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, ResponseError, ValkeyError

from .._backoff import expo
from .._dsn import has_late_at
from ..errors import InvalidArgumentError
from .cells import Step, T
from .fleet import LARGEST, CellError

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
_MISTAKES = ("NOAUTH", "WRONGPASS", "NOPERM", "ACL failure", "no permissions", "DB index is out of range")
_PAUSE, _LONGEST_PAUSE = 0.005, 0.08  # seconds between two tries, the first and later, at most


class ValkeyCell:
    """The text at one key, which is written if it is still the one that was read, and otherwise read again."""

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
        self._swap: Any = client.register_script(_SWAP)  # its type does not say that it is a coroutine function
        self._key = f"aiodbclient:{{{key}}}:budget"
        self._lives = math.ceil(lives * 1000)

    async def change(self, step: Step[T]) -> T:
        """As for ``Cell``."""
        pauses = expo(factor=_PAUSE, max_value=_LONGEST_PAUSE)
        while True:
            held, now = _read(await self._run("", ""))
            text, result = step(held.decode(errors="replace"), now)
            if await self._run(hashlib.sha1(held, usedforsecurity=False).hexdigest(), text) == 1:
                return result
            await asyncio.sleep(backoff.full_jitter(next(pauses)))

    async def aclose(self) -> None:
        """As for ``Cell``."""
        await self._client.aclose()

    async def _run(self, digest: str, text: str) -> object:
        try:
            return await self._swap([self._key], [digest, text, self._lives])
        except (ValkeyError, OSError) as error:
            raise CellError(_reason(error), lasting=_is_a_mistake(error)) from None
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise _no_valkey(error) from None  # the library raises these for an answer that is not of its protocol


def _read(answer: Any) -> tuple[bytes, float]:
    try:
        held, (seconds, micro) = answer
        return bytes(memoryview(held)), int(seconds) + int(micro) / 1_000_000
    except (ValueError, TypeError) as error:
        raise _no_valkey(error) from None


def _no_valkey(error: Exception) -> CellError:
    return CellError(f"it does not answer as a Valkey does ({type(error).__name__})")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _is_a_mistake(error: Exception) -> bool:
    """Whether the server refuses this login for good: a wrong password, or no right to a command or key."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return True
    return isinstance(error, ResponseError) and any(text in str(error) for text in _MISTAKES)
