"""The proxy of a client's own session. Pure, but for the environment that it reads."""

from __future__ import annotations

from contextlib import suppress
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from ..errors import ConfigurationError, InvalidArgumentError


def chosen_proxy(proxy: str | None, trust_env: bool, base_url: URL) -> URL | None:
    """The proxy through which ``base_url`` is reached, or None for none.

    An API at plain http, which is on loopback, is never reached through one, which would read the token.

    Args:
        proxy: The caller's, or None.
        trust_env: Whether to look for one in the environment's ``HTTPS_PROXY`` and ``NO_PROXY``.
        base_url: Where the API is.

    Raises:
        InvalidArgumentError: It is no address of a proxy. The text does not quote it, as there may be a password in it.
        ConfigurationError: There is a ``proxy``, and the API is at plain http.
    """
    if proxy is not None:
        if base_url.scheme == "http":
            raise ConfigurationError(
                f"proxy: {base_url} is plain http, so that the proxy would read the token; reach it without one"
            )
        return _checked("proxy", proxy)
    if not trust_env or base_url.scheme == "http":
        return None
    found = getproxies().get("https")
    if not found or proxy_bypass(base_url.host or ""):
        return None
    return _checked("HTTPS_PROXY", found if "://" in found else f"http://{found}")


def _checked(name: str, proxy: str) -> URL:
    with suppress(ValueError, TypeError):  # their texts quote it
        url = URL(proxy)
        if url.scheme in ("http", "https") and url.host and url.path == "/" and not url.query_string:
            return url
    raise InvalidArgumentError(f"{name} must be like http://[user:password@]host[:port]")
