"""Smaller runs of ``make bench-fleet``: real processes, with kills and without the server."""

from __future__ import annotations

import pytest

from aiodbclient import Window
from fleet import run_fleet


@pytest.mark.parametrize("server", ["postgres", "valkey"])
@pytest.mark.parametrize(
    ("kill", "away"),
    [
        pytest.param(0, 0.0, id="undisturbed", marks=pytest.mark.thorough),
        pytest.param(1, 0.0, id="killed"),
        pytest.param(0, 0.3, id="away", marks=pytest.mark.thorough),
    ],
)
async def test_a_fleet_keeps_to_one_budget_and_loses_nothing(
    request: pytest.FixtureRequest, server: str, kill: int, away: float
) -> None:
    request.getfixturevalue(f"{server}_url")  # skipped where the server is not installed
    figures = await run_fleet(
        total=120, workers=4, window=Window(40, 1.0), kill=kill, away=away, server=server, patience=5.0
    )
    assert figures.lost == 0
    # Small windows on a possibly busy machine. The benchmark measures how few are throttled with enough room.
    assert figures.throttled_share <= (0.25 if away else 0.1)
    assert figures.ratio < 3
    assert min(figures.shares) > 0
    assert figures.fairness < 6
