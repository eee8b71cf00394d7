"""Smaller runs of ``make bench-fleet``: real processes, with kills and without Valkey."""

from __future__ import annotations

import pytest

from aiodbclient import Window
from fleet import run_fleet
from valkey_server import ValkeyServer


@pytest.mark.parametrize(
    ("kill", "restart", "ratio"),
    [
        pytest.param(0, False, 2.0, id="undisturbed", marks=pytest.mark.thorough),
        pytest.param(1, False, 3.0, id="killed"),
        pytest.param(0, True, 3.0, id="restarted", marks=pytest.mark.thorough),
    ],
)
async def test_a_fleet_keeps_to_one_budget_and_loses_nothing(
    valkey: ValkeyServer, kill: int, restart: bool, ratio: float
) -> None:
    figures = await run_fleet(
        total=120, workers=4, window=Window(40, 1.0), kill=kill, restart=restart, valkey_timeout=5.0
    )
    assert figures.lost == 0
    # Small windows on a possibly busy machine. The benchmark measures how few are throttled with enough room.
    assert figures.throttled_share <= (0.25 if restart else 0.1)
    assert figures.ratio < ratio
    assert min(figures.shares) > 0
    assert figures.fairness < 6
