"""Rate limit headers are read if they are plausible, and ignored if not."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import formatdate

import pytest
from attrs import asdict
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from aiodbclient._headers import wait_after_429
from aiodbclient.rate_limiter import RateLimitStatus

RESET = 1444931833
GARBAGE = ["", " ", "many", "-1", "1_000", "1e3", "5000.0", "٣", "9" * 30, "9" * 5000, "nan", "inf", "0x10", "\x00"]


def test_the_documented_headers_are_read_whatever_their_case() -> None:
    headers = CIMultiDict({"RateLimit-Limit": "5000", "Ratelimit-Remaining": "4816", "ratelimit-reset": str(RESET)})
    assert RateLimitStatus.from_headers(headers) == RateLimitStatus(
        limit=5000, remaining=4816, reset=datetime(2015, 10, 15, 17, 57, 13, tzinfo=UTC)
    )


def test_no_headers_say_nothing() -> None:
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
