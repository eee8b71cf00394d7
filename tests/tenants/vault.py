"""A fake of Vault's key-value engine, version 2, built from its API documentation.

https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2: reads and check-and-set writes of ``data``, lists of
``metadata``, tokens.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

from aiohttp import web


class Vault:
    """``hurry``: the seconds of its clock per real second. ``paths``: the requested paths."""

    token = "vault-token"
    url = ""

    def __init__(self, hurry: float = 1.0) -> None:
        self.hurry = hurry
        self.paths: list[str] = []
        self.secrets: dict[str, list[Any]] = {}  # every version of each document
        self._born = time.time()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Vault]:
        app = web.Application(middlewares=[self._check])
        app.on_response_prepare.append(self._date)
        app.router.add_get("/v1/secret/data/{path:.+}", self._read)
        app.router.add_post("/v1/secret/data/{path:.+}", self._write)
        app.router.add_get("/v1/secret/metadata/{path:.+}", self._list)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _check(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.paths.append(request.path)
        if request.headers.get("X-Vault-Token") != self.token:
            return web.json_response({"errors": ["permission denied"]}, status=403)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _date(self, request: web.Request, answer: web.StreamResponse) -> None:
        answer.headers["Date"] = formatdate(self._born + (time.time() - self._born) * self.hurry, usegmt=True)

    async def _read(self, request: web.Request) -> web.Response:
        versions = self.secrets.get(request.match_info["path"])
        if not versions:
            return web.json_response({"errors": []}, status=404)
        return web.json_response({"data": {"data": versions[-1], "metadata": {"version": len(versions)}}})

    async def _write(self, request: web.Request) -> web.Response:
        body = await request.json()
        versions = self.secrets.setdefault(request.match_info["path"], [])
        if body.get("options", {}).get("cas", len(versions)) != len(versions):
            refusal = {"errors": ["check-and-set parameter did not match the current version"]}
            return web.json_response(refusal, status=400)
        versions.append(body["data"])
        return web.json_response({"data": {"version": len(versions)}})

    async def _list(self, request: web.Request) -> web.Response:
        folder = request.match_info["path"].rstrip("/") + "/"
        keys = sorted(path.removeprefix(folder) for path in self.secrets if path.startswith(folder))
        if request.query.get("list") != "true" or not keys:
            return web.json_response({"errors": []}, status=404)
        return web.json_response({"data": {"keys": keys}})
