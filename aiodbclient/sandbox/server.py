"""The HTTP side of the sandbox: from bytes to an operation and back, with token, limits and faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode

from aiohttp import web
from attrs import frozen

from . import validation
from .answers import HTML, Answer, Refusal, error, not_found, phrase
from .clusters import Cluster, perform
from .faults import Fault, Faults
from .limits import RateLimiter
from .records import RecordedRequest, Records, masked, masked_headers
from .routes import Route, match

VIEW_CREDENTIALS = "database:view_credentials"
SCOPES = frozenset({"database:read", "database:create", "database:update", "database:delete", VIEW_CREDENTIALS})

# What each operation asks for, by the second part of its name (the `security` of the API description).
_SCOPE_OF = {
    "list": "database:read",
    "get": "database:read",
    "create": "database:create",
    "update": "database:update",
    "reset_auth": "database:update",
    "delete": "database:delete",
}
_USER_WRITES = frozenset({"users.create", "users.update", "users.reset_auth", "users.delete"})
_CUT = Answer(0)  # no answer: the connection is closed instead


@frozen
class Rights:
    """What a token may do, and the requests that were counted for it."""

    scopes: frozenset[str]
    limiter: RateLimiter


class Api:
    """Answers requests on ``clusters``. ``tokens`` has the rights of every token that is let in."""

    def __init__(self, clusters: Mapping[str, Cluster], tokens: Mapping[str, Rights], page_size: int | None) -> None:
        self.faults = Faults()
        self.records = Records()
        self._clusters = clusters
        self._tokens = tokens
        self._page_size = page_size

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
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
        self.records.kept.append(record)
        status = None
        try:
            answer, faults = await self._answer(request, route, record)
            response = await _deliver(request, answer, faults)
            if answer is not _CUT:
                status = response.status
            return response
        finally:
            self.records.finish(record, status)

    async def _answer(
        self, request: web.BaseRequest, route: Route, record: RecordedRequest
    ) -> tuple[Answer, Sequence[Fault]]:
        body, unreadable = await _body(request)
        record.json = masked(body)
        if route.operation in ("users.create", "dbs.create"):
            record.name = validation.name_in(body)
        rights = self._tokens.get(_bearer(request))
        if rights is None:
            return error(401, "Unable to authenticate you."), ()
        accepted, headers = rights.limiter.admit(time.monotonic(), time.time())
        faults = self.faults.meeting(route.operation, route.cluster, record.name, limited=not accepted)
        if accepted:
            answer = await _interrupted(faults, after=False)
            if answer is None:
                answer = await self._worked(request, route, rights.scopes, body, unreadable, faults)
                answer = await _interrupted(faults, after=True) or answer
        else:
            answer = error(429, "API rate limit exceeded.")
        if answer is not _CUT:
            answer.headers.update(headers)
            for fault in faults:
                answer.headers.update(fault.headers)
                if fault.reset_skew and "ratelimit-reset" in headers:
                    answer.headers["ratelimit-reset"] = str(int(headers["ratelimit-reset"]) + round(fault.reset_skew))
        return answer, faults

    async def _worked(
        self,
        request: web.BaseRequest,
        route: Route,
        scopes: frozenset[str],
        body: Any,
        unreadable: Refusal | None,
        faults: Sequence[Fault],
    ) -> Answer:
        try:
            if route.allow is not None:
                return error(405, f"{request.method} is not allowed here", {"allow": route.allow})
            if route.operation is None:
                raise not_found()
            scope = _SCOPE_OF[route.operation.partition(".")[2]]
            if scope not in scopes:
                raise Refusal(403, f"You are missing the required permission {scope}")
            credentials = VIEW_CREDENTIALS in scopes
            if route.operation == "clusters.list":
                return await self._list_clusters(request, credentials)
            cluster = self._clusters.get(route.cluster or "")
            if cluster is None:
                raise not_found()
            if unreadable is not None:
                raise unreadable
            if route.operation in ("users.get", "dbs.get") and _unseen(cluster, route, faults):
                raise not_found()
            answer = await self._operated(cluster, route.operation, route.name or "", body, credentials)
            return self._page(request, answer, route.operation.partition(".")[0]) if self._page_size else answer
        except Refusal as refusal:
            return error(refusal.status, refusal.message)

    async def _operated(self, cluster: Cluster, operation: str, name: str, body: Any, credentials: bool) -> Answer:
        async def work() -> Answer:
            return await perform(operation, cluster, name, body, credentials=credentials)

        if operation in _USER_WRITES:
            answer = await cluster.exclusive(work, overlap_fails=self.faults.mongodb_overlap)
        else:
            answer = await work()
        kind, _, verb = operation.partition(".")
        if verb == "create":
            cluster.born[kind, body["name"]] = time.monotonic()
        elif verb == "delete":
            cluster.born.pop((kind, name), None)
        return answer

    async def _list_clusters(self, request: web.BaseRequest, credentials: bool) -> Answer:
        tags = parse_qs(request.query_string).get("tag_name")
        chosen = [cluster for cluster in self._clusters.values() if tags is None or tags[0] in cluster.tags]
        answer = Answer(200, {"databases": [await cluster.document(credentials=credentials) for cluster in chosen]})
        return self._page(request, answer, "databases") if self._page_size else answer

    def _page(self, request: web.BaseRequest, answer: Answer, key: str) -> Answer:
        """Cut a list to the page asked for, with ``links`` to the others as other lists have."""
        if self._page_size is None or answer.payload is None or not isinstance(answer.payload.get(key), list):
            return answer
        query = parse_qs(request.query_string)
        page = _number(query, "page", 1)
        size = min(_number(query, "per_page", self._page_size), self._page_size)
        everything = answer.payload[key]
        last = max(1, -(-len(everything) // size))
        links: dict[str, str] = {}
        for label, number, there in (
            ("first", 1, page > 1),
            ("prev", page - 1, page > 1),
            ("next", page + 1, page < last),
            ("last", last, page < last),
        ):
            if there:
                others = {name: values[0] for name, values in query.items()}
                others.update(page=str(number), per_page=str(size))
                links[label] = f"http://{request.host}{request.path}?{urlencode(others)}"
        answer.payload = {
            key: everything[(page - 1) * size : page * size],
            "links": {"pages": links} if links else {},
            "meta": {"total": len(everything)},
        }
        return answer


def _number(query: Mapping[str, list[str]], key: str, default: int) -> int:
    given = query.get(key, [""])[0]
    return max(1, int(given)) if given.isascii() and given.isdigit() else default


def _bearer(request: web.BaseRequest) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


async def _body(request: web.BaseRequest) -> tuple[Any, Refusal | None]:
    """The JSON body, None where there is none; or what to answer when it cannot be read."""
    if not request.can_read_body:
        return None, None
    try:
        return validation.parse(await request.read()), None
    except web.HTTPRequestEntityTooLarge:
        return None, Refusal(413, "the request body is too large")
    except Refusal as refusal:
        return None, refusal


def _unseen(cluster: Cluster, route: Route, faults: Sequence[Fault]) -> bool:
    seconds = max((fault.unseen_for for fault in faults), default=0.0)
    born = cluster.born.get((route.operation.partition(".")[0], route.name or "")) if route.operation else None
    return bool(seconds) and born is not None and time.monotonic() - born < seconds


async def _interrupted(faults: Sequence[Fault], *, after: bool) -> Answer | None:
    """Let the faults before or after the work happen, and tell the answer that one of them gives instead."""
    for fault in faults:
        if fault.after is not after:
            continue
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.cut and not fault.truncate:
            return _CUT
        if fault.status is not None:
            return error(fault.status, phrase(fault.status))
    return None


async def _deliver(request: web.BaseRequest, answer: Answer, faults: Sequence[Fault]) -> web.StreamResponse:
    """Turn an answer into a response, damaged as the faults want it. A cut closes the connection."""
    if answer is _CUT:
        if request.transport is not None:
            request.transport.close()
        return web.Response(status=500)  # goes nowhere: aiohttp wants one
    body = answer.body()
    content_type = "application/json"
    for fault in faults:
        if fault.html:
            content_type = "text/html"
            body = HTML.format(status=answer.status, phrase=phrase(answer.status)).encode()
        if fault.truncate and fault.cut:
            return await _break_off(request, answer, body)
        if fault.truncate:
            body = body[: len(body) // 2]
    if not body:
        return web.Response(status=answer.status, headers=answer.headers)
    return web.Response(status=answer.status, headers=answer.headers, body=body, content_type=content_type)


async def _break_off(request: web.BaseRequest, answer: Answer, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_type = "application/json"
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
