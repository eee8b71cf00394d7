"""``Api``: answers HTTP requests. It checks the token and the rate limit, applies faults, and runs the operation."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web
from attrs import define, field

from ..engines import capabilities_of
from . import _protocol as protocol  # pyright: ignore[reportPrivateUsage]  # a module of this package
from ._backends import PRIMARY
from ._clusters import SandboxCluster, redacted
from ._faults import Fault, Faults, add_json
from ._protocol import Answer, RecordedRequest, Refusal, error, not_found
from ._tokens import READ_TAGS, Token

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
FAULTS_PATH = "/sandbox/faults"  # beside the provider's API
_CUT = Answer(0)  # no answer: the connection is closed instead


@define(eq=False, repr=False)
class Api:
    clusters: Mapping[str, SandboxCluster]
    tokens: Mapping[str, Token]
    main_token: str
    faults: Faults = field(factory=Faults, init=False)
    requests: list[RecordedRequest] = field(factory=list[RecordedRequest], init=False)
    counts: Counter[tuple[str | None, int | None]] = field(factory=Counter[Any], init=False)  # by operation and status
    _running: set[asyncio.Task[Any]] = field(factory=set["asyncio.Task[Any]"], init=False)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, and record it."""
        if request.path == FAULTS_PATH:
            return _response(await self._change_faults(request))
        exchange = _Exchange(self, request)
        record = exchange.record
        self.requests.append(record)
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            answer = await exchange.answer()
            if answer is not _CUT:
                record.status = answer.status
                return _response(answer)
            if request.transport is not None:
                request.transport.close()
            return web.Response(status=500)  # aiohttp requires a response, but does not send it
        finally:
            self._running.discard(task)
            self.counts[record.operation, record.status] += 1

    async def _change_faults(self, request: web.BaseRequest) -> Answer:
        """Add a fault (POST), clear all (DELETE) or list them (GET), with the sandbox's own token."""
        if _bearer(request) != self.main_token:
            return error(401, "the faults of a sandbox need its own token")
        if request.method == "POST":
            try:
                add_json(self.faults, json.loads(await request.read()))
            except (ValueError, RecursionError) as refused:
                return error(400, str(refused))
        elif request.method == "DELETE":
            self.faults.clear()
        elif request.method != "GET":
            return error(405, headers={"allow": "GET, POST, DELETE"})
        shown = [_shown(fault) for fault in self.faults]
        return Answer(200, {"faults": shown})

    async def stop(self) -> None:
        """Cancel the requests that still run, also those of clients that have disconnected."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Exchange:
    """One request, on its way to an answer."""

    def __init__(self, api: Api, request: web.BaseRequest) -> None:
        self._api = api
        self._request = request
        self._route = protocol.match(request.method, request.raw_path)
        self._body: Any = None  # a Refusal if it is invalid
        self._cluster = api.clusters.get(self._route.cluster or "")
        self.record = RecordedRequest(
            method=request.method,
            path=request.raw_path,
            operation=self._route.operation,
            cluster=self._route.cluster,
            name=self._route.name,
            at=time.time(),
            headers={key.lower(): value for key, value in request.headers.items()},
        )

    async def answer(self) -> Answer:
        """Read the request, check the token and the rate limit, and apply the faults around the work."""
        api, record = self._api, self.record
        await self._read_body()
        token = api.tokens.get(_bearer(self._request))
        if token is None:
            return error(401, "Unable to authenticate you.")
        accepted, headers = token.admit(time.monotonic(), time.time())
        if not accepted:
            return error(429, "API rate limit exceeded.", headers)
        faults = api.faults.matching(record, self._cluster.name if self._cluster else None)
        answer = await self._fail(faults, after=False)
        if answer is None:
            try:
                answer = await self._work(token.scopes)
            except Refusal as refusal:
                answer = error(refusal.status, refusal.message, refusal.headers)
            answer = await self._fail(faults, after=True) or answer
        if answer is _CUT:
            return answer
        answer.headers.update(headers)
        for fault in faults:
            answer.headers.update(fault.options["headers"] or {})
            if fault.options["change"] is not None:
                answer.body = copy.deepcopy(answer.body)  # the backend holds parts of it
                fault.options["change"](record, answer)
        return answer

    async def _read_body(self) -> None:
        if not self._request.can_read_body:
            return
        try:
            raw = await self._request.read()
            self.record.body = raw.decode(errors="replace") or None
            self._body = protocol.parse_json(raw)
        except web.HTTPRequestEntityTooLarge:
            self._body = Refusal(413, "the request body is too large")
        except Refusal as refusal:
            self._body = refusal
        if self._route.operation in ("users.create", "dbs.create"):
            self.record.name = protocol.name_of(self._body)

    async def _fail(self, faults: Sequence[Fault], *, after: bool) -> Answer | None:
        """Apply the faults before or after the work, and return the answer of one that replaces the normal answer."""
        for options in (fault.options for fault in faults if fault.options["after"] is after):
            if options["delay"]:
                await asyncio.sleep(options["delay"])
            if options["cut"]:
                return _CUT
            if options["status"] is not None:
                return error(options["status"])
        return None

    async def _work(self, scopes: frozenset[str]) -> Answer:
        """Run the operation, or raise Refusal."""
        request, route = self._request, self._route
        if route.allow is not None:
            raise Refusal(405, f"{request.method} is not allowed here", {"allow": route.allow})
        if route.operation is None:
            raise not_found()
        _require(_SCOPE_OF[route.operation.partition(".")[2]], scopes)
        if route.operation == "clusters.list":
            return await self._list_clusters(scopes)
        cluster = self._cluster
        if cluster is None:
            raise not_found()
        if isinstance(self._body, Refusal):
            raise self._body
        if request.method != "GET" and cluster.status != "online":
            raise Refusal(412, f"cluster is not online: {cluster.status}")
        async with cluster.user_write(route.operation, overlap_fails=self._api.faults.mongodb_overlap):
            return await self._operate(cluster, route.operation, route.name or "", scopes)

    async def _list_clusters(self, scopes: frozenset[str]) -> Answer:
        tags = parse_qs(self._request.query_string).get("tag_name")
        if tags is not None:
            _require(READ_TAGS, scopes)
        chosen = [each for each in self._api.clusters.values() if tags is None or tags[0] in each.options.tags]
        return Answer(200, {"databases": [await cluster.document(scopes, self._host) for cluster in chosen]})

    @property
    def _host(self) -> str:
        """The host that the client knows this machine by."""
        return self._request.url.host or "127.0.0.1"

    async def _operate(self, cluster: SandboxCluster, operation: str, name: str, scopes: frozenset[str]) -> Answer:
        engine, backend, body = cluster.engine, cluster.backend, self._body
        if operation == "clusters.get":
            return Answer(200, {"database": await cluster.document(scopes, self._host)})
        if operation == "clusters.ca":
            return Answer(200, {"ca": {"certificate": b64encode(cluster.ca().encode()).decode()}})
        kind = operation.partition(".")[0]
        if "\0" in name or not protocol.is_text(name):
            raise not_found()
        capabilities = capabilities_of(engine)
        if not (capabilities.users if kind == "users" else capabilities.dbs):
            # as the provider's answer for the pools of MySQL (terraformer #1905)
            raise Refusal(422, "operation is not supported for this cluster type")
        match operation:
            case "users.list":
                return Answer(200, {"users": [redacted(user, scopes) for user in await backend.users()]})
            case "users.get":
                return Answer(200, {"user": redacted(await backend.user(name), scopes)})
            case "users.create":
                return Answer(201, {"user": await backend.create_user(protocol.parse_user(engine, body))})
            case "users.update":
                user = await backend.update_user(name, protocol.parse_settings(engine, body))
                return Answer(201, {"user": redacted(user, scopes)})
            case "users.reset_auth":
                return Answer(200, {"user": await backend.reset_auth(name, protocol.parse_auth_plugin(engine, body))})
            case "users.delete":
                if name == PRIMARY:
                    raise Refusal(422, "the primary user cannot be deleted")
                await backend.delete_user(name)
                return Answer(204)
            case "dbs.list":
                return Answer(200, {"dbs": [{"name": db} for db in await backend.dbs()]})
            case "dbs.get":
                if name not in await backend.dbs():
                    raise not_found()
                return Answer(200, {"db": {"name": name}})
            case "dbs.create":
                db = protocol.parse_name(engine, "database", body)
                await backend.create_db(db)
                return Answer(201, {"db": {"name": db}})
            case "dbs.delete":
                await backend.delete_db(name)
                return Answer(204)
            case _:
                raise AssertionError(operation)


def _require(scope: str, scopes: frozenset[str]) -> None:
    if scope not in scopes:
        raise Refusal(403, f"You are missing the required permission {scope}")


def _bearer(request: web.BaseRequest) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _shown(fault: Fault) -> dict[str, Any]:
    given = {name: value for name, value in fault.options.items() if value and name != "change"}
    return given | {"seen": fault.seen, "fired": fault.fired}


def _response(answer: Answer) -> web.Response:
    response = web.Response(status=answer.status, reason=protocol.reason_phrase(answer.status), headers=answer.headers)
    if answer.body is not None:
        is_raw = isinstance(answer.body, bytes)
        response.body = answer.body if is_raw else json.dumps(answer.body).encode()
        if "content-type" not in answer.headers:
            response.content_type = "text/html" if is_raw else "application/json"
    return response
