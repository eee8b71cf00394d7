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


def test_headers_of_each_answer() -> None:
    """A refusal by the minute names whole seconds, one by the hour only the reset."""
    limiter = TokenLimiter([Window(2, 60.0), Window(4, 3600.0)])
    answers = [limiter.admit(at, at) for at in (0.0, 1.0, 2.5, 61.0, 62.0, 63.0)]
    assert [accepted for accepted, _ in answers] == [True, True, False, True, True, False]
    assert [headers["ratelimit-remaining"] for _, headers in answers] == ["3", "2", "0", "1", "0", "0"]
    assert [headers.get("retry-after") for _, headers in answers] == [None, None, "58", None, None, None]
    brief = TokenLimiter([Window(1, 1.0)])
    assert [brief.admit(at, 0.0)[1].get("retry-after") for at in (50.0, 50.1234)] == [None, "0.877"]
    assert answers[-1][1] == {"ratelimit-limit": "4", "ratelimit-remaining": "0", "ratelimit-reset": "3600"}


async def test_the_documented_limits_are_the_default(clock: Clock) -> None:
    """Each token has its own. A request is accepted again after the time that the refusal names."""
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
        assert (await call("GET", "/v2/databases", token=sandbox.add_token())).status == 200
        clock.ahead += float(refused.headers["retry-after"])
        assert (await call("GET", "/v2/databases")).status == 200
