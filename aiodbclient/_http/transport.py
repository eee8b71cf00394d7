"""Send HTTP. No other module does."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from inspect import isawaitable
from time import perf_counter

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from .._json.masking import Secrets
from .._pacing.budget import RateLimiter, RateLimitStatus
from .._version import __version__
from ..errors import ConfigurationError, DatabaseClientError, RateLimitError, RequestTimeoutError
from .aiohttp_compat import check_session, close_tainted_connections, closer_of, send_once_through
from .call import Call
from .events import RequestEvent, logger, report
from .failures import FAILURES, BodyError, no_slot, refused, without_answer
from .response import Response
from .retry import Failure, Pauses, RetryDecision

_USER_AGENT = f"aiodbclient/{__version__} Python/{sys.version.split()[0]} aiohttp/{aiohttp.__version__}"

_ACCEPTED = "gzip, deflate"  # the Accept-Encoding of every request

# The largest body in bytes, after decompression: enough for 10,000 Kafka users, each with a certificate and a key.
LONGEST = 32 << 20

TokenProvider = Callable[[], Awaitable[str]]

# The share of a try's timeout that the connect may take. Less than 1, so that a failed connect is reported as that
# ("nothing was sent"), and not as a request that timed out.
_CONNECTING = 0.9


class Token:
    """A token that its repr hides, so that a traceback with local variables hides it too."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        fits = isinstance(value, str) and value.isascii() and value.isprintable() and value and " " not in value
        if not fits:
            del value
            raise ConfigurationError(
                "the token must be a non-empty string of printable ASCII characters without spaces"
            )
        self.value = str(value)

    def __repr__(self) -> str:
        return "Token('********')"


class Transport:
    """Sends the calls of one client, with its token, session and budget, on the event loop of the first call."""

    def __init__(
        self,
        *,
        token: str | TokenProvider,
        base_url: URL,
        session: aiohttp.ClientSession | None,
        budget: RateLimiter,
        on_event: Callable[[RequestEvent], object] | None,
        app: str | None,
        proxy: URL | None,
    ) -> None:
        self._app = app
        self.base_url: URL = base_url
        self.budget: RateLimiter = budget
        self.secrets: Secrets = Secrets()
        if proxy is not None:
            self.secrets.learn((proxy.password, proxy.raw_password))
        self._newest_headers: Mapping[str, str] = {}
        self._token: Token | None = None
        self._ask_token = token if callable(token) else None
        if not callable(token):
            self._use_token(Token(token))
        self._token_lock = asyncio.Lock()
        self._session = session
        self._owns_session = session is None
        self._proxy = proxy
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._on_event = on_event
        self._base = str(base_url).rstrip("/")

    @property
    def rate_limit(self) -> RateLimitStatus | None:
        """The rate limit of the token, as the newest answer reported it."""
        return RateLimitStatus.from_headers(self._newest_headers)

    async def aclose(self) -> None:
        """Close the client's own session. Safe to repeat."""
        self._is_closed = True
        if self._owns_session and self._session is not None:
            await self._session.close()

    async def send(self, call: Call) -> Response:
        """Send one call, and retry it as ``RULES`` and its retry policy say."""
        started, failed = perf_counter(), 0
        most = call.options.retry.max_tries
        pauses: Pauses | None = None
        try:
            while True:
                try:
                    return await self._try(call)
                except DatabaseClientError as error:
                    call.complete(error)
                    throttled = call.failure is Failure.THROTTLED
                    failed += not throttled or self._counts(call)
                    if call.then is RetryDecision.RAISE or most == 1 or failed == most:
                        raise
                    if throttled:
                        continue  # the budget makes it wait, in its place
                    pauses = pauses or Pauses(call.options.retry)
                    pause = pauses.after(error)
                await asyncio.sleep(pause)
        finally:
            call.meter.seconds += perf_counter() - started

    def _counts(self, call: Call) -> bool:
        """Whether the 429 that ``call`` just got counts as a failed try: not while its window may be full."""
        now = perf_counter()
        if call.refused_since is None:
            call.refused_since = now
        window = min((window.seconds for window in self.budget.windows), default=0.0)
        return call.patience is None and now - call.refused_since >= window  # otherwise ``max_wait`` ends it

    async def _try(self, call: Call) -> Response:
        """Send one request and return its success; after a 401 ask the token provider, and send another one."""
        call.failure = Failure.REFUSED
        if self._token is None:
            await self._renewed_token(call, None)
        answer = await self._exchange(call)
        if answer.status == 401 and self._ask_token is not None:
            await self._renewed_token(call, call.token)
            answer = await self._exchange(call)
        if 200 <= answer.status < 300:
            return answer
        if answer.status == 404 and call.lost and call.not_found_is_success:
            answer.status, answer.body = 204, b""
            return answer
        raise refused(call, answer)

    async def _renewed_token(self, call: Call, stale: object | None) -> None:
        """Have a token other than ``stale``. Asks the provider, unless another call already did."""
        limit = asyncio.timeout(call.options.timeout)
        try:
            async with limit, self._token_lock:
                if self._ask_token is not None and self._token is stale:
                    asked = self._ask_token()
                    if not isawaitable(asked):
                        raise ConfigurationError(
                            "token must be a string or an async callable; this callable is not async"
                        )
                    self._use_token(Token(await asked))
                return
        except TimeoutError:
            if not limit.expired():  # the provider raised it
                raise
        raise RequestTimeoutError(
            f"{call.what}: the token provider returned no token within {call.options.timeout:g} s"
        )

    def _use_token(self, token: Token) -> None:
        self._token = token
        self._made_headers: tuple[CIMultiDict[str], CIMultiDict[str]] | None = None
        self.secrets.learn_token(token.value)

    async def _exchange(self, call: Call) -> Response:
        """Wait for a slot of the budget, send one request, and read the whole answer."""
        session = self._open_session()
        asked = perf_counter()
        try:
            again = {} if call.place is None else {"place": call.place}
            call.place = await self.budget.acquire(bulk=call.options.bulk, max_wait=call.patience, **again)
        except RateLimitError as error:
            raise no_slot(call, error.retry_after) from None
        granted, sent_before = perf_counter(), call.sent
        try:
            if call.writers is None:
                return await self._request(call, session, asked, granted)
            # After the wait for a slot: a call that waits for its slot must not block the other writes.
            async with _as_writer(call, call.writers, granted - asked):
                return await self._request(call, session, asked, granted)
        finally:
            self.budget.release(sent=call.sent > sent_before)

    def _open_session(self) -> aiohttp.ClientSession:
        """Return the session. The first call makes the client's own."""
        if self._is_closed:
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
        if not self._owns_session:
            check_session(self._session, self.base_url)
        return self._session

    async def _request(self, call: Call, session: aiohttp.ClientSession, asked: float, granted: float) -> Response:
        """Send the request that ``asked`` for its slot and got it when ``granted``, and let the budget learn."""
        if self._is_closed:
            raise ConfigurationError("this DatabaseClient was closed while the call waited for the rate budget")
        if session.closed:
            raise ConfigurationError("the aiohttp.ClientSession that you gave to this DatabaseClient is closed")
        started = granted if call.writers is None else perf_counter()
        call.begin(started - asked)
        close_tainted_connections(session)
        answer: Response | None = None
        failure: DatabaseClientError | None = None
        try:
            answer = await self._answer(call, session)
        except FAILURES as error:
            failure = without_answer(call, self.base_url.host, error, self.secrets)
        except asyncio.CancelledError as error:
            # Without the traceback, because its local variables hold the partial answer.
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        else:
            if answer.status == 429:
                call.closed_for = await self.budget.throttle(answer.headers)
                call.refuse()
            elif answer.status < 500 and answer.status != 401:
                # A 5xx or 401 may come from a proxy or concern another token, so its headers are not about our limit.
                self.budget.observe(answer.headers)
            self._newest_headers = answer.headers
        if self._on_event is not None or logger.isEnabledFor(logging.DEBUG):
            report(call, answer, failure, asked, granted, started, self._on_event)
        if answer is not None:
            return answer
        assert failure is not None
        raise failure

    async def _answer(self, call: Call, session: aiohttp.ClientSession) -> Response:
        """Send one request now and read the whole answer. Raises one of FAILURES."""
        call.status, call.token = 0, self._token
        async with session.request(
            call.operation.method,
            URL(self._base + call.path, encoded=True),
            data=call.body,
            headers=self._headers(call, session),
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=True,
            timeout=_client_timeout(call.options.timeout),
            middlewares=None if call.operation.method == "POST" else send_once_through(session),
        ) as response:
            call.status = response.status
            close = closer_of(response)
            body = await _whole_body(response)
        return Response(call, response.status, response.headers, body, self.secrets, close)

    def _headers(self, call: Call, session: aiohttp.ClientSession) -> CIMultiDict[str]:
        """Return the headers of a request: the client's own, cached for each token, and those of ``with_options``."""
        if self._made_headers is None:
            assert self._token is not None
            agent = session.headers.get("User-Agent", _USER_AGENT)  # a session of the caller may set one
            bare = {
                "Authorization": f"Bearer {self._token.value}",
                "Accept": "application/json",
                "Accept-Encoding": _ACCEPTED,
                "User-Agent": agent if self._app is None else f"{agent} {self._app}",
            }
            self._made_headers = CIMultiDict(bare), CIMultiDict(bare | {"Content-Type": "application/json"})
        headers = self._made_headers[call.body is not None]
        if not call.options.headers:
            return headers
        headers = headers.copy()
        headers.update(call.options.headers)
        return headers


async def _whole_body(response: aiohttp.ClientResponse) -> bytes:
    """Read the body of ``response``, which aiohttp decompresses piece by piece."""
    body = await response.content.readany()
    if response.content.at_eof():  # most bodies arrive together with the headers
        return body
    pieces, size = [body], len(body)
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > LONGEST:
            raise BodyError(f"is larger than {LONGEST >> 20} MiB")
    return b"".join(pieces)


@asynccontextmanager
async def _as_writer(call: Call, writers: asyncio.Semaphore, waited: float) -> AsyncGenerator[None]:
    """Be one of the user writes that the cluster takes at a time."""
    patience = None if call.patience is None else max(call.patience - waited, 0.0)
    try:
        async with asyncio.timeout(patience):
            await writers.acquire()
    except TimeoutError:
        text = "another user write on this cluster takes longer than max_wait allows"
        raise RateLimitError(f"{call.what}: {text}") from None
    try:
        yield
    finally:
        writers.release()


@lru_cache(maxsize=64)
def _client_timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, connect=seconds * _CONNECTING)
