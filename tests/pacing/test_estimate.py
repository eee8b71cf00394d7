"""The estimate of a run's duration matches what a budget does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiodbclient import Window
from aiodbclient._pacing.window import seconds_for

BOTH = [Window(250, 60.0), Window(5000, 3600.0)]


@pytest.mark.parametrize(
    ("requests", "used", "seconds"),
    [
        (0, (), 0.0),
        (250, (), 0.0),
        (251, (), 60.0),
        (5000, (), 1140.0),
        (5001, (), 3600.0),
        (10_000, (), 4740.0),  # 79 minutes, not the 63 of the hour's mean rate
        (10_001, (), 7200.0),
        (1, (250, 250), 60.0),
        (1, (0, 5000), 3600.0),
        (251, (0, 5000), 3660.0),
        (250, (1, 4750), 60.0),
        (251, (0, 4750), 3600.0),
        (1, (300, 6000), 3600.0),  # more than the limit, as after it was lowered
    ],
)
def test_both_windows_count_with_what_is_spent(requests: int, used: tuple[int, ...], seconds: float) -> None:
    assert seconds_for(requests, BOTH, used) == seconds


def test_no_windows_take_no_time() -> None:
    assert seconds_for(1_000_000, []) == 0.0


@given(
    requests=st.integers(0, 300),
    short=st.tuples(st.integers(1, 10), st.sampled_from([1.0, 2.0])),
    long=st.tuples(st.integers(1, 40), st.sampled_from([10.0, 12.0])),
)
def test_it_is_when_sliding_windows_let_the_last_request_go(
    requests: int, short: tuple[int, float], long: tuple[int, float]
) -> None:
    windows = [Window(*short), Window(*long)]
    sent: list[float] = []
    for _ in range(requests):
        now = sent[-1] if sent else 0.0
        for window in windows:
            if len(sent) >= window.limit:
                now = max(now, sent[-window.limit] + window.seconds)
        sent.append(now)

    estimate, last = seconds_for(requests, windows), sent[-1] if sent else 0.0
    assert estimate <= last + 1e-6
    fills_before_it_ends = (long[0] - 1) // short[0] * short[1] <= long[1] - short[1]
    if fills_before_it_ends:  # as the hour's window does: the shorter window is empty when there is room again
        assert estimate == pytest.approx(last)
