"""A server that is no server, or holds foreign data, counts as an outage, and raises no foreign error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiodbclient import Window
from aiodbclient._pacing.fleet import Fleet, Member, NewerError, NonsenseError, load
from aiodbclient.shared_budget import SharedRateBudget

from ..pacing.virtual_fleet import VirtualFleet, now, virtually
from .test_shared_budget import answer, granted_at_once
from .test_shared_outage import until_shared, warnings_in

WINDOWS = Window(10, 60.0), Window(100, 600.0)
AT = 1_700_000_000.0


def state() -> dict[str, Any]:
    """What a fleet wrote: two answers, a request in flight and one process that waits."""
    written = Fleet.of(WINDOWS)
    written.members["a"] = Member(seen=AT, held=1, interactive=2, share=0.1, answers=[5000, 1, 1000, 1])
    decoded: dict[str, Any] = json.loads(written.dump())
    return decoded


def without(path: str) -> dict[str, Any]:
    changed = state()
    *way, last = path.split(".")
    place = changed
    for name in way:
        place = place[name]
    del place[last]
    return changed


def with_(path: str, value: object) -> dict[str, Any]:
    changed = state()
    *way, last = path.split(".")
    place = changed
    for name in way:
        place = place[name]
    place[last] = value
    return changed


NONSENSE = {
    "no JSON": "nonsense",
    "deep JSON": "[" * 100_000,
    "too long": json.dumps(state()) + " " * 4_000_000,
    "a list": "[]",
    "a number": "7",
    "null": "null",
    "an empty object": "{}",
    "a time that is none": json.dumps(with_("members.a.seen", "now")),
    "a time without end": json.dumps(with_("members.a.seen", 10**400)),
    "an infinite time": json.dumps(state()).replace(f'"seen": {AT}', '"seen": 1e999'),
    "not a number": json.dumps(with_("members.a.share", float("nan"))),
    "half an answer": json.dumps(with_("members.a.answers", [1])),
    "an answer after the report": json.dumps(with_("members.a.answers", [-5, 1])),
    "more answers than memory": json.dumps(with_("members.a.answers", [5, 10**12])),
    "a text of answers": json.dumps(with_("members.a.answers", "12")),
    "more requests than memory": json.dumps(with_("members.a.held", 10**12)),
    "a negative number": json.dumps(with_("members.a.held", -1)),
    "true for a number": json.dumps(with_("members.a.held", True)),
    "members in a list": json.dumps(with_("members", [1])),
    "no limit": json.dumps(with_("token.limit", 0)),
    "a gate of text": json.dumps(with_("token.gate", "closed")),
    "no count of others": json.dumps(with_("token.others", "many")),
    **{
        f"without {path}": json.dumps(without(path))
        for path in ("format", "members", "token", "token.limit", "token.gate")
    },
}


@pytest.mark.parametrize("text", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_seen(text: str) -> None:
    load(json.dumps(state()), WINDOWS, AT)
    with pytest.raises(NonsenseError):
        load(text, WINDOWS, AT)


@virtually
async def test_nonsense_is_written_over_with_what_was_known_before(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = [await fleet.make(20, fallback_share=0.05) for _ in range(2)]
    await answer(one, 8)
    await answer(other, 8)
    await fleet.write("nonsense")
    assert await granted_at_once(other, 9) == 0
    (warning,) = warnings_in(caplog)
    assert "nonsense" in warning
    await until_shared(other, caplog)
    await asyncio.sleep(1.0)
    await granted_at_once(one, 0)
    assert await granted_at_once(one, 9) + await granted_at_once(other, 9) <= 4
    assert len(warnings_in(caplog)) == 1


@virtually
async def test_a_process_that_finds_nonsense_first_goes_on(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture
) -> None:
    await fleet.write("[]")
    budget = await fleet.make(20)
    await answer(budget)
    await until_shared(budget, caplog)
    assert len(warnings_in(caplog)) == 1


@virtually
async def test_what_somebody_else_writes_stops_nobody_for_longer_than_the_windows(fleet: VirtualFleet) -> None:
    budget, _ = await fleet.connect(*WINDOWS)
    await answer(budget)
    hostile = json.loads(await fleet.read())
    (mine,) = hostile["members"]
    hostile["token"]["others_until"] = 1e12
    hostile["token"]["others"] = hostile["token"]["gate"]["refusals"] = 10**9
    hostile["token"]["gate"]["until"] = hostile["token"]["gate"]["later"] = 1e12
    hostile["members"][mine] |= {"seen": 1e12}
    hostile["members"]["x"] = hostile["members"][mine] | {"held": 100, "interactive": 10**9, "share": 9.0}
    hostile["members"]["x"]["answers"] = [0, 50]
    await fleet.write(json.dumps(hostile))
    started = now()
    await budget.acquire()
    assert now() - started <= 600.0 + 60.0


@virtually
async def test_a_process_of_another_version_beside_this_one(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture
) -> None:
    one = await fleet.make(20, fallback_share=0.25)
    await answer(one, 3)
    newer = json.loads(await fleet.read())
    newer["more"] = {"of": "a later version"}
    newer["token"]["more"] = 1
    await fleet.write(json.dumps(newer))
    await answer(one)  # a field more is nothing to fear
    assert not warnings_in(caplog)

    newer = json.loads(await fleet.read()) | {"format": 2, "members": "in another form"}
    await fleet.write(json.dumps(newer))
    await one.acquire()  # by its share
    assert json.loads(await fleet.read()) == newer
    (warning,) = warnings_in(caplog)
    assert "later version" in warning
    one.release()
    with pytest.raises(NewerError):
        load(json.dumps(newer), WINDOWS, AT)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PATHS = ["format", "members", "token", "members.a", *(f"members.a.{name}" for name in state()["members"]["a"])]
PATHS += [f"token.{name}" for name in state()["token"]]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PATHS), anything), max_size=3))
def test_any_text_is_a_state_or_nonsense(changes: list[tuple[str, object]]) -> None:
    changed: Any = state()
    for path, value in changes:
        *way, last = path.split(".")
        place = changed
        for name in way:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = value
    try:
        read = load(json.dumps(changed), WINDOWS, AT)
    except (NonsenseError, NewerError):
        return
    load(read.dump(), WINDOWS, AT)


# What answers instead of a Valkey.

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
    "a text and no time": b"*2\r\n$0\r\n\r\n:2\r\n",
    "a time that is none": b"*2\r\n$0\r\n\r\n*2\r\n$1\r\nx\r\n$1\r\ny\r\n",
    "a list without end": b"*1\r\n" * 5000,
    "half an answer": b"$500\r\n{}",
}


@asynccontextmanager
async def server_that_answers(scripts: bytes) -> AsyncIterator[int]:
    """Yields its port. ``scripts`` answers every script; all else is OK."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readline():
                words = list[bytes]()
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                writer.write(scripts if words[0].upper().startswith(b"EVAL") else b"+OK\r\n")
                await writer.drain()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def use(url: str) -> None:
    """Use a budget in most ways."""
    async with SharedRateBudget(url, [Window(10, 5.0)], fallback_share=0.5, timeout=0.3) as budget:
        for headers in ({"ratelimit-limit": "10", "ratelimit-remaining": "3"}, {}):
            await budget.acquire(max_wait=30.0)
            budget.observe(headers)
            budget.release()
        await budget.acquire(bulk=True, max_wait=30.0)
        assert await budget.throttle({"retry-after": "0.01"}) >= 0
        budget.release()
        assert (budget.snapshot().in_flight, budget.snapshot().waiting) == (0, 0)


@pytest.mark.parametrize("answered", PROTOCOL.values(), ids=PROTOCOL)
async def test_a_server_that_is_no_valkey_is_an_outage(answered: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with server_that_answers(answered) as port:
        await asyncio.wait_for(use(f"valkey://127.0.0.1:{port}"), 60.0)
    assert len(warnings_in(caplog)) == 1


@pytest.mark.parametrize("answered", [b"", b"E", b"N", b"S", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 50])
async def test_a_server_that_is_no_postgresql_is_an_outage(answered: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(answered)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.wait_for(use(f"postgresql://me:hunter2@127.0.0.1:{port}/db"), 60.0)
    assert len(warnings_in(caplog)) == 1
    assert "hunter2" not in caplog.text
