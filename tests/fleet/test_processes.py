"""The proof of ``make bench-fleet`` with fewer and smaller runs: real processes, killed and left without Valkey."""

from __future__ import annotations

import pytest

from aiodbclient import Window
from benchmarks.fleet import run_fleet
from benchmarks.valkey_server import ValkeyServer


@pytest.mark.parametrize(
    ("kill", "restart", "ratio"),
    [(0, False, 1.5), (1, False, 2.0), (0, True, 2.0)],
    ids=["undisturbed", "killed", "restarted"],
)
async def test_a_fleet_keeps_to_one_budget_and_loses_nothing(
    valkey: ValkeyServer, kill: int, restart: bool, ratio: float
) -> None:
    figures = await run_fleet(total=120, workers=4, window=Window(40, 1.0), kill=kill, restart=restart)
    assert figures.lost == 0
    assert figures.throttled_share <= (0.05 if restart else 0.005)
    # Small windows on a busy machine: the benchmark measures how close it gets.
    assert figures.ratio < ratio
    assert figures.fairness < 3
