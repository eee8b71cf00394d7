"""Work around aiohttp, which resends requests by itself, quotes secrets, and can return a late answer.

Checked against aiohttp 3.14. Only this module uses private names of aiohttp. If a later version has renamed one of
them, ``Connections`` logs that, and the client sends each request on a connection of its own.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType, ClientMiddlewareType
from yarl import URL

from ..errors import ConfigurationError

BROKEN = (aiohttp.ClientError,)  # what aiohttp raises, in addition to OSError and TimeoutError
NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)

logger = logging.getLogger("aiodbclient")


async def _refuse_resend(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
    """Stop aiohttp from resending a request when a connection breaks: the server may have performed it."""
    try:
        return await handler(request)
    except NOT_SENT:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        broken = aiohttp.ClientConnectionError(text_of(error))
    raise broken


class Connections:
    """The connections of a session, which never resend a request or return the answer to an earlier one."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.are_safe = True  # otherwise each request needs a connection of its own
        for owner, name in ((session, "_middlewares"), (session, "_default_proxy"), (session.connector, "_conns")):
            if owner is not None and not hasattr(owner, name):
                self._warn(owner, name)

    def middlewares(self) -> tuple[ClientMiddlewareType, ...] | None:
        """Return the middlewares of a request that aiohttp must send only once: the session's and ours."""
        # They replace those of its session. aiohttp resends idempotent methods only, so POST does not need them.
        own: tuple[ClientMiddlewareType, ...] | None = getattr(self.session, "_middlewares", None)
        return None if own is None else (*own, _refuse_resend)

    def close_tainted(self) -> None:
        """Close idle connections that received data: aiohttp would take it for the answer to the next request."""
        connections: Mapping[object, Any] = getattr(self.session.connector, "_conns", {})
        for kept in connections.values():
            for connection, _ in kept:
                if not connection.should_close:
                    break  # aiohttp uses this one
                connection.close()

    def closer_of(self, response: aiohttp.ClientResponse) -> Callable[[], object]:
        """Return what closes the connection of ``response``, even if it is back in the pool."""
        if not hasattr(response, "_protocol"):
            self._warn(response, "_protocol")
        protocol = getattr(response, "_protocol", None)
        return response.close if protocol is None else protocol.close

    def _warn(self, owner: object, name: str) -> None:
        """Warn once that aiohttp has not got a private name any more."""
        if self.are_safe:
            self.are_safe = False
            logger.warning(
                "aiohttp %s has no %s.%s, which keeps used connections safe, so each request takes a new connection: "
                "install versions of aiohttp and aiodbclient that fit",
                aiohttp.__version__,
                type(owner).__name__,
                name,
            )


def text_of(error: BaseException) -> str:
    """Return the part of an aiohttp error that is safe to show."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    # The messages of these quote the answer with its credentials, or the URL of a proxy with its password.
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError) or not str(error):
        return type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"{error.host}:{error.port}: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        number = cause.errno or 0  # negative where a name was not found
        text = os.strerror(number) if number > 0 else cause.strerror or "it was closed during the TLS handshake"
        if isinstance(cause, ssl.SSLError):  # its number is one of OpenSSL's
            text = f"no TLS: {cause.reason or cause.strerror}"
        return f"{error.host}:{error.port}: {text}"
    return f"{type(error).__name__}: {error}"


def check_session(session: aiohttp.ClientSession, base_url: URL) -> None:
    """Refuse a session that would replace the token or show it to a proxy."""
    if session.auth is not None:
        raise ConfigurationError("the given aiohttp.ClientSession has auth=, which would replace the token: remove it")
    if base_url.scheme == "http" and _has_proxy(session, base_url.host or ""):
        raise ConfigurationError(
            f"base_url is plain http to {base_url.host}, and the given aiohttp.ClientSession would send the token "
            "unencrypted to a proxy: pass a session without proxy=, or add the host to NO_PROXY"
        )


def _has_proxy(session: aiohttp.ClientSession, host: str) -> bool:
    if getattr(session, "_default_proxy", None) is not None:
        return True
    return session.trust_env and "http" in getproxies() and not proxy_bypass(host)
