"""Send an answer, changed by the faults that apply to it."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from ._answers import HTML, SandboxAnswer, phrase
from ._fault import Fault

CUT = SandboxAnswer(0)
"""No answer: the connection is closed instead."""


async def deliver(request: web.BaseRequest, answer: SandboxAnswer, faults: Sequence[Fault]) -> web.StreamResponse:
    """Turn ``answer`` into a response. ``CUT`` closes the connection instead."""
    if answer is CUT:
        _close(request)
        return web.Response(status=500)  # aiohttp requires a response, but does not send it
    body = answer.body()
    content_type = "application/json"
    if any(fault.html for fault in faults) or answer.from_proxy:
        content_type = "text/html"
        body = HTML.format(status=answer.status, phrase=phrase(answer.status)).encode()
    if any(fault.truncate and fault.cut for fault in faults):
        return await _break_off(request, answer, content_type, body)
    if any(fault.truncate for fault in faults):
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
