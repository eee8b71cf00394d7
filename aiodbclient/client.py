"""The client: it checks the caller's options, and returns the handles that make the calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import EllipsisType, TracebackType
from typing import Any, Self
from urllib.request import getproxies, proxy_bypass
from uuid import UUID

import aiohttp
from yarl import URL

from ._checks import check_hook, shown
from ._dsn import is_loopback
from ._http.call import Options, RetryPolicy, changed, check_options
from ._http.context import ClientCache, ClusterContext
from ._http.events import RequestEvent
from ._http.operations import checked_cluster_id
from ._http.raw import JSON, Params, raw_call
from ._http.transport import TokenProvider, Transport
from ._masking import Token
from .clusters import Cluster, ClustersAPI
from .engines import Engine
from .errors import ConfigurationError, InvalidArgumentError
from .rate_limiter import RateLimiter, RateLimitStatus

_PROVIDER = "https://api.digitalocean.com"
_URL_VARIABLE = "DIGITALOCEAN_API_URL"
_BUDGET_VARIABLE = "AIODBCLIENT_BUDGET"
_TOKEN_VARIABLES = ("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN")


class DatabaseClient:
    """A client of DigitalOcean's API for the users and databases of managed database clusters.

    Creating one does no I/O and needs no event loop. It belongs to the event loop of its first call. Use it as an async
    context manager, or call ``aclose`` at the end.

    Args:
        token: The API token, or an async callable that returns it within ``timeout``. The client calls the callable
            when it first needs a token, and once more after a 401. If the callable raises an exception, the call raises
            it too, or from it a DatabaseClientError if an earlier try may have been applied. None: the environment's
            ``DIGITALOCEAN_TOKEN`` or ``DIGITALOCEAN_ACCESS_TOKEN``.
        base_url: The URL of the API. Plain http is for loopback only. None: the environment's ``DIGITALOCEAN_API_URL``,
            or the provider.
        session: Your ``aiohttp.ClientSession``, which the client uses and never closes. Its User-Agent and its proxy
            are kept, and ``timeout`` replaces its timeouts. None: the client creates its own on first use.
        timeout: Seconds that one try may take, including connecting.
        retry: How often and after how long to retry.
        rate_limiter: What keeps the requests within the API's limits. Clients with the same token can share it. None: a
            limiter with the documented limits, for this client alone. With ``AIODBCLIENT_BUDGET=none`` in the
            environment, for a sandbox on this machine: no limits.
        max_wait: Seconds that a call may wait for the rate limit and, on MongoDB, for the cluster's other user writes.
            If it would wait longer, it raises MaxWaitError. None: as long as it takes. A bulk run is not bounded by it.
        on_event: A function that the client calls with a RequestEvent after each request, for metrics. It must not
            block; if it raises, the client logs that.
        trust_env: Whether to read the proxy from the environment's ``HTTPS_PROXY``, unless ``NO_PROXY`` names the
            API's host. The client ignores the environment's other network settings, such as a netrc file.

    Attributes:
        clusters: The account's database clusters, read-only.

    Raises:
        ConfigurationError: There is no token, the token is not valid in a header, or the client would send it without
            encryption, to the API or to a proxy.
        InvalidArgumentError: An argument is invalid.
    """

    def __init__(
        self,
        token: str | TokenProvider | None = None,
        *,
        base_url: str | None = None,
        session: aiohttp.ClientSession | None = None,
        timeout: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),
        rate_limiter: RateLimiter | None = None,
        max_wait: float | None = 90.0,
        on_event: Callable[[RequestEvent], object] | None = None,
        trust_env: bool = False,
    ) -> None:
        secret = token if callable(token) else Token(_environment_token() if token is None else token)
        del token  # a traceback can show local variables
        options = Options(max_wait, timeout, retry)
        check_options(options)
        if session is not None and not isinstance(session, aiohttp.ClientSession):
            raise InvalidArgumentError(f"session must be an instance of aiohttp.ClientSession, not {shown(session)}")
        check_hook("on_event", on_event)
        if rate_limiter is not None and not isinstance(rate_limiter, RateLimiter):
            raise InvalidArgumentError(f"rate_limiter must be a RateLimiter, not {shown(rate_limiter)}")
        if session is not None and trust_env:
            raise InvalidArgumentError("trust_env is for a session of the client's own: give it to yours")
        try:
            url = _checked_base_url(base_url)
        except ConfigurationError as error:
            del base_url  # it may hold a password, and a traceback can show local variables
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        self._transport = Transport(
            token=secret,
            base_url=url,
            session=session,
            limiter=_default_limiter(url) if rate_limiter is None else rate_limiter,
            on_event=on_event,
            proxy=_environment_proxy(url) if trust_env else None,
        )
        self._use(ClientCache(), options)

    def _use(self, cache: ClientCache, options: Options) -> None:
        self._cache = cache
        self._options = options
        self.clusters: ClustersAPI = ClustersAPI(self._transport, cache, options)

    def __repr__(self) -> str:
        transport = getattr(self, "_transport", None)  # None: the client could not be made
        return f"<DatabaseClient {transport.base_url if transport else 'not made'}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, unless the session is yours. Safe to repeat and to cancel.

        Calls that wait for the rate limit fail, and later calls raise ConfigurationError. Calls that wait for an answer
        fail too, but with a session of yours they go on.
        """
        await self._transport.aclose()

    @property
    def rate_limit(self) -> RateLimitStatus | None:
        """The token's hourly limit as the last answer reported it, or None if it did not."""
        return self._transport.rate_limit

    def cluster(self, cluster_id: str | UUID, engine: Engine | str | None = None) -> Cluster:
        """Return a handle on one cluster. Does no I/O, and does not check that the cluster exists.

        Args:
            cluster_id: The cluster's UUID.
            engine: The cluster's engine, if you know it. If the client reads another one, that one counts. None, or not
                one of ``Engine``: the client reads the cluster once, when a call first needs the engine.

        Raises:
            InvalidArgumentError: ``cluster_id`` is not a UUID, or ``engine`` not a string.
        """
        if engine is not None and not (isinstance(engine, str) and engine):
            raise InvalidArgumentError(f"engine must be an Engine or its slug, not {shown(engine)}")
        parsed = None if engine is None else Engine.parse(engine)
        # Another string may be a typo, such as "mongo": it would turn off the guard and the locks of writes.
        given = parsed if isinstance(parsed, Engine) else None
        id = checked_cluster_id(cluster_id)
        return Cluster(ClusterContext(self._transport, self._cache, id, given, self._options))

    async def request(self, method: str, path: str, *, params: Params | None = None, json: JSON = None) -> Any:
        """Send a request to the API for which this package has no method.

        ```python
        rules = await client.request("GET", f"/v2/databases/{cluster_id}/firewall")
        ```

        The rate limit, the retries and the masking of secrets apply as to every other call. The client retries GET,
        HEAD, PUT and DELETE after a lost answer; if the retry of a DELETE finds nothing, the call succeeds. It does not
        retry POST and PATCH then, and sets ``may_have_applied`` on the error. It does not check whether the engine
        supports the request: if not, the API refuses it. A cancelled call may have been applied. GET, HEAD, PUT and
        DELETE are safe to repeat.

        Args:
            method: ``"GET"``, ``"HEAD"``, ``"PUT"``, ``"DELETE"``, ``"POST"`` or ``"PATCH"``.
            path: The path below ``/v2/``, without a query. Percent-encode names in it with
                ``urllib.parse.quote(name, safe="")``.
            params: The query: strings, numbers, bools, or sequences of them.
            json: The body, at most 1 MiB. None: no body.

        Returns:
            The JSON of the answer, or None if it has no body.

        Raises:
            InvalidArgumentError: An argument is invalid; nothing was sent.
            InvalidResponseError: The answer is not JSON.
            DatabaseClientError: The API refused the request, or it failed.
        """
        try:
            call = raw_call(self._options, method, path, params, json)
        except InvalidArgumentError as error:
            del path, params, json  # they may hold a secret, and a traceback can show local variables
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        del path, params, json
        return (await self._transport.send(call)).read_json()

    def with_options(
        self,
        *,
        max_wait: float | EllipsisType | None = ...,
        timeout: float | EllipsisType = ...,
        retry: RetryPolicy | EllipsisType = ...,
        headers: Mapping[str, str] | EllipsisType = ...,
    ) -> DatabaseClient:
        """Return this client with other options for its calls. Options that you do not pass stay the same.

        Both share everything else: the session, the rate limiter, and what they know of clusters. Closing one closes
        both.

        Args:
            max_wait: Seconds that a call may wait for the rate limit; None for as long as it takes.
            timeout: Seconds that one try may take, including connecting.
            retry: How often and after how long to retry.
            headers: Headers for each request. They replace those of an earlier ``with_options``.

        Raises:
            InvalidArgumentError: A value is invalid, such as a header that would replace the token.
        """
        options = changed(self._options, max_wait=max_wait, timeout=timeout, retry=retry, headers=headers)
        del headers  # a header may be a secret, and a traceback can show local variables
        check_options(options)
        client = object.__new__(DatabaseClient)
        client._transport = self._transport
        client._use(self._cache, options)
        return client


def _environment_token() -> str:
    """Return the token that a client without ``token=`` uses."""
    for name in _TOKEN_VARIABLES:
        if token := os.environ.get(name):
            return token
    raise ConfigurationError(
        f"there is no API token: set {' or '.join(_TOKEN_VARIABLES)}", advice="a program can also pass token="
    )


def _checked_base_url(given: str | None) -> URL:
    """Return ``given``, or else the URL of the environment or of the provider."""
    # An empty variable counts as not set, as in a shell.
    name = "base_url" if given is not None else _URL_VARIABLE
    text = given if given is not None else os.environ.get(_URL_VARIABLE) or _PROVIDER
    url: URL | None
    try:
        url = URL(text.rstrip("/"))
        host = url.host
        (url.raw_host or "").encode("idna")  # as the resolver will
    except (ValueError, AttributeError, TypeError):
        url = host = None
    if (
        url is None
        or not host
        or url.scheme not in ("http", "https")
        or any((url.user, url.password, url.query_string, url.fragment))
    ):
        raise ConfigurationError(
            f"{name} must be like https://host[:port][/path], without credentials, query or fragment"
        )
    if url.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(f"{name} is plain http to {host}: the token would travel in the clear; use https")
    return url


def _default_limiter(url: URL) -> RateLimiter:
    """Return the rate limiter for a client without one, by the environment variable."""
    budget = os.environ.get(_BUDGET_VARIABLE)
    if not budget:
        return RateLimiter()
    if budget != "none":
        raise ConfigurationError(f"{_BUDGET_VARIABLE} is invalid: set it to none, for a sandbox, or unset it")
    if not is_loopback(url.host or ""):
        raise ConfigurationError(
            f"{_BUDGET_VARIABLE}=none is for a sandbox on this machine, and {url.host} is another one: unset it, or "
            f"set {_URL_VARIABLE} to the sandbox's address"
        )
    return RateLimiter([])


def _environment_proxy(base_url: URL) -> URL | None:
    """Return the proxy of the environment, or None: for plain http, where the proxy could read the token."""
    found = getproxies().get("https")
    if not found or base_url.scheme == "http" or proxy_bypass(base_url.host or ""):
        return None
    proxy = _parsed_proxy(found)
    del found  # it may hold a password, and a traceback can show local variables
    if proxy is None:
        raise InvalidArgumentError("HTTPS_PROXY must be like http://[user:password@]host[:port]")
    return proxy


def _parsed_proxy(text: str) -> URL | None:
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        return None
    return url if url.scheme in ("http", "https") and url.host and url.path == "/" and not url.query_string else None
