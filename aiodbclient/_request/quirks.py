"""What aiohttp does that this client must not let it do: resend by itself, quote secrets, hand out a late answer.

Source: aiohttp 3.12 to 3.14. Underscored names of aiohttp are used in this module alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType, ClientMiddlewareType
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from ..errors import ConfigurationError

BROKEN = (aiohttp.ClientError,)  # what aiohttp raises, besides OSError and TimeoutError
NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)


async def _send_once(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending again by itself when a connection breaks: what was sent may have been done.

    It does so for idempotent methods alone, which POST is not.
    """
    try:
        return await handler(request)
    except NOT_SENT:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        broken = aiohttp.ClientConnectionError(text_of(error))
    raise broken


def send_once_through(session: aiohttp.ClientSession) -> tuple[ClientMiddlewareType, ...]:
    """The middlewares for a request that aiohttp must send once: those of the session, and ours."""
    # The middlewares of a request replace those of its session.
    return (*getattr(session, "_middlewares", ()), _send_once)


def text_of(error: BaseException) -> str:
    """The text of an error of aiohttp's that may be shown."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    # The text of these quotes what came, and with that credentials, or the URL of a proxy with its password.
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError) or not str(error):
        return type(error).__name__
    return f"{type(error).__name__}: {error}"


def drop_unasked(session: aiohttp.ClientSession) -> None:
    """Close idle connections through which something came: it would be taken for the answer to the next request.

    aiohttp takes the first one that is not closed, so those behind it need not be looked at.
    """
    connections: dict[object, Iterable[tuple[ResponseHandler, float]]] = getattr(session.connector, "_conns", {})
    for kept in connections.values():
        for connection, _ in kept:
            if not connection.should_close:
                break
            connection.close()


def connection_of(response: aiohttp.ClientResponse) -> ResponseHandler | None:
    """The connection of ``response``, also after aiohttp took it back to use it again."""
    protocol = getattr(response, "_protocol", None)
    return protocol if isinstance(protocol, ResponseHandler) else None


def check_session(session: aiohttp.ClientSession, base_url: URL) -> None:
    """Refuse a session that would replace the token or show it to a proxy.

    Raises:
        ConfigurationError: It has ``auth=``, or plain http to loopback would go through a proxy.
    """
    if session.auth is not None:
        raise ConfigurationError("the aiohttp.ClientSession that was given has auth=, which collides with the token")
    if base_url.scheme == "http" and _has_proxy(session, base_url.host or ""):
        raise ConfigurationError(
            f"base_url is plain http to {base_url.host}, and the aiohttp.ClientSession that was given would tell the "
            "token to a proxy in the clear: give one without proxy=, or put the host into NO_PROXY"
        )


def _has_proxy(session: aiohttp.ClientSession, host: str) -> bool:
    if getattr(session, "_default_proxy", None) is not None:
        return True
    return session.trust_env and "http" in getproxies() and not proxy_bypass(host)
