"""``Api``: answers HTTP requests. It checks host, token and rate limit, applies faults, and runs the operation."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast
from urllib.parse import parse_qs

from aiohttp import web
from attrs import define, field

from .._dsn import is_loopback
from ..engines import capabilities_of
from ..models import USER_SECRETS
from . import _protocol as protocol
from ._access import READ_TAGS, Reach, Tokens
from ._backends import PRIMARY
from ._clusters import SandboxCluster, View
from ._faults import Fault, Faults, add_given
from ._protocol import Refusal, SandboxAnswer, error, not_found

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
_SECRET_KEYS = frozenset({*USER_SECRETS, "token", "uri"})
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})
_MASK = "********"
STEERING = "/sandbox/faults"  # beside the provider's API
_CUT = SandboxAnswer(0)  # no answer: the connection is closed instead


@define
class RecordedRequest:
    """One received request.

    Attributes:
        method: The HTTP method.
        path: The path and query as received, still percent-encoded.
        operation: The operation, such as ``"users.create"``; None if the API has no such operation.
        cluster: The id of the cluster; None if the request names none.
        name: The user or db, decoded, from the path or, for a create, from the body; None if the request names none.
        at: When it arrived, as unix time in seconds.
        headers: The headers, with lower-case names and masked credentials.
        body: The JSON text with secrets masked; None if there was no body, it was not JSON, or the request had no valid
            token.
        status: The status of the answer; None until it is answered, or if the connection was cut instead.
    """

    method: str
    path: str
    operation: str | None
    cluster: str | None
    name: str | None
    at: float
    headers: dict[str, str]
    body: str | None = None
    status: int | None = None

    @property
    def json(self) -> Any:
        """``body``, parsed, or None."""
        return None if self.body is None else json.loads(self.body)


@define(eq=False)
class Api:
    """Answers requests; a list has ``page_size`` entries a page, or a single page with None."""

    faults: Faults
    clusters: Mapping[str, SandboxCluster]
    tokens: Tokens
    page_size: int | None
    returns_settings: bool
    reach: Reach
    kept: deque[RecordedRequest] = field(factory=lambda: deque(maxlen=_KEPT), init=False)  # the last requests
    counts: Counter[tuple[str | None, int | None]] = field(factory=Counter[Any], init=False)  # by operation and status
    _under_way: set[asyncio.Task[Any]] = field(factory=set["asyncio.Task[Any]"], init=False)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, and record it."""
        if request.path.startswith(STEERING):
            return await _deliver(request, await self._steer(request), ())
        exchange = _Exchange(self, request)
        record, status = exchange.record, None
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            answer = await exchange.answer()
            response = await _deliver(request, answer, exchange.faults)
            if answer is not _CUT:
                status = response.status
            return response
        finally:
            self._under_way.discard(task)
            record.status = status
            self.counts[record.operation, status] += 1

    async def _steer(self, request: web.BaseRequest) -> SandboxAnswer:
        """List, set or clear faults for ``aiodbclient sandbox fault``: from its machine, with its own token."""
        if not (is_loopback(request.remote) and self.reach.allows(request.headers.get("host"))):
            return error(403, "the faults of a sandbox are set from its own machine")
        if _bearer(request) != self.tokens.main:
            return error(401, "the faults of a sandbox are set with its own token")
        number = request.path.removeprefix(STEERING).strip("/")
        if request.method == "POST":
            try:
                add_given(self.faults, await request.json(), {one.id: one.name for one in self.clusters.values()})
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


class _Exchange:
    """One request, on its way to an answer."""

    def __init__(self, api: Api, request: web.BaseRequest) -> None:
        self._api = api
        self._request = request
        self._route = protocol.match(request.method, request.raw_path)
        self._body: Any = None  # a Refusal if it cannot be read
        self.faults: Sequence[Fault] = ()  # which it has met
        self.record = RecordedRequest(
            method=request.method,
            path=request.raw_path,
            operation=self._route.operation,
            cluster=self._route.cluster,
            name=self._route.name,
            at=time.time(),
            headers={
                key.lower(): _MASK if key.lower() in _SECRET_HEADERS else value
                for key, value in request.headers.items()
            },
        )

    async def answer(self) -> SandboxAnswer:
        """Record the request, check host, token and rate limit, and apply the faults before and after the work."""
        api, request, record = self._api, self._request, self.record
        # A web page that gets here has no valid token. Without a token, the body is not read.
        stranger = not api.reach.allows(request.headers.get("host"))
        rights = None if stranger else api.tokens.rights.get(_bearer(request))
        try:
            if rights is not None:
                await self._read_body()
        finally:
            api.kept.append(record)
        if stranger:
            names = ", ".join(api.reach.certified)
            return error(421, f"This sandbox accepts the hosts {names}. To allow another: --allow-host NAME")
        if rights is None:
            return error(401, "Unable to authenticate you.")
        accepted, headers = rights.limiter.admit(time.monotonic(), time.time())
        if not accepted:
            return error(429, "API rate limit exceeded.", headers)
        self.faults = api.faults.meeting(record.operation, record.cluster, record.name)
        answer = await self._interrupted(after=False)
        if answer is None:
            try:
                answer = await self._worked(View(rights.scopes, api.returns_settings))
            except Refusal as refusal:
                answer = error(refusal.status, refusal.message, refusal.headers)
            answer = await self._interrupted(after=True) or answer
        if answer is not _CUT:
            answer.headers.update(headers)
            for fault in self.faults:
                answer.headers.update(fault.options["headers"])
        return answer

    async def _read_body(self) -> None:
        if not self._request.can_read_body:
            return
        try:
            self._body = protocol.parse(await self._request.read())
        except web.HTTPRequestEntityTooLarge:
            self._body = Refusal(413, "the request body is too large")
        except Refusal as refusal:
            self._body = refusal
        else:
            self.record.body = None if self._body is None else json.dumps(_masked(self._body))
            if self._route.operation in ("users.create", "dbs.create"):
                self.record.name = protocol.name_in(self._body)

    async def _interrupted(self, *, after: bool) -> SandboxAnswer | None:
        """Apply the faults before or after the work, and return the answer of one that replaces the normal answer."""
        for options in (fault.options for fault in self.faults if fault.options["after"] is after):
            if options["delay"]:
                await asyncio.sleep(options["delay"])
            if options["cut"] and not options["truncate"]:
                return _CUT
            if options["status"] == 501:  # terraform-provider-digitalocean #1387
                return error(501, "Server Error", slug="Not Implemented")
            if options["status"] is not None:
                return error(options["status"])
        return None

    async def _worked(self, view: View) -> SandboxAnswer:
        """Run the operation, or raise Refusal."""
        request, route = self._request, self._route
        if route.allow is not None:
            raise Refusal(405, f"{request.method} is not allowed here", {"allow": route.allow})
        if route.operation is None:
            raise not_found()
        _require(_SCOPE_OF[route.operation.partition(".")[2]], view.scopes)
        if route.operation == "clusters.list":
            answer = await self._list_clusters(view)
        else:
            cluster = self._api.clusters.get(route.cluster or "")
            if cluster is None:
                raise not_found()
            if isinstance(self._body, Refusal):
                raise self._body
            if request.method != "GET" and cluster.status != "online":
                raise Refusal(412, f"cluster is not online: {cluster.status}")
            with cluster.working(route.operation, overlap_fails=self._api.faults.mongodb_overlap):
                answer = await self._operated(cluster, route.operation, route.name or "", view)
        for fault in self.faults:
            if fault.options["answer_name"] is not None:
                _rename(answer, fault.options["answer_name"])
        if route.operation in protocol.LISTS:
            url = f"http://{request.host}{request.path}"
            if self._most("endless"):
                return protocol.endless(answer, url, request.query_string)
            if self._api.page_size is not None:
                return protocol.paged(answer, url, request.query_string, self._api.page_size)
        return answer

    async def _list_clusters(self, view: View) -> SandboxAnswer:
        tags = parse_qs(self._request.query_string).get("tag_name")
        if tags is not None:
            _require(READ_TAGS, view.scopes)
        clusters = self._api.clusters.values()
        chosen = [cluster for cluster in clusters if tags is None or tags[0] in cluster.options.tags]
        return SandboxAnswer(200, {"databases": [await cluster.document(view) for cluster in chosen]})

    async def _operated(self, cluster: SandboxCluster, operation: str, name: str, view: View) -> SandboxAnswer:
        """Run an operation on a cluster, whose reads may lag behind."""
        engine, backend, lag, body = cluster.engine, cluster.backend, cluster.lag, self._body
        if operation == "clusters.get":
            return SandboxAnswer(200, {"database": await cluster.document(view)})
        if operation == "clusters.ca":
            return SandboxAnswer(200, {"ca": {"certificate": b64encode(cluster.ca().encode()).decode()}})
        kind = operation.partition(".")[0]
        if "\0" in name or not protocol.is_text(name):
            raise not_found()
        capabilities = capabilities_of(engine)
        if not (capabilities.users if kind == "users" else capabilities.dbs):
            # as the provider's answer for the pools of MySQL (terraformer #1905)
            raise Refusal(422, "operation is not supported for this cluster type")
        match operation:
            case "users.list":
                return SandboxAnswer(200, {"users": [view.user(user) for user in await cluster.users()]})
            case "users.get":
                lag.refuse_unseen("users", name, self._most("unseen_for"))
                return SandboxAnswer(200, {"user": view.user(lag.user(await backend.user(name)))})
            case "users.create":
                new = protocol.new_user(engine, body)
                user = await backend.create_user(new)
                lag.created("users", new.name)
                return SandboxAnswer(201, {"user": lag.user(user, self._most("password_empty_for"))})
            case "users.update":
                user = await backend.update_user(name, protocol.new_settings(engine, body))
                return SandboxAnswer(201, {"user": view.written(lag.user(user))})
            case "users.reset_auth":
                user = await backend.reset_auth(name, protocol.auth_plugin(engine, body))
                return SandboxAnswer(200, {"user": lag.user(user, self._most("password_empty_for"))})
            case "users.delete":
                if name == PRIMARY:
                    raise Refusal(422, "the primary user cannot be deleted")
                if seconds := self._most("still_listed_for"):
                    lag.keep_listed(await backend.user(name), seconds)
                await backend.delete_user(name)
                return SandboxAnswer(204)
            case "dbs.list":
                return SandboxAnswer(200, {"dbs": [{"name": db} for db in await backend.dbs()]})
            case "dbs.get":
                lag.refuse_unseen("dbs", name, self._most("unseen_for"))
                if name not in await backend.dbs():
                    raise not_found()
                return SandboxAnswer(200, {"db": {"name": name}})
            case "dbs.create":
                db = protocol.new_name(engine, "database", body)
                await backend.create_db(db)
                lag.created("dbs", db)
                return SandboxAnswer(201, {"db": {"name": db}})
            case "dbs.delete":
                await backend.delete_db(name)
                return SandboxAnswer(204)
            case _:
                raise AssertionError(operation)

    def _most(self, option: str) -> float:
        """The largest value of an option of the faults; 0 without faults."""
        return max((fault.options[option] for fault in self.faults), default=0.0)


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


def _masked(value: Any, depth: int = 20) -> Any:
    """Copy ``value`` with secrets masked, without what is nested deeper than any body of the API."""
    if depth == 0:
        return "..."
    if isinstance(value, dict):
        members = cast(dict[str, Any], value)
        return {key: _MASK if key in _SECRET_KEYS else _masked(member, depth - 1) for key, member in members.items()}
    if isinstance(value, list):
        return [_masked(member, depth - 1) for member in cast(Iterable[Any], value)]
    return value


async def _deliver(request: web.BaseRequest, answer: SandboxAnswer, faults: Sequence[Fault]) -> web.StreamResponse:
    """Turn ``answer`` into a response, or for ``_CUT`` close the connection."""
    if answer is _CUT:
        _close(request)
        return web.Response(status=500)  # aiohttp requires a response, but does not send it
    content_type, body = answer.content(html=any(fault.options["html"] for fault in faults))
    begun: dict[str, Any] = {"status": answer.status, "reason": answer.phrase, "headers": answer.headers}
    truncating = [fault for fault in faults if fault.options["truncate"]]
    if any(fault.options["cut"] for fault in truncating):
        response = web.StreamResponse(**begun)
        response.content_type, response.content_length = content_type, len(body)
        with suppress(ConnectionResetError):  # the client has gone already
            await response.prepare(request)
            await response.write(body[: len(body) // 2])
        _close(request)
        return response
    response = web.Response(**begun)
    if body:
        response.body = body[: len(body) // 2] if truncating else body
        response.content_type = content_type
    return response


def _close(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.close()
