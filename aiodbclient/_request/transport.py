"""The one module that does network I/O: pace, send, read, judge, back off."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from inspect import isawaitable
from time import perf_counter

import aiohttp
from attrs import asdict
from multidict import CIMultiDict
from yarl import URL

from .._json.error_answers import error_from_answer
from .._pacing.budget import Budget, RateLimitStatus
from .._version import __version__
from ..errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    DatabaseClientError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
)
from .answer import Answer
from .call import Call
from .events import RequestEvent
from .operations import Kind
from .quirks import NOT_SENT, send_once_through, told
from .retry import LOST_STATUSES, RULES, Failure, Then, retrying

logger = logging.getLogger("aiodbclient")

TokenProvider = Callable[[], Awaitable[str]]

_USER_AGENT = f"aiodbclient/{__version__} Python/{sys.version.split()[0]} aiohttp/{aiohttp.__version__}"

# The share of an attempt's time that connecting may take. It ends before the whole, so that the error tells: nothing
# was sent.
_CONNECTING = 0.9

_GONE_IS_DONE = Then.RETRY_GONE_IS_DONE

_SETTLE = (
    "it may have been applied: read the name back; if it is there without a password that you know, reset_auth it, "
    "else create it again"
)


class Transport:
    """Sends the calls of one client: with its token, through its session, paced by its budget."""

    __slots__ = (
        "_ask_token",
        "_base",
        "_closed",
        "_headers_token",
        "_loop",
        "_made_headers",
        "_newest_headers",
        "_on_event",
        "_owns_session",
        "_session",
        "_token",
        "_token_lock",
        "base_url",
        "budget",
    )

    def __init__(
        self,
        *,
        token: str | TokenProvider,
        base_url: URL,
        session: aiohttp.ClientSession | None,
        budget: Budget,
        on_event: Callable[[RequestEvent], object] | None,
    ) -> None:
        self.base_url = base_url
        self.budget = budget
        self._newest_headers: Mapping[str, str] = {}
        self._token = token if isinstance(token, str) else ""
        self._ask_token = None if isinstance(token, str) else token
        self._token_lock = asyncio.Lock()
        self._session = session
        self._owns_session = session is None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._on_event = on_event
        self._base = str(base_url).rstrip("/")
        self._headers_token = ""

    @property
    def rate_limit(self) -> RateLimitStatus | None:
        """What the newest answer said of the account's limit."""
        return RateLimitStatus.from_headers(self._newest_headers)

    async def aclose(self) -> None:
        """Close the session if it is ours. May be called again."""
        self._closed = True
        if self._owns_session and self._session is not None:
            await self._session.close()

    async def send(self, call: Call) -> Answer:
        """Send one call, as often as its policy allows and its failures permit.

        Returns:
            The successful answer, not read yet.

        Raises:
            DatabaseClientError: What the last try met; its ``may_have_applied`` and ``tries`` are the whole call's.
        """
        return await retrying(call.options.retry, call.is_final, self._attempt, call)

    async def _attempt(self, call: Call) -> Answer:
        """One try: the answer, or the error that it met, with what that means noted in both."""
        call.failure = Failure.REFUSED
        try:
            token = self._token or await self._renewed_token("")
            status, headers, body = await self._send(call, token)
            if status == 401 and self._ask_token is not None:
                status, headers, body = await self._send(call, await self._renewed_token(token))
            if status < 300:
                return Answer(call, status, body)
            if status == 404 and call.may_have_applied and RULES[Failure.LOST][call.operation.kind] is _GONE_IS_DONE:
                return Answer(call, 204, b"")
            raise self._judged(call, status, headers, body)
        except DatabaseClientError as error:
            unclear = call.failure is Failure.LOST or isinstance(error, ServerError)
            call.may_have_applied |= unclear and call.operation.writes
            error.may_have_applied |= call.may_have_applied
            error.tries = call.tries
            if unclear and call.operation.kind is Kind.CREATE:
                error.args = (f"{error.args[0]}; {_SETTLE}",)
            raise

    def _judged(self, call: Call, status: int, headers: Mapping[str, str], body: bytes) -> DatabaseClientError:
        error = error_from_answer(call.what, status, headers, body, self._token)
        if isinstance(error, RateLimitError):
            call.failure = Failure.THROTTLED
            error.retry_after = call.closed_for if error.retry_after is None else error.retry_after
        elif status in LOST_STATUSES:
            call.failure = Failure.LOST
        return error

    async def _renewed_token(self, stale: str) -> str:
        """The token, asked for anew unless somebody else did since ``stale`` was current."""
        async with self._token_lock:
            if self._ask_token is not None and self._token == stale:
                asked = self._ask_token()
                if not isawaitable(asked):
                    raise ConfigurationError("token must be a string or an async callable; this callable is not async")
                self._token = checked_token(await asked)
            return self._token

    async def _send(self, call: Call, token: str) -> tuple[int, Mapping[str, str], bytes]:
        """Send one request within the budget, and read the whole answer. Raises TransportError where none came."""
        session = self._open_session()
        asked = perf_counter()
        await self.budget.acquire(bulk=call.options.bulk, max_wait=call.patience)
        if call.write_lock is not None:
            # With a slot in hand: a bulk run's write that waits for one must not keep others from writing.
            try:
                await call.write_lock.acquire()
            except BaseException:
                self.budget.release(sent=False)
                raise
        if self._closed or session.closed:
            self._end(call, sent=False)
            raise ConfigurationError("this DatabaseClient was closed while the call waited for the rate budget")
        if call.options.before_sending is not None:
            try:
                call.options.before_sending()
            except BaseException:
                self._end(call, sent=False)
                raise
        call.tries += 1
        if call.options.meter is not None:
            call.options.meter.requests += 1
        started = perf_counter()
        if call.patience is not None:
            call.patience = max(call.patience - (started - asked), 0.0)
        # aiohttp's exceptions can hold the request's headers, so they are told in ours and not chained to it.
        failure: DatabaseClientError
        try:
            async with session.request(
                call.operation.method,
                URL(self._base + call.path, encoded=True),
                data=call.body,
                headers=self._headers(token, call),
                allow_redirects=False,
                raise_for_status=False,
                timeout=_client_timeout(call.options.timeout),
                middlewares=None if call.operation.method == "POST" else send_once_through(session),
            ) as response:
                body = await response.read()
            if response.status == 429:
                call.closed_for = await self.budget.throttle(response.headers)
            else:
                self.budget.observe(response.headers)
            self._newest_headers = response.headers
        except NOT_SENT as error:
            call.failure = Failure.NOT_SENT
            failure = ConnectError(f"{call.what}: no connection, nothing was sent: {told(error)}")
        except TimeoutError:
            call.failure = Failure.LOST
            failure = RequestTimeoutError(f"{call.what}: no whole answer within {call.options.timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            call.failure = Failure.LOST
            failure = ConnectionLostError(f"{call.what}: the connection broke before the whole answer: {told(error)}")
        except ValueError as error:
            failure = ConfigurationError(
                f"{call.what}: aiohttp refused the request or the answer ({type(error).__name__}); a session of yours "
                "must not find credentials of its own, as trust_env=True does in a netrc file"
            )
            failure.may_have_applied = call.operation.writes
        else:
            self._tell(call, response.status, None, asked, started)
            return response.status, response.headers, body
        finally:
            self._end(call, sent=call.failure is not Failure.NOT_SENT)
        self._tell(call, None, type(failure).__name__, asked, started)
        raise failure

    def _end(self, call: Call, *, sent: bool) -> None:
        if call.write_lock is not None:
            call.write_lock.release()
        self.budget.release(sent=sent)

    def _tell(self, call: Call, status: int | None, error: str | None, asked: float, started: float) -> None:
        if self._on_event is None and not logger.isEnabledFor(logging.DEBUG):
            return
        event = RequestEvent(
            operation=call.operation.name,
            method=call.operation.method,
            status=status,
            error=error,
            attempt=call.tries,
            waited=started - asked,
            duration=perf_counter() - started,
        )
        logger.debug(
            "%s %s: %s in %.3f s, try %d",
            event.method,
            call.path,
            status or error,
            event.duration,
            event.attempt,
            extra=asdict(event),
        )
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:  # whatever it is, the request's own outcome goes first
                logger.exception("on_event raised")

    def _headers(self, token: str, call: Call) -> CIMultiDict[str]:
        """The headers of a request: those of its token, made once for each token, and those of its options."""
        if token != self._headers_token:
            self._headers_token = token
            bare = {"Authorization": f"Bearer {token}", "Accept": "application/json", "User-Agent": _USER_AGENT}
            self._made_headers = CIMultiDict(bare), CIMultiDict(bare | {"Content-Type": "application/json"})
        made = self._made_headers[call.body is not None]
        if not call.options.headers:
            return made
        headers = made.copy()
        headers.update(call.options.headers)
        return headers

    def _open_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ConfigurationError("this DatabaseClient is closed")
        if self._loop is not loop:
            if self._loop is not None:
                raise ConfigurationError(
                    "this DatabaseClient was first used on another event loop: make one for each loop"
                )
            self._loop = loop
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        if self._session.closed:
            raise ConfigurationError("the aiohttp.ClientSession that was given to this DatabaseClient is closed")
        if self._session.auth is not None:
            raise ConfigurationError(
                "the aiohttp.ClientSession that was given has auth=, which collides with the token"
            )
        return self._session


@lru_cache(maxsize=64)
def _client_timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, connect=seconds * _CONNECTING)


def checked_token(token: object) -> str:
    """``token`` if it can go into a header. Raises ConfigurationError, which does not quote it."""
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token or " " in token:
        raise ConfigurationError("the token must be a non-empty string of printable ASCII characters without spaces")
    return token
