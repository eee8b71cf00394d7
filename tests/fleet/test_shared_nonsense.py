"""A server that is no server, or holds foreign data, counts as an outage, and raises no foreign error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Window
from aiodbclient._pacing.fleet import Fleet, Member, load
from aiodbclient._pacing.ledger import SlidingWindow
from aiodbclient.shared_budget import SharedRateBudget

from ..pacing.virtual_fleet import VirtualFleet, virtually
from .test_shared_budget import answer, granted_at_once
from .test_shared_outage import until_shared, warnings_in

AT = 1_700_000_000.0
MEMBER = Member(seen=AT, held=1, waiting=[2, 0], share=0.1, answers={5000: 1, 1000: 1})
WRITTEN = Fleet(SlidingWindow(100, 60.0), members={"a": MEMBER}).dump(AT, AT)
NONSENSE = {
    "a word": "nonsense",
    "spaces": "   ",
    "a list": "[]",
    "deep JSON": "[" * 100_000,
    "cut off": WRITTEN[:-10],
    "another form": WRITTEN.replace('"held":1', '"held":[]'),
    "a number without end": WRITTEN.replace('"held":1', '"held":Infinity'),
    "more requests in flight than can be": WRITTEN.replace('"held":1', '"held":1000000000'),
    "more answers than can be": WRITTEN.replace('"1000":1', '"1000":1000000000'),
    "less than nothing": WRITTEN.replace('"held":1', '"held":-1'),
    "more refusals than can be": WRITTEN.replace('"refusals":0', '"refusals":1000000000'),
    "one lane": WRITTEN.replace('"waiting":[2,0]', '"waiting":[2]'),
    "a share that is no number": WRITTEN.replace('"share":0.1', '"share":NaN'),
    "something else": '{"a": 1}',
}


@pytest.mark.parametrize("text", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_seen(text: str) -> None:
    assert text != WRITTEN
    assert load(WRITTEN, AT, AT) is not None
    assert load(text, AT, AT) is None


@given(st.text() | st.binary().map(lambda read: read.decode("latin-1")))
def test_no_other_text_is_taken_for_that_of_a_budget(text: str) -> None:
    assert load(text, AT, AT) is None


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
async def test_a_process_of_another_version_beside_this_one(
    fleet: VirtualFleet, caplog: pytest.LogCaptureFixture
) -> None:
    one = await fleet.make(20, fallback_share=0.25)
    await answer(one, 3)
    newer = await fleet.known()
    newer["more"] = {"of": "a later version"}
    newer["hour"]["more"] = 1
    await fleet.write(json.dumps(newer))
    await answer(one)  # a field more is nothing to fear
    assert not warnings_in(caplog)

    await fleet.write(json.dumps(newer | {"members": "in another form"}))
    await one.acquire()  # by its share
    (warning,) = warnings_in(caplog)
    assert "nonsense" in warning
    one.release()


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
