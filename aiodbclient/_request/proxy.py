"""Choose the proxy of a client's own session. Pure, except that it reads the environment."""

from __future__ import annotations

from contextlib import suppress
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from ..errors import ConfigurationError, InvalidArgumentError


def chosen_proxy(proxy: str | None, trust_env: bool, base_url: URL) -> URL | None:
    """Return the proxy for ``base_url``, or None.

    An API with plain http (on loopback) never gets a proxy, because the proxy could read the token.
    """
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
