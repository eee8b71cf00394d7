"""A server that is not Valkey, or has foreign data, counts as an outage, and raises no foreign error."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from valkey.asyncio import Valkey

from aiodbclient import Window, errors
from aiodbclient.shared_budget import SharedRateBudget
from valkey_server import ValkeyServer

from .conftest import MakeBudget
from .test_shared_outage import until_shared, warnings_in

Answer = Callable[[dict[str, Any]], bytes]


def honest(ask: dict[str, Any]) -> dict[str, Any]:
    """The script's reply if all requested slots are free."""
    return {
        "epoch": "a",
        "stale": False,
        "version": ask["version"],
        "now": str(round(time.monotonic() * 1e6)),
        "interactive": ask["interactive"],
        "bulk": ask["bulk"],
        "wait": 0,
        "waits": [0 for _ in ask["places"]] or {},
        "used": [1],
        "counted": [1],
        "in_flight": 1,
        "recovering": 0,
        "most": 1,
        "least": 0,
    }


NAMES = sorted(honest({"version": 0, "interactive": 0, "bulk": 0, "places": []}))
WINDOW: dict[str, Any] = {"changed": 1.0, "limit": 10, "level": 0, "since": 0.0, "sure": False, "seen": []}
FACTS: dict[str, Any] = {
    "windows": [WINDOW],
    "gate": {"changed": None, "until": None, "at_most": None, "strikes": 0},
    "last_answer": None,
}


def bulk_string(text: str) -> bytes:
    data = text.encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)


def raw(answer: bytes) -> Answer:
    return lambda ask: answer


def text(answer: str) -> Answer:
    return raw(bulk_string(answer))


def reply(**changed: Any) -> Answer:
    return lambda ask: bulk_string(json.dumps(honest(ask) | changed))


def without(name: str) -> Answer:
    return lambda ask: bulk_string(json.dumps({key: value for key, value in honest(ask).items() if key != name}))


def facts(shared: object) -> Answer:
    return reply(stale=True, interactive=0, bulk=0, facts=shared)


@asynccontextmanager
async def valkey_that_answers(scripts: Answer) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Yields its address and the received commands. ``scripts`` answers every ask; all else is OK."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readline():
                words: list[bytes] = []
                for _ in range(int(head[1:])):
                    length = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(length + 2))[:-2])
                got.append(words[0].upper())
                writer.write(scripts(json.loads(words[-1])) if got[-1] == b"EVALSHA" else b"+OK\r\n")
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"valkey://127.0.0.1:{server.sockets[0].getsockname()[1]}", got


async def use(answer: Answer) -> None:
    """Make three calls, one refused by the API, with a Valkey that answers this."""
    async with valkey_that_answers(answer) as (url, got):
        async with SharedRateBudget(url, [Window(10, 5.0)], fallback_share=0.5, timeout=1.0) as budget:
            for headers in ({"ratelimit-limit": "10", "ratelimit-remaining": "3"}, {}):
                await budget.acquire(max_wait=2.0)
                budget.observe(headers)
                budget.release()
            await budget.acquire(bulk=True, max_wait=2.0)
            assert await budget.throttle({"retry-after": "0.01"}) >= 0
            budget.release()
            assert (budget.snapshot().in_flight, budget.snapshot().waiting) == (0, 0)
        assert any(command.startswith(b"EVAL") for command in got)


async def test_the_normal_answers_of_this_tests_server_are_valid(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aiodbclient")
    await asyncio.wait_for(use(reply()), 10.0)
    await asyncio.wait_for(use(reply(facts=json.dumps(FACTS))), 10.0)
    assert not caplog.records


PROTOCOL = {
    "an HTTP server": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "no number": b":abc\r\n",
    "no length": b"$abc\r\n",
    "no count": b"*abc\r\n",
    "an unknown kind": b"@5\r\nhello\r\n",
    "bytes that are no text": b"$2\r\n\xff\xfe\r\n",
    "zeros": b"\x00" * 20 + b"\r\n",
    "an empty line": b"\r\n",
    "an error": b"-ERR so not\r\n",
    "an error of an unknown kind": b"-\r\n",
    "a script that is never there": b"-NOSCRIPT No matching script.\r\n",
    "nil": b"$-1\r\n",
    "a number": b":7\r\n",
    "a list": b"*2\r\n:1\r\n:2\r\n",
    "a list without end": b"*1\r\n" * 5000,
    "half a reply": b"$500\r\n{}",
}
REPLIES = {
    "no JSON": text("nonsense"),
    "nothing": text(""),
    "deep JSON": text("[" * 100_000),
    "a JSON list": text("[]"),
    "a JSON number": text("7"),
    "null": text("null"),
    "an empty object": text("{}"),
    "another memory, without a name": text('{"forgotten": true}'),
    "another memory, each time": text('{"forgotten": true, "epoch": "b"}'),
    "late, each time": text('{"late": true, "now": "1"}'),
    "late, without a time": text('{"late": true}'),
    "infinite": reply(now="1e999"),
    "not a number": reply(wait=float("nan")),
    "a number past all floats": reply(wait=10**400),
    "more slots than were asked for": reply(interactive=10**9),
    "fewer than none": reply(interactive=-1),
    "half a slot": reply(interactive=0.5),
    "too many windows": reply(used=[1, 2, 3]),
    "too few windows": reply(used={}),
    "no number of slots": reply(used=["x"]),
    "too many waits": reply(waits=[1, 2, 3]),
    "waits of no length": reply(waits=[None]),
    "waits that are no list": reply(waits=7),
    "facts that are no JSON": facts("nonsense"),
    "facts of no object": facts("[]"),
    "facts that are no text": facts(7),
    "facts of more windows": facts(json.dumps(FACTS | {"windows": [WINDOW, WINDOW]})),
    "facts of no limit": facts(json.dumps(FACTS | {"windows": [WINDOW | {"limit": "x"}]})),
    "facts of others without end": facts(
        json.dumps(FACTS | {"windows": [WINDOW | {"level": 1, "seen": [[0, 1, "x"]]}]})
    ),
}


@pytest.mark.parametrize(
    "answer",
    [
        *(
            pytest.param(answer, id=name)
            for name, answer in ({name: raw(answer) for name, answer in PROTOCOL.items()} | REPLIES).items()
        ),
        *(pytest.param(without(name), id=f"without {name}") for name in NAMES),
        *(pytest.param(reply(**{name: None}), id=f"{name} null") for name in NAMES),
    ],
)
async def test_nonsense_is_an_outage_that_is_logged_once(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aiodbclient")
    await asyncio.wait_for(use(answer), 10.0)
    logged = warnings_in(caplog)
    assert len(logged) == 1 or any("lost" in record.message for record in caplog.records), logged


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=40).map(lambda data: raw(data + b"\r\n"))
    | st.dictionaries(st.sampled_from([*NAMES, "facts", "forgotten", "late"]), anything, max_size=4).map(
        lambda changed: reply(**changed)
    )
    | anything.map(lambda shared: facts(json.dumps(shared)))
)
@example(reply(recovering=250_001))
def test_any_answer_raises_only_errors_of_this_package(answer: Answer) -> None:
    async def main() -> None:
        with suppress(errors.RateLimitError, errors.ConfigurationError):  # a made-up wait or refusal
            await asyncio.wait_for(use(answer), 10.0)

    asyncio.run(main())


async def test_spoilt_facts_are_written_again(
    make_budget: MakeBudget, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiodbclient")
    one, other = make_budget(), make_budget()
    for budget in (one, other):
        await budget.acquire()
        budget.release()
    client = Valkey.from_url(valkey.url, decode_responses=True)
    try:
        (key,) = await client.keys("aiodbclient:*:state")
        await client.hset(key, mapping={"facts": "nonsense", "version": "77"})
    finally:
        await client.aclose()
    await one.acquire()
    one.release()
    (warning,) = warnings_in(caplog)
    assert "facts that make no sense" in warning
    await until_shared(one, caplog)
    await other.acquire()
    other.release()
    assert len(warnings_in(caplog)) == 1
