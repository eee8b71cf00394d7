"""Send HTTP. No other module does."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import lru_cache
from inspect import isawaitable
from time import perf_counter

import aiohttp
from attrs import evolve
from multidict import CIMultiDict
from yarl import URL

from .._headers import RateLimitStatus
from .._masking import Secrets, Token
from .._pacing.limiter import RateLimiter, Slot
from .._version import __version__
from ..errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    DatabaseClientError,
    InvalidResponseError,
    MaxWaitError,
    RequestTimeoutError,
)
from .aiohttp_compat import FAILURES, Connections, check_session, failed_without_answer
from .call import Call
from .events import RequestEvent, log_decision, logger, report
from .response import Response
from .retry import FailedTry, Failure, Waited, error_of, next_wait, retry_waits, why_not_retried

_USER_AGENT = f"aiodbclient/{__version__} Python/{sys.version.split()[0]} aiohttp/{aiohttp.__version__}"

_ACCEPTED = "gzip, deflate"  # the Accept-Encoding of every request

# The largest body in bytes, after decompression: enough for 10,000 Kafka users, each with a certificate and a key.
MAX_BODY = 32 << 20

TokenProvider = Callable[[], Awaitable[str]]

# The share of a try's timeout that the connect may take. Less than 1, so that a failed connect is reported as that,
# and not as a request that timed out.
_CONNECT_SHARE = 0.9
_AT_ONCE = Waited(for_slot=0.0, for_writes=0.0)


class Transport:
    """Sends the calls of one client, with its token, session and limiter, on the event loop of the first call."""

    def __init__(
        self,
        *,
        token: Token | TokenProvider,
        base_url: URL,
        session: aiohttp.ClientSession | None,
        limiter: RateLimiter,
        on_event: Callable[[RequestEvent], object] | None,
        proxy: URL | None,
    ) -> None:
        self.base_url: URL = base_url
        self.limiter: RateLimiter = limiter
        self.secrets: Secrets = Secrets()
        self._newest_headers: Mapping[str, str] = {}
        self._token: Token | None = None
        self._made_headers: tuple[CIMultiDict[str], CIMultiDict[str]] | None = None
        self._ask_token = None if isinstance(token, Token) else token
        if isinstance(token, Token):
            self._use_token(token)
        self._token_lock = asyncio.Lock()
        self._given_session = session
        self._connections: Connections | None = None
        self._proxy = proxy
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0  # of the first call
        self._waits: set[asyncio.Timeout] = set()  # of the calls that wait for a token or their slot
        self._closed = asyncio.Event()
        self._on_event = on_event
        self._base = str(base_url).rstrip("/")

    @property
    def rate_limit(self) -> RateLimitStatus | None:
        """The rate limit of the token, as the newest answer reported it."""
        return RateLimitStatus.from_headers(self._newest_headers)

    async def aclose(self) -> None:
        """End all waits and close the client's own session, as often as this is called."""
        self._closed.set()
        while self._waits:
            with suppress(RuntimeError):  # it has ended, or is about to
                self._waits.pop().reschedule(0)
        if self._given_session is None and self._connections is not None and self._process == os.getpid():
            await self._connections.session.close()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not longer than the client is open."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    async def send(self, call: Call, failed: list[FailedTry] | None = None) -> Response:
        """Send ``call``, retry it as ``why_not_retried`` says, and return the success."""
        failed = [] if failed is None else failed  # those of the call so far, to which this adds its own
        waits: Iterator[float] | None = None
        counted = 0
        while True:
            tried = await self._get_token(call, failed) or await self._send_in_slot(call, failed)
            if isinstance(tried, Response):
                return tried
            failed.append(tried)
            if self._may_renew_token(failed):
                log_decision(call, failed, "the next try has another token")
                continue
            counted += tried.failure is not Failure.THROTTLED  # ``max_wait`` bounds those
            if reason := why_not_retried(call, tried.failure, counted):
                log_decision(call, failed, f"not retried: {reason}")
                raise error_of(call, failed, self.secrets)
            if tried.failure is Failure.THROTTLED:
                log_decision(call, failed, "the next try waits for its slot")
                continue
            waits = waits or retry_waits(call.options.retry)
            wait = next_wait(waits, tried.error.retry_after if isinstance(tried.error, APIError) else None)
            log_decision(call, failed, f"the next try is in {wait:.3f} s")
            try:
                await self.sleep(wait)
            except asyncio.CancelledError as error:  # often by a timeout of the caller's
                error.add_note(f"the last try failed: {tried.error}")
                raise

    def _may_renew_token(self, failed: Sequence[FailedTry]) -> bool:
        """Whether the API refused a token, and the next try can have another one."""
        newest = [isinstance(each.error, AuthenticationError) for each in failed[-2:]]
        return self._ask_token is not None and newest in ([True], [False, True])

    async def _get_token(self, call: Call, failed: Sequence[FailedTry]) -> FailedTry | None:
        """Open connections and get a token that the API has not just refused, or return how that failed."""
        last = failed[-1] if failed else None
        try:
            self._check_usable()
            if self._connections is None:
                if self._given_session is not None:
                    check_session(self._given_session, self.base_url)
                self._connections = Connections(self._given_session, self._proxy)
            if self._token is None or (last is not None and isinstance(last.error, AuthenticationError)):
                await self._renew_token(call, None if last is None else last.token)
        except (ConfigurationError, RequestTimeoutError) as error:
            return _unsent(error)
        except Exception as error:  # the token provider's
            problem = DatabaseClientError(f"the token provider raised {type(error).__name__}")
            described = error_of(call, (*failed, _unsent(problem)), self.secrets)
            if not described.may_have_applied:
                raise
            raise described from error
        return None

    async def _send_in_slot(self, call: Call, failed: Sequence[FailedTry]) -> Response | FailedTry:
        """Send one request, once it has its slot and its locks, and return its success, or how it failed."""
        kept, slot = failed[-1].slot if failed else None, None
        if call.write_locks is None:
            slot = self.limiter._take(kept, bulk=call.options.bulk)  # pyright: ignore[reportPrivateUsage]
        try:
            if slot is not None:
                return await self._exchange(call, failed, slot, _AT_ONCE)
            with ExitStack() as held:
                slot, waited = await self._wait_for_slot(call, failed, held)
                return await self._exchange(call, failed, slot, waited)
        except asyncio.CancelledError as error:
            # Without the traceback, because the local variables of ``_exchange`` hold the answer.
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        except (ConfigurationError, MaxWaitError) as error:
            return _unsent(error)

    async def _wait_for_slot(self, call: Call, failed: Sequence[FailedTry], held: ExitStack) -> tuple[Slot, Waited]:
        """Wait for a slot and, on MongoDB, for other writes on the cluster. ``held`` releases what the call holds."""
        options, locks, asked = call.options, call.write_locks, perf_counter()
        kept = failed[-1].slot if failed else None
        waited_before = sum([each.waited for each in failed])

        def left() -> float | None:
            if options.max_wait is None or options.bulk:
                return None
            return max(0.0, options.max_wait - waited_before - (perf_counter() - asked))

        try:
            async with self._ended_by_close(asyncio.timeout(None)):
                if locks is not None:
                    await _hold(locks.queues[options.bulk], left(), held)
                queued = perf_counter()
                slot = await self.limiter.acquire(kept, bulk=options.bulk, max_wait=left())
                held.callback(self.limiter.release, slot, sent=False)  # unless ``_exchange`` sends a request in it
                for_slot = perf_counter() - queued
                if locks is not None:
                    await _hold(locks.writing, left(), held)
        except TimeoutError:  # ``aclose`` ended the wait
            self._check_usable()
            raise
        self._check_usable()
        return slot, Waited(for_slot, perf_counter() - asked - for_slot)

    @asynccontextmanager
    async def _ended_by_close(self, limit: asyncio.Timeout) -> AsyncGenerator[None]:
        """Bound a wait by ``limit`` and by ``aclose``, which raise TimeoutError."""
        self._waits.add(limit)
        try:
            async with limit:
                yield
        finally:
            self._waits.discard(limit)

    def _check_usable(self) -> None:
        """Refuse a closed client or session, another event loop, and another process."""
        if self._closed.is_set():
            raise ConfigurationError("this DatabaseClient is closed")
        if self._given_session is not None and self._given_session.closed:
            raise ConfigurationError("the aiohttp.ClientSession that you gave to this DatabaseClient is closed")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop, self._process = loop, os.getpid()
        if self._process != os.getpid():
            raise ConfigurationError(
                "this DatabaseClient was used before the process forked, so its connections are the parent's: make one "
                "in each process"
            )
        if self._loop is not loop:
            raise ConfigurationError("this DatabaseClient was first used on another event loop: make one for each loop")

    async def _renew_token(self, call: Call, stale: Token | None) -> None:
        """Get a token other than ``stale``: ask the provider, unless another call has done so."""
        limit = asyncio.timeout(call.options.timeout)
        try:
            async with self._ended_by_close(limit), self._token_lock:
                if self._ask_token is not None and self._token is stale:
                    asked = self._ask_token()
                    if not isawaitable(asked):
                        raise ConfigurationError(
                            "token must be a string or an async callable; this callable is not async"
                        )
                    self._use_token(Token(await asked))
        except TimeoutError:
            if not limit.expired():  # the provider raised it
                raise
        self._check_usable()
        if limit.expired():
            raise RequestTimeoutError(f"the token provider returned no token within {call.options.timeout:g} s")

    def _use_token(self, token: Token) -> None:
        token.check()
        self._token = token
        self._made_headers = None
        self.secrets.add_token(token.value)

    async def _exchange(
        self, call: Call, failed: Sequence[FailedTry], slot: Slot, waited: Waited
    ) -> Response | FailedTry:
        """Send one request now, and read the whole response."""
        token, connections, started, stats = self._token, self._connections, perf_counter(), call.options.stats
        assert token is not None
        assert connections is not None
        if stats is not None:
            stats.requests += 1
            stats.writes += call.operation.writes
        response, sent = None, True
        try:
            async with connections.session.request(
                call.operation.method,
                URL(self._base + call.path, encoded=True),
                data=call.body,
                headers=self._headers(call, connections, token),
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=True,
                timeout=_client_timeout(call.options.timeout),
                middlewares=connections.middlewares,
            ) as answer:
                close = connections.closer_of(answer)
                body = await _whole_body(answer)
        except FAILURES as error:
            broken = failed_without_answer(call, self.base_url.host, error, self.secrets)
            tried: Response | FailedTry = broken
            sent = broken.failure is not Failure.NOT_SENT
        else:
            response = Response(call, answer.status, answer.headers, body, tuple(failed), self.secrets, close)
            wait = None
            if response.status == 429:
                wait = self.limiter.refuse(slot, response.headers)
            elif response.status < 500 and response.status != 401:  # they may be a proxy's, or of another token
                self.limiter.release(slot, accepted=True)
            self._newest_headers = response.headers
            tried = response.failed_try(wait) or response
        finally:
            self.limiter.release(slot, sent=sent)
        if isinstance(tried, FailedTry):
            tried = evolve(tried, token=token, waited=sum(waited), slot=slot)
            if stats is not None and not tried.may_have_applied:
                stats.writes -= call.operation.writes
        if self._on_event is not None or logger.isEnabledFor(logging.DEBUG):
            attempt = 1 + sum(each.was_tried for each in failed)
            path = self.secrets.line(call.path, 200)
            report(call, response or tried, attempt, waited, perf_counter() - started, path, self._on_event)
        return tried

    def _headers(self, call: Call, connections: Connections, token: Token) -> CIMultiDict[str]:
        """Return the headers of a request: the client's own, cached for each token, and those of ``with_options``."""
        if self._made_headers is None:
            bare = {
                "Authorization": f"Bearer {token.value}",
                "Accept": "application/json",
                "Accept-Encoding": _ACCEPTED,
                # A session of the caller may set one.
                "User-Agent": connections.session.headers.get("User-Agent", _USER_AGENT),
            }
            self._made_headers = CIMultiDict(bare), CIMultiDict(bare | {"Content-Type": "application/json"})
        headers = self._made_headers[call.body is not None]
        if call.options.headers or not connections.are_safe:
            headers = headers.copy()
            headers.update(call.options.headers)
        if not connections.are_safe:
            headers["Connection"] = "close"
        return headers


def _unsent(error: DatabaseClientError) -> FailedTry:
    """Return the try that ``error`` ended before a request was sent."""
    return FailedTry(Failure.FINAL, error, was_tried=False)


async def _hold(lock: asyncio.Lock, seconds: float | None, held: ExitStack) -> None:
    """Wait for the lock of other writes."""
    try:
        async with asyncio.timeout(seconds):
            await lock.acquire()
    except TimeoutError:
        raise MaxWaitError("another user write on this cluster takes longer than max_wait allows") from None
    held.callback(lock.release)


async def _whole_body(response: aiohttp.ClientResponse) -> bytes:
    """Read the body of ``response``, which aiohttp decompresses piece by piece."""
    pieces, size, content = list[bytes](), 0, response.content
    while not content.at_eof():
        pieces.append(await content.readany())
        size += len(pieces[-1])
        if size > MAX_BODY:
            text = f"the answer ({response.status}) is larger than {MAX_BODY >> 20} MiB"
            raise InvalidResponseError(text, status=response.status)
    return b"".join(pieces)


@lru_cache(maxsize=64)
def _client_timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, connect=seconds * _CONNECT_SHARE)
