"""What an aiohttp session does and says by itself, and must not."""

from __future__ import annotations

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType, ClientMiddlewareType

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
        broken = aiohttp.ClientConnectionError(told(error))
    raise broken


def send_once_through(session: aiohttp.ClientSession) -> tuple[ClientMiddlewareType, ...]:
    # The middlewares of a request replace those of its session.
    return (*getattr(session, "_middlewares", ()), _send_once)


def told(error: BaseException) -> str:
    """``error`` in words that hold no credential."""
    # The text of these quotes what came, and with that credentials, or the URL of a proxy with its password.
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError) or not str(error):
        return type(error).__name__
    return f"{type(error).__name__}: {error}"
