"""What a 429 does: what its headers say, whose calls wait, for how long, and how many are in flight afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from email.utils import formatdate

import pytest
from attrs import asdict
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from aiodbclient import RateLimiter
from aiodbclient._headers import wait_after_429
from aiodbclient._pacing.cooldown import ConcurrencyLimit, Cooldown
from aiodbclient._pacing.limiter import Slot
from aiodbclient.errors import MaxWaitError
from aiodbclient.rate_limiter import RateLimitStatus, Window

from .world import VirtualLoop, virtual

RESET = 1444931833
GARBAGE = ["", " ", "many", "-1", "1_000", "1e3", "5000.0", "٣", "9" * 30, "9" * 5000, "nan", "inf", "0x10", "\x00"]


def test_the_documented_headers_are_read_whatever_their_case() -> None:
    headers = CIMultiDict({"RateLimit-Limit": "5000", "Ratelimit-Remaining": "4816", "ratelimit-reset": str(RESET)})
    assert RateLimitStatus.from_headers(headers) == RateLimitStatus(
        limit=5000, remaining=4816, reset=datetime(2015, 10, 15, 17, 57, 13, tzinfo=UTC)
    )
    assert RateLimitStatus.from_headers({"content-type": "application/json"}) is None


@pytest.mark.parametrize("garbage", GARBAGE)
def test_one_unreadable_header_does_not_hide_the_others(garbage: str) -> None:
    good = {"limit": "5000", "remaining": "1", "reset": str(RESET)}
    for name in good:
        headers = {f"ratelimit-{each}": text for each, text in (good | {name: garbage}).items()}
        status = RateLimitStatus.from_headers(headers)
        assert status is not None
        assert [each for each, value in asdict(status).items() if value is None] == [name]


@given(st.dictionaries(st.sampled_from(["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"]), st.text()))
def test_no_text_makes_it_raise(headers: dict[str, str]) -> None:
    status = RateLimitStatus.from_headers(headers)
    if status is not None and status.reset is not None:
        assert status.reset.tzinfo is UTC


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "3600"}, 3600.0),
        ({"retry-after": formatdate(RESET + 20, usegmt=True)}, 20.0),
        ({"retry-after": "7", "ratelimit-reset": str(RESET + 40)}, 7.0),
        ({"ratelimit-reset": str(RESET + 40)}, 40.0),
        ({"retry-after": "86400", "ratelimit-reset": str(RESET + 40)}, 3600.0),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "+7"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "soon", "ratelimit-reset": str(RESET + 40)}, 40.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": str(RESET + 40)}, 40.0),
        ({"ratelimit-remaining": "4990", "ratelimit-reset": str(RESET + 3500)}, None),
        ({"retry-after": "0", "ratelimit-remaining": "4990", "ratelimit-reset": str(RESET + 3500)}, None),
        ({"ratelimit-reset": str(RESET - 40)}, None),
        ({"ratelimit-reset": str(RESET + 4000)}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": formatdate(RESET - 20, usegmt=True)}, None),
        ({}, None),
    ],
)
def test_wait_by_date_of_429(headers: dict[str, str], wait: float | None) -> None:
    assert wait_after_429({"date": formatdate(RESET, usegmt=True), **headers}) == wait


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of the process cannot be changed here")
def test_date_without_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        for later in ("Thu, 15 Oct 2015 17:57:33 -0000", "Thu, 15 Oct 2015 19:57:33 +0200"):
            headers = {"date": formatdate(RESET, usegmt=True), "retry-after": later}
            assert wait_after_429(headers) == 20.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_reset_without_date_by_our_clock() -> None:
    wait = wait_after_429({"ratelimit-reset": str(int(time.time()) + 100)})
    assert wait == pytest.approx(100, abs=2)


@given(st.dictionaries(st.sampled_from(["retry-after", "ratelimit-reset", "date"]), st.text()))
def test_wait_at_most_an_hour(headers: dict[str, str]) -> None:
    wait = wait_after_429(headers)
    assert wait is None or 0 < wait <= 3600


@pytest.fixture
def full_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)


async def take(limiter: RateLimiter, count: int) -> list[Slot]:
    return [await limiter.acquire(max_wait=0.0) for _ in range(count)]


async def take_at_once(limiter: RateLimiter, many: int) -> list[Slot]:
    """Make ``many`` calls that do not wait, and return the slots that they got."""
    given = await asyncio.gather(*(limiter.acquire(max_wait=0.0) for _ in range(many)), return_exceptions=True)
    assert {type(each) for each in given} <= {Slot, MaxWaitError}
    return [each for each in given if isinstance(each, Slot)]


def succeed(limiter: RateLimiter, slot: Slot) -> None:
    limiter.release(slot, accepted=True)


def refuse(limiter: RateLimiter, slot: Slot, after: str | None = None) -> float:
    wait = limiter.refuse(slot, {} if after is None else {"retry-after": after})
    limiter.release(slot)
    return wait


@virtual
async def test_nothing_limits_before_a_429(loop: VirtualLoop) -> None:
    """Before the first 429 the windows alone bound what is in flight."""
    assert len(await take_at_once(RateLimiter(), 400)) == 250
    assert len(await take_at_once(RateLimiter([]), 10_000)) == 10_000
    assert loop.timers() == 0


@virtual
async def test_lone_429_delays_its_call(loop: VirtualLoop) -> None:
    """A lone 429 delays its own call for what it names; other calls go on, and it keeps its place."""
    limiter, started = RateLimiter(), loop.time()
    slots = await take(limiter, 3)
    succeed(limiter, slots[0])
    assert refuse(limiter, slots[1], "5") == 5.0
    await limiter.acquire(max_wait=0.0)
    number = slots[1].number
    again = await limiter.acquire(slots[1])
    assert again.number == number
    assert loop.time() - started == pytest.approx(5.0, abs=0.01)


@virtual
async def test_second_429_stops_all(loop: VirtualLoop) -> None:
    """The second 429 in a row starts a cooldown for all calls; a later one can extend it by what it names."""
    limiter, started = RateLimiter(), loop.time()
    first, second, third, fourth, old = await take(limiter, 5)
    refuse(limiter, first, "1")
    refuse(limiter, second, "5")
    succeed(limiter, old)  # it was sent before the cooldown, so it ends no row
    with pytest.raises(MaxWaitError) as caught:
        await limiter.acquire(max_wait=4.0)
    assert caught.value.retry_after == pytest.approx(5.0)
    refuse(limiter, third)  # names no time
    assert limiter.snapshot().next_slot == pytest.approx(5.0)
    refuse(limiter, fourth, "7")
    await limiter.acquire()
    assert loop.time() - started == pytest.approx(7.0, abs=0.01)


@virtual
async def test_success_ends_the_row(loop: VirtualLoop) -> None:
    """A success between two 429s makes both lone ones."""
    limiter = RateLimiter()
    for _ in range(5):
        refused, accepted = await take(limiter, 2)
        refuse(limiter, refused, "600")
        succeed(limiter, accepted)
    assert limiter.snapshot().next_slot == 0.0


@virtual
async def test_one_tries_after_cooldown(loop: VirtualLoop) -> None:
    """After the cooldown one request tries, and each success lets one more be in flight."""
    limiter = RateLimiter()
    for slot in (await take(limiter, 16))[:2]:
        refuse(limiter, slot, "5")
    await asyncio.sleep(5.0)
    sizes = list[int]()
    slots = list[Slot]()
    for _ in range(4):
        slots = await take_at_once(limiter, 20)
        sizes.append(len(slots))
        for slot in slots:
            succeed(limiter, slot)
    assert sizes == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("bursts", "at_most"),
    [
        ([range(16, 4, -1)], [4, 8, 16]),
        ([range(16, 4, -1), range(10, 9, -1)], [9, 18, 36]),  # the newest burst
        ([range(16, 1, -1)], [2, 4, 8]),  # one was accepted, and two requests go
        ([range(1, 0, -1), range(200, 0, -1)], [64, 64, 64]),  # refused whole: they say nothing
    ],
)
def test_window_is_what_was_accepted(bursts: list[range], at_most: list[int]) -> None:
    """After a cooldown one goes, then as many as the API accepted of the burst, which doubles in eight seconds."""
    limit = ConcurrencyLimit()
    for at, burst in enumerate(bursts):
        for in_flight in burst:
            limit.refuse(at * 20.0, in_flight, at * 20.0 + 1.0)
    limit.restart()
    assert limit.at_most(100.0) == 1
    for _ in range(63):
        limit.succeed(100.0)
    assert [limit.at_most(now) for now in (100.0, 108.0, 116.0)] == at_most


@pytest.mark.usefixtures("full_jitter")
@virtual
async def test_named_waits_grow_if_too_short(loop: VirtualLoop) -> None:
    """If tries that waited for what was named are refused again, the waits grow with the length of the row."""
    limiter, started, waits = RateLimiter(), loop.time(), list[float]()
    slot, other = await take(limiter, 2)
    refuse(limiter, other, "2")
    while loop.time() - started < 400.0:
        waits.append(refuse(limiter, slot, "2"))
        slot = await limiter.acquire(slot)
    assert waits[:5] == [2.0] * 5  # a part of the first seconds is shorter than what is named
    row, longer = 10.0, list[float]()
    for _ in waits[5:]:
        longer.append(max(2.0, 0.22 * row))
        row += longer[-1]
    assert waits[5:] == pytest.approx(longer, abs=0.01)
    assert waits[-1] > 60.0


def test_old_429_waits_as_named() -> None:
    """A late 429 to a request from before the cooldown does not show that the waits that were named are too short."""
    cooldown = Cooldown()
    for _ in range(2):
        cooldown.refuse(0.0, 1.0, 0.0)
    assert cooldown.refuse(0.0, 1.0, 100.0) == (1.0, False)


@pytest.mark.usefixtures("full_jitter")
def test_unnamed_waits_grow_to_minutes() -> None:
    """Without a time in the 429 the waits grow by a fifth, after ten by a half, to five minutes, until a success."""
    cooldown, now, waits = Cooldown(), 0.0, list[float]()
    for _ in range(26):
        waits.append(cooldown.refuse(now, None, now)[0])
        now += waits[-1]
    assert waits == pytest.approx([1.2 ** min(n, 10) * 1.5 ** max(0, n - 10) for n in range(20)] + [300.0] * 6)
    cooldown.succeed()
    assert cooldown.refuse(now, None, now)[0] == 1.0


@pytest.mark.parametrize("after", [None, "1"])
@virtual
async def test_ban_that_refusals_renew_ends(loop: VirtualLoop, after: str | None) -> None:
    """A limiter bans for a minute from each request that it refuses, and names no wait or one that is too short."""
    limiter, started = RateLimiter(), loop.time()
    slot, other = await take(limiter, 2)
    refuse(limiter, other, after)
    banned_until = started + 60.0
    while loop.time() < banned_until:
        banned_until = loop.time() + 60.0
        refuse(limiter, slot, after)
        slot = await limiter.acquire(slot)
    assert loop.time() - started < 3600.0


def test_unnamed_waits_are_jittered() -> None:
    """The jitter is in the upper half of the wait."""
    waits = [Cooldown().refuse(0.0, None, 0.0)[0] for _ in range(200)]
    assert 0.5 <= min(waits) < 0.6
    assert 0.9 < max(waits) <= 1.0


@pytest.mark.parametrize(("named", "waits"), [("90", 90.0), ("3000", 3000.0), ("7200", 3600.0)])
@virtual
async def test_retry_after_heeded_up_to_an_hour(loop: VirtualLoop, named: str, waits: float) -> None:
    """``retry-after`` is heeded up to an hour, also beyond the longest window."""
    limiter, started = RateLimiter([Window(250, 60.0)]), loop.time()
    for slot in await take(limiter, 2):
        refuse(limiter, slot, named)
    await limiter.acquire()
    assert loop.time() - started == pytest.approx(waits, abs=0.01)


@virtual
async def test_refused_try_goes_to_the_end(loop: VirtualLoop) -> None:
    """A call whose try after the cooldown is refused goes behind the others of its lane, so it holds up nobody."""
    limiter, went = RateLimiter(), list[str]()

    async def call(name: str, slot: Slot, *, refused: bool) -> None:
        for more in (refused, False):
            slot = await limiter.acquire(slot)
            went.append(name)
            if not more:
                succeed(limiter, slot)
                return
            refuse(limiter, slot, "1")

    slots = await take(limiter, 3)
    for slot in slots:
        refuse(limiter, slot, "1")
    await asyncio.gather(*(call(name, slot, refused=name == "a") for name, slot in zip("abc", slots, strict=True)))
    assert went == ["a", "b", "c", "a"]


@virtual
async def test_hanging_requests_block_nobody(loop: VirtualLoop) -> None:
    """A request without a response for a second holds up no other call."""
    limiter = RateLimiter()
    for slot in await take(limiter, 2):
        refuse(limiter, slot, "5")
    await asyncio.sleep(5.0)
    await limiter.acquire(max_wait=0.0)  # hangs
    started = loop.time()
    with pytest.raises(MaxWaitError, match="no slot within max_wait: calls in flight have all of them"):
        await limiter.acquire(max_wait=0.5)
    await limiter.acquire()
    assert loop.time() - started == pytest.approx(1.0, abs=0.01)


@virtual
async def test_429_fails_only_who_is_late(loop: VirtualLoop) -> None:
    """A 429 fails at once the calls that would then wait too long, each with its own error."""
    limiter, started = RateLimiter(), loop.time()
    slots = await take(limiter, 250)
    refuse(limiter, slots[0], "90")
    await take(limiter, 1)
    hasty = [asyncio.create_task(limiter.acquire(max_wait=61.0)) for _ in range(2)]
    patient = asyncio.create_task(limiter.acquire(max_wait=91.0))
    await asyncio.sleep(0)
    refuse(limiter, slots[1], "90")
    errors = await asyncio.gather(*hasty, return_exceptions=True)
    assert [type(error) for error in errors] == [MaxWaitError] * 2
    assert errors[0] is not errors[1]
    assert loop.time() == started
    await patient
    assert loop.time() - started == pytest.approx(90.0, abs=0.01)
