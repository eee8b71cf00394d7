"""Work around aiohttp, which resends requests by itself, quotes secrets, and can return a late answer; read its errors.

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

from .._masking import Secrets
from ..errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    InvalidResponseError,
    RequestTimeoutError,
)
from .call import Call
from .retry import FailedTry, Failure

# The exceptions that sending a request and reading its answer can raise, except a cancellation.
FAILURES = (aiohttp.ClientError, OSError, TimeoutError, InvalidResponseError, ValueError)
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)

logger = logging.getLogger("aiodbclient")


async def _send_once(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
    """Let aiohttp send a request once, on a connection that has received nothing before it."""
    # aiohttp would take what an idle connection has received for the answer. It takes the connection in ``handler``: a
    # trace or another middleware has ended here. Data that arrives later counts as the answer: HTTP/1.1 does not say to
    # which request an answer belongs.
    connections: Mapping[object, Any] = getattr(request.session.connector, "_conns", {})
    for kept in connections.values():
        for connection, _ in kept:
            if not connection.should_close:
                break  # aiohttp uses this one
            connection.close()
    try:
        return await handler(request)
    except _NOT_SENT:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:  # aiohttp would resend the request
        broken = aiohttp.ClientConnectionError(_text_of(error))
    raise broken


class Connections:
    """The connections of a session: the ``given`` one, or one of the client's own."""

    def __init__(self, given: aiohttp.ClientSession | None, proxy: URL | None) -> None:
        self.are_safe = True  # otherwise each request needs a connection of its own
        self.middlewares: tuple[ClientMiddlewareType, ...] | None = None  # of each request; None: the session's
        if given is None:
            self.session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # the rate limiter bounds what is in flight
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=proxy,
                middlewares=(_send_once,),
            )
        else:
            self.session = given
            theirs = getattr(given, "_middlewares", None)
            self.middlewares = None if theirs is None else (*theirs, _send_once)
        for owner, name in ((given, "_middlewares"), (given, "_default_proxy"), (self.session.connector, "_conns")):
            if owner is not None and not hasattr(owner, name):
                self._warn(owner, name)

    def closer_of(self, response: aiohttp.ClientResponse) -> Callable[[], object]:
        """Return what closes the connection of ``response``, even if it is back in the pool."""
        try:
            protocol: Any = response._protocol  # pyright: ignore[reportPrivateUsage]
        except AttributeError:
            self._warn(response, "_protocol")
            return response.close
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


def failed_without_answer(call: Call, host: str | None, error: BaseException, secrets: Secrets) -> FailedTry:
    """Return the try that ``error`` ended before the answer was complete."""
    # aiohttp's exceptions can hold the request headers. So our error masks secrets and is not chained.
    if isinstance(error, _NOT_SENT):
        return FailedTry(Failure.NOT_SENT, ConnectError(f"no connection: {secrets.line(_text_of(error), 500)}"))
    if isinstance(error, TimeoutError):
        late = RequestTimeoutError(f"no whole answer within {call.options.timeout:g} s from {host}")
        return FailedTry(Failure.LOST, late, may_have_applied=True, timed_out=True)
    if isinstance(error, aiohttp.ClientError | OSError):
        text = f"the connection broke before the whole answer: {secrets.line(_text_of(error), 500)}"
        return FailedTry(Failure.LOST, ConnectionLostError(text), may_have_applied=True)
    if isinstance(error, InvalidResponseError):  # the body is too large
        return FailedTry(Failure.FINAL, error, may_have_applied=True)
    if "AUTHORIZATION header" in str(error):  # aiohttp found this out before it sent anything
        text = (
            "the given aiohttp.ClientSession has credentials of its own, from a netrc file: make it without trust_env"
        )
        return FailedTry(Failure.FINAL, ConfigurationError(text), was_tried=False)
    text = f"aiohttp refused the request or the answer ({type(error).__name__})"
    return FailedTry(Failure.FINAL, ConfigurationError(text), may_have_applied=True)


def _text_of(error: BaseException) -> str:
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
