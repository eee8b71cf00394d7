"""What a progress bar promises, held against a run whose end is known."""

from __future__ import annotations

from bisect import bisect_right

import pytest

pytest.importorskip("typer", reason="needs the cli extra")

from aiodbclient import Window
from aiodbclient.cli.progress import seconds_left

MINUTE, HOUR = Window(250, 60.0), Window(5000, 3600.0)


def paced(requests: int, latency: float) -> list[float]:
    """When each request is answered, if requests go one by one, as early as the documented windows allow."""
    sent: list[float] = []
    now = 0.0
    for number in range(requests):
        for window in (MINUTE, HOUR):
            if number >= window.limit:
                now = max(now, sent[number - window.limit] + window.seconds)
        sent.append(now)
        now += latency
    return [at + latency for at in sent]


@pytest.mark.parametrize(
    ("names", "latency"),
    [(100, 0.02), (1000, 0.02), (1000, 0.3), (1000, 1.0), (6000, 0.02)],
    ids=["one burst", "bursts", "slower bursts", "slower than the limit", "longer than an hour"],
)
def test_a_bar_promises_the_end_within_a_window(names: int, latency: float) -> None:
    answered = paced(2 * names, latency)
    end = answered[-1]
    for done in range(1, names, 7):
        now = answered[2 * done - 1]
        taken = [(each, 2 * done - bisect_right(answered, now - each.seconds)) for each in (MINUTE, HOUR)]

        left = seconds_left(names - done, done / now, 2.0, taken)

        # Slots become free in bursts too: what is promised between two of them may be off by a window.
        longest = max(each.seconds for each in (MINUTE, HOUR) if 2 * names > each.limit or each is MINUTE)
        assert end - now - longest <= left <= end - now + longest


def test_names_that_took_no_request_are_promised_by_their_pace() -> None:
    assert seconds_left(50, a_second=10.0, requests=0.0, windows=[(MINUTE, 250), (HOUR, 250)]) == 5.0
    assert seconds_left(50, a_second=10.0, requests=2.0, windows=[]) == 5.0
