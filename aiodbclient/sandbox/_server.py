"""``Api``: answers HTTP requests. It checks host, token and rate limit, applies faults, and runs the operation."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web
from attrs import define, field

from .._dsn import is_loopback
from . import _validation as validation
from ._answers import HTML, Refusal, SandboxAnswer, error, not_found, not_implemented, phrase
from ._clusters import SandboxCluster, View, perform
from ._faults import Fault, Faults
from ._option_text import read_fault
from ._reach import Reach
from ._records import RecordedRequest, masked_headers, masked_json
from ._routes import LISTS, Route, endless, match, paged
from ._tokens import READ_TAGS, Tokens

# The scope that each operation needs, by the second part of its name (the `security` of the API description).
_SCOPE_OF = {
    "list": "database:read",
    "get": "database:read",
    "ca": "database:read",
    "create": "database:create",
    "update": "database:update",
    "reset_auth": "database:update",
    "delete": "database:delete",
}
_KEPT = 10_000  # requests that ``Sandbox.requests`` has; ``Sandbox.counts`` includes older ones
STEERING = "/sandbox/faults"  # beside the provider's API
CUT = SandboxAnswer(0)  # no answer: the connection is closed instead


@define(eq=False)
class Api:
    """Answers requests; a list has ``page_size`` entries a page, or a single page with None."""

    faults: Faults
    _clusters: Mapping[str, SandboxCluster]
    _tokens: Tokens
    _page_size: int | None
    _returns_settings: bool
    _reach: Reach
    kept: deque[RecordedRequest] = field(factory=lambda: deque(maxlen=_KEPT), init=False)  # the last requests
    counts: Counter[tuple[str | None, int | None]] = field(factory=Counter[Any], init=False)  # by operation and status
    _under_way: set[asyncio.Task[Any]] = field(factory=set["asyncio.Task[Any]"], init=False)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, and record it."""
        if request.path.startswith(STEERING):
            return await deliver(request, await self._steer(request), ())
        route = match(request.method, request.raw_path)
        record = RecordedRequest(
            method=request.method,
            path=request.raw_path,
            operation=route.operation,
            cluster=route.cluster,
            name=route.name,
            at=time.time(),
            headers=masked_headers(request.headers),
        )
        status = None
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            answer, faults = await self._answer(request, route, record)
            response = await deliver(request, answer, faults)
            if answer is not CUT:
                status = response.status
            return response
        finally:
            self._under_way.discard(task)
            record.status = status
            self.counts[record.operation, status] += 1

    async def _steer(self, request: web.BaseRequest) -> SandboxAnswer:
        """List, set or clear faults for ``aiodbclient sandbox fault``: from its machine, with its own token."""
        if not (is_loopback(request.remote) and self._reach.allows(request.headers.get("host"))):
            return error(403, "the faults of a sandbox are set from its own machine")
        if _bearer(request) != self._tokens.main:
            return error(401, "the faults of a sandbox are set with its own token")
        number = request.path.removeprefix(STEERING).strip("/")
        if request.method == "POST":
            try:
                text, _ = await _body(request)
                operation, options = read_fault(str(text), {one.id: one.name for one in self._clusters.values()})
                self.faults.add(operation, **options)
            except ValueError as refused:
                return error(422, str(refused))
        elif request.method == "DELETE":
            ended = [fault for fault in self.faults if number in ("", str(fault.id))]
            if number and not ended:
                return error(404, f"there is no fault {number}")
            for fault in ended:
                self.faults.remove(fault)
        shown = [{"id": each.id, "fault": str(each), "seen": each.seen, "fired": each.fired} for each in self.faults]
        return SandboxAnswer(200, {"faults": shown})

    async def stop(self) -> None:
        """Cancel the requests that still run, also those of clients that have disconnected."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(
        self, request: web.BaseRequest, route: Route, record: RecordedRequest
    ) -> tuple[SandboxAnswer, Sequence[Fault]]:
        # A web page that gets here has no valid token. Without a token, the body is not read.
        stranger = not self._reach.allows(request.headers.get("host"))
        rights = None if stranger else self._tokens.rights.get(_bearer(request))
        try:
            body, unreadable = await _body(request) if rights else (None, None)
            record.body = masked_json(body)
            if route.operation in ("users.create", "dbs.create"):
                record.name = validation.name_in(body)
        finally:
            self.kept.append(record)
        if stranger:
            names = ", ".join(self._reach.certified)
            return error(421, f"This sandbox accepts the hosts {names}. To allow another: --allow-host NAME"), ()
        if rights is None:
            return error(401, "Unable to authenticate you."), ()
        accepted, headers = rights.limiter.admit(time.monotonic(), time.time())
        if not accepted:
            return error(429, "API rate limit exceeded.", headers), ()
        faults = self.faults.meeting(route.operation, route.cluster, record.name)
        answer = await _interrupted(faults, after=False)
        if answer is None:
            answer = await self._worked(request, route, rights.scopes, body, unreadable, faults)
            answer = await _interrupted(faults, after=True) or answer
        if answer is not CUT:
            answer.headers.update(headers)
            for fault in faults:
                answer.headers.update(fault.options["headers"])
        return answer, faults

    async def _worked(
        self,
        request: web.BaseRequest,
        route: Route,
        scopes: frozenset[str],
        body: Any,
        unreadable: Refusal | None,
        faults: Sequence[Fault],
    ) -> SandboxAnswer:
        try:
            if route.allow is not None:
                return error(405, f"{request.method} is not allowed here", {"allow": route.allow})
            if route.operation is None:
                raise not_found()
            _require(_SCOPE_OF[route.operation.partition(".")[2]], scopes)
            view = View(scopes, self._returns_settings)
            if route.operation == "clusters.list":
                answer = await self._list_clusters(request, view)
            else:
                cluster = self._clusters.get(route.cluster or "")
                if cluster is None:
                    raise not_found()
                if unreadable is not None:
                    raise unreadable
                if request.method != "GET" and cluster.status != "online":
                    raise Refusal(412, f"cluster is not online: {cluster.status}")
                answer = await self._operated(cluster, route.operation, route.name or "", body, view, faults)
        except Refusal as refusal:
            return error(refusal.status, refusal.message)
        for fault in faults:
            if fault.options["answer_name"] is not None:
                _rename(answer, fault.options["answer_name"])
        if route.operation in LISTS:
            url = f"http://{request.host}{request.path}"
            if any(fault.options["endless"] for fault in faults):
                return endless(answer, url, request.query_string)
            if self._page_size is not None:
                return paged(answer, url, request.query_string, self._page_size)
        return answer

    async def _operated(
        self,
        cluster: SandboxCluster,
        operation: str,
        name: str,
        body: Any,
        view: View,
        faults: Sequence[Fault],
    ) -> SandboxAnswer:
        kind, _, verb = operation.partition(".")
        if verb == "get" and kind != "clusters":
            cluster.lag.refuse_unseen(kind, name, _longest(faults, "unseen_for"))
        if kind != "users" or verb in ("list", "get"):
            return await perform(operation, cluster, name, body, view)
        still_listed_for = _longest(faults, "still_listed_for")
        if verb == "delete" and still_listed_for:
            cluster.lag.keep_listed(await cluster.backend.user(name), still_listed_for)
        with cluster.user_write(overlap_fails=self.faults.mongodb_overlap):
            answer = await perform(operation, cluster, name, body, view)
        password_empty_for = _longest(faults, "password_empty_for")
        if verb in ("create", "reset_auth") and password_empty_for and answer.payload is not None:
            user = answer.payload["user"]
            cluster.lag.empty_password(user["name"], password_empty_for)
            answer.payload["user"] = cluster.lag.user(user)
        return answer

    async def _list_clusters(self, request: web.BaseRequest, view: View) -> SandboxAnswer:
        tags = parse_qs(request.query_string).get("tag_name")
        if tags is not None:
            _require(READ_TAGS, view.scopes)
        chosen = [cluster for cluster in self._clusters.values() if tags is None or tags[0] in cluster.options.tags]
        return SandboxAnswer(200, {"databases": [await cluster.document(view) for cluster in chosen]})


def _longest(faults: Sequence[Fault], option: str) -> float:
    return max((fault.options[option] for fault in faults), default=0.0)


def _require(scope: str, scopes: frozenset[str]) -> None:
    if scope not in scopes:
        raise Refusal(403, f"You are missing the required permission {scope}")


def _rename(answer: SandboxAnswer, name: str) -> None:
    """Replace the name or id of the user, db or cluster in ``answer``."""
    for key, identity in (("user", "name"), ("db", "name"), ("database", "id")):
        if answer.payload is not None and key in answer.payload:
            answer.payload[key] = {**answer.payload[key], identity: name}


def _bearer(request: web.BaseRequest) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


async def _body(request: web.BaseRequest) -> tuple[Any, Refusal | None]:
    """Return the JSON body, or None if there is none; and the refusal if it cannot be read."""
    if not request.can_read_body:
        return None, None
    try:
        return validation.parse(await request.read()), None
    except web.HTTPRequestEntityTooLarge:
        return None, Refusal(413, "the request body is too large")
    except Refusal as refusal:
        return None, refusal


async def _interrupted(faults: Sequence[Fault], *, after: bool) -> SandboxAnswer | None:
    """Apply the faults before or after the work, and return the answer of one that replaces the normal answer."""
    for fault in faults:
        if fault.options["after"] is not after:
            continue
        if fault.options["delay"]:
            await asyncio.sleep(fault.options["delay"])
        if fault.options["cut"] and not fault.options["truncate"]:
            return CUT
        status = fault.options["status"]
        if status is not None:
            return not_implemented() if status == 501 else error(status, phrase(status))
    return None


async def deliver(request: web.BaseRequest, answer: SandboxAnswer, faults: Sequence[Fault]) -> web.StreamResponse:
    """Turn ``answer`` into a response, or for ``CUT`` close the connection."""
    if answer is CUT:
        _close(request)
        return web.Response(status=500)  # aiohttp requires a response, but does not send it
    body = answer.body()
    content_type = "application/json"
    if any(fault.options["html"] for fault in faults) or answer.from_proxy:
        content_type = "text/html"
        body = HTML.format(status=answer.status, phrase=phrase(answer.status)).encode()
    if any(fault.options["truncate"] and fault.options["cut"] for fault in faults):
        return await _break_off(request, answer, content_type, body)
    if any(fault.options["truncate"] for fault in faults):
        body = body[: len(body) // 2]
    response = web.Response(status=answer.status, reason=phrase(answer.status), headers=answer.headers)
    if body:
        response.body = body
        response.content_type = content_type
    return response


async def _break_off(
    request: web.BaseRequest, answer: SandboxAnswer, content_type: str, body: bytes
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=phrase(answer.status), headers=answer.headers)
    response.content_type = content_type
    response.content_length = len(body)
    try:
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
    except ConnectionResetError:
        pass  # the client has gone already
    _close(request)
    return response


def _close(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.close()
