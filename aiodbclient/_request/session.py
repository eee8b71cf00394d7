"""The aiohttp session of a client: one that the caller gave, or its own, and the proxy of the latter."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from ..errors import ConfigurationError, InvalidArgumentError
from .quirks import check_session


class Session:
    """The session that a client sends through. It belongs to the event loop of the client's first call."""

    __slots__ = ("_base_url", "_is_own", "_loop", "_proxy", "_session", "is_closed")

    def __init__(self, given: aiohttp.ClientSession | None, base_url: URL, proxy: URL | None) -> None:
        self._session = given
        self._is_own = given is None
        self._base_url = base_url
        self._proxy = proxy
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_closed = False

    def opened(self) -> aiohttp.ClientSession:
        """Return the session. The first call makes the client's own."""
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
        """Make the error for a call whose session was closed while it waited for a slot."""
        if self.is_closed:
            return ConfigurationError("this DatabaseClient was closed while the call waited for the rate budget")
        return ConfigurationError("the aiohttp.ClientSession that you gave to this DatabaseClient is closed")

    async def aclose(self) -> None:
        """Close the session, if it is the client's own. May be called again."""
        self.is_closed = True
        if self._is_own and self._session is not None:
            await self._session.close()


def chosen_proxy(proxy: str | None, trust_env: bool, base_url: URL) -> URL | None:
    """Return the proxy for ``base_url``, or None: for plain http, where the proxy could read the token."""
    if proxy is not None:
        if base_url.scheme == "http":
            raise ConfigurationError(
                f"proxy: {base_url} is plain http, so the proxy could read the token: remove proxy="
            )
        return _checked("proxy", proxy)
    if not trust_env or base_url.scheme == "http":
        return None
    found = getproxies().get("https")
    if not found or proxy_bypass(base_url.host or ""):
        return None
    return _checked("HTTPS_PROXY", found if "://" in found else f"http://{found}")


def _checked(name: str, proxy: str) -> URL:
    with suppress(ValueError, TypeError):  # their messages quote it
        url = URL(proxy)
        if url.scheme in ("http", "https") and url.host and url.path == "/" and not url.query_string:
            return url
    raise InvalidArgumentError(f"{name} must be like http://[user:password@]host[:port]")
