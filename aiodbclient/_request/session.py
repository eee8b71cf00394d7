"""The aiohttp session of a client: the caller's, or one of its own."""

from __future__ import annotations

import asyncio

import aiohttp
from yarl import URL

from ..errors import ConfigurationError
from .quirks import check_session


class Session:
    """The session through which a client sends. It belongs to the event loop of the client's first call.

    Args:
        given: The caller's session, which is never closed here; or None for one of its own, made when first needed.
        base_url: Where the API is.
        proxy: The proxy of a session of its own, or None.
    """

    __slots__ = ("_base_url", "_is_own", "_loop", "_proxy", "_session", "is_closed")

    def __init__(self, given: aiohttp.ClientSession | None, base_url: URL, proxy: URL | None) -> None:
        self._session = given
        self._is_own = given is None
        self._base_url = base_url
        self._proxy = proxy
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_closed = False

    def opened(self) -> aiohttp.ClientSession:
        """The session, made if it is the client's own and this is the first call.

        Raises:
            ConfigurationError: The client is closed or on another event loop than before, or the caller's session
                would replace the token or show it to a proxy.
        """
        if self.is_closed:
            raise ConfigurationError("this DatabaseClient is closed")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise ConfigurationError(
                    "this DatabaseClient was first used on another event loop: make one for each loop"
                )
            self._loop = loop
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), proxy=self._proxy)
        if not self._is_own:
            check_session(self._session, self._base_url)
        return self._session

    def closed_error(self) -> ConfigurationError:
        """The error for a call that found its session closed when it had its slot."""
        if self.is_closed:
            return ConfigurationError("this DatabaseClient was closed while the call waited for the rate budget")
        return ConfigurationError("the aiohttp.ClientSession that was given to this DatabaseClient is closed")

    async def aclose(self) -> None:
        """Close the session, if it is the client's own. May be called again."""
        self.is_closed = True
        if self._is_own and self._session is not None:
            await self._session.close()
