"""The limits are sliding windows: each request counts for a full window."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._access import TokenLimiter

from .conftest import Clock, caller

windows = st.builds(Window, limit=st.integers(1, 4), seconds=st.sampled_from([1.0, 2.0, 5.0, 60.0]))


@given(st.lists(windows, min_size=1, max_size=3), st.lists(st.integers(0, 2000), max_size=60))
def test_window_holds_exactly_its_limit(limits: list[Window], steps: list[int]) -> None:
    limiter, accepted, now = TokenLimiter(limits), list[float](), 1000.0
    longest = max(limits, key=lambda window: window.seconds)
    for step in steps:
        now += step / 1024  # floats represent this exactly
        room = all(sum(now - at < window.seconds for at in accepted) < window.limit for window in limits)
        let_in, headers = limiter.admit(now, now)
        assert let_in is room
        if let_in:
            accepted.append(now)
        still = [at for at in accepted if now - at < longest.seconds]
        # of equally long windows, any may be reported
        if let_in:
            assert int(headers["ratelimit-limit"]) - int(headers["ratelimit-remaining"]) == len(still)
        else:
            assert headers["ratelimit-remaining"] == "0"
        assert 0 <= int(headers["ratelimit-reset"]) - (still[0] + longest.seconds) < 1


@given(st.integers(1, 20), st.integers(0, 900))
def test_retry_after_is_end_of_oldest(limit: int, spread: int) -> None:
    limiter = TokenLimiter([Window(limit, 1.0), Window(1000, 100.0)])
    now = 50.0
    for n in range(limit):
        now = 50.0 + n * spread / 1000 / limit
        assert limiter.admit(now, 0.0)[0]
    let_in, headers = limiter.admit(now, 0.0)
    assert not let_in
    wait = float(headers["retry-after"])
    assert 0 < wait <= 1.0
    assert not limiter.admit(now + wait - 0.002, 0.0)[0]
    assert limiter.admit(now + wait, 0.0)[0]


def test_headers_of_each_answer() -> None:
    """A refusal by the minute names whole seconds, one by the hour only the reset."""
    limiter = TokenLimiter([Window(2, 60.0), Window(4, 3600.0)])
    answers = [limiter.admit(at, at) for at in (0.0, 1.0, 2.5, 61.0, 62.0, 63.0)]
    assert [accepted for accepted, _ in answers] == [True, True, False, True, True, False]
    assert [headers["ratelimit-remaining"] for _, headers in answers] == ["3", "2", "0", "1", "0", "0"]
    assert [headers.get("retry-after") for _, headers in answers] == [None, None, "58", None, None, None]
    assert answers[-1][1] == {"ratelimit-limit": "4", "ratelimit-remaining": "0", "ratelimit-reset": "3600"}


async def test_the_documented_limits_are_the_default(clock: Clock) -> None:
    """A request is accepted again after the time that the refusal names."""
    async with Sandbox() as sandbox, caller(sandbox) as call:
        before = time.time()
        answers = [await call("GET", "/v2/databases") for _ in range(251)]
        assert [answer.status for answer in answers] == [200] * 250 + [429]
        assert answers[0].headers["ratelimit-limit"] == "5000"
        assert answers[0].headers["ratelimit-remaining"] == "4999"
        assert before + 3600 <= int(answers[0].headers["ratelimit-reset"]) <= time.time() + 3601
        refused = answers[-1]
        assert refused.json["id"] == "too_many_requests"
        assert refused.headers["ratelimit-limit"] == "5000"
        assert refused.headers["ratelimit-remaining"] == "0"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert sandbox.counts["clusters.list", 429] == 1
        clock.ahead += float(refused.headers["retry-after"])
        assert (await call("GET", "/v2/databases")).status == 200


async def test_each_token_has_limits_of_its_own() -> None:
    async with Sandbox(windows=[Window(2, 60.0), Window(3, 3600.0)]) as sandbox, caller(sandbox) as call:
        other = sandbox.add_token()
        for token in (sandbox.token, other):
            answers = [await call("GET", "/v2/databases", token=token) for _ in range(3)]
            assert [answer.status for answer in answers] == [200, 200, 429]
            assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0"]


async def test_refused_tokens_count_nowhere() -> None:
    async with Sandbox(windows=[Window(1, 60.0)]) as sandbox, caller(sandbox) as call:
        assert (await call("GET", "/v2/databases", token="wrong")).status == 401
        assert (await call("GET", "/v2/databases")).status == 200


async def test_no_windows_no_limit_and_no_headers() -> None:
    async with Sandbox(windows=[]) as sandbox, caller(sandbox) as call:
        answers = [await call("GET", "/v2/databases") for _ in range(300)]
        assert {answer.status for answer in answers} == {200}
        assert not any(header.startswith("ratelimit") for header in answers[0].headers)
