"""Answers of a sandbox as the provider and proxies sometimes give them: functions for ``Faults.add(change=...)``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from typing import Any

from aiodbclient.sandbox import Answer, RecordedRequest, Sandbox

Change = Callable[[RecordedRequest, Answer], None]
_READS = ("users.get", "users.list", "clusters.get", "clusters.list")


def html(request: RecordedRequest, answer: Answer) -> None:
    """A page of a proxy in front of the API."""
    answer.body = f"<html><h1>{answer.status}</h1></html>".encode()


def truncate(request: RecordedRequest, answer: Answer) -> None:
    """Half of the JSON. No header shows it."""
    body = answer.body  # bytes after another change
    text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    answer.body = text[: len(text) // 2]
    answer.headers["content-type"] = "application/json"


def hide_new_users(sandbox: Sandbox, seconds: float, **selected: Any) -> None:
    """Answer reads of a user with 404 until it is so old."""

    def change(request: RecordedRequest, answer: Answer) -> None:
        born = [each.at for each in sandbox.requests if _is(each, "users.create", request.cluster, request.name)]
        if born and time.time() - born[-1] < seconds:
            answer.status, answer.body = 404, {"id": "not_found", "message": "not found"}

    sandbox.faults.add("users.get", change=change, **selected)


def delay_passwords(sandbox: Sandbox, operations: Collection[str], seconds: float) -> None:
    """Return the new passwords of these ``operations`` as "" for so many seconds, also in their own answers."""
    until: dict[str, float] = {}

    def begin(request: RecordedRequest, answer: Answer) -> None:
        for user in _users(answer):
            until[user["name"]] = time.monotonic() + seconds
            user["password"] = ""

    def hide(request: RecordedRequest, answer: Answer) -> None:
        for user in _users(answer):
            if time.monotonic() < until.get(user["name"], 0.0) and "password" in user:
                user["password"] = ""

    def end(request: RecordedRequest, answer: Answer) -> None:
        for user in _users(answer):
            until.pop(user["name"], None)

    sandbox.faults.add(operations, change=begin)
    sandbox.faults.add({"users.create", "users.reset_auth"} - {*operations} or "users.get", change=end)
    sandbox.faults.add({*_READS, "users.update"}, change=hide)


def list_deleted_users(sandbox: Sandbox, seconds: float) -> None:
    """Keep deleted users in lists and clusters for so many seconds. Reading one is a 404."""

    def change(request: RecordedRequest, answer: Answer) -> None:
        there = {user["name"] for user in _users(answer)}
        gone = {
            each.name
            for each in sandbox.requests
            if _is(each, "users.delete", request.cluster, each.name) and each.status == 204
            if time.time() - each.at < seconds
        }
        users = answer.body["users"] if "users" in answer.body else answer.body["database"]["users"]
        users += [{"name": name, "role": "normal"} for name in sorted(filter(None, gone - there))]

    sandbox.faults.add(("users.list", "clusters.get"), change=change)


def _is(request: RecordedRequest, operation: str, cluster: str | None, name: str | None) -> bool:
    return (request.operation, request.cluster, request.name) == (operation, cluster, name)


def _users(answer: Answer) -> list[dict[str, Any]]:
    """All users in an answer."""
    body = answer.body if isinstance(answer.body, dict) else {}
    clusters = [*body.get("databases", []), *([body["database"]] if "database" in body else [])]
    users = [*body.get("users", []), *([body["user"]] if "user" in body else [])]
    return users + [user for cluster in clusters for user in cluster["users"] or []]
