"""Pacing stays within its bounds under many limiters, in virtual time. ``benchmarks/limiters.py`` prints the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .table import ROWS, Figure

# The known weak spots, which the page on pacing names. While others leave no slot free, each wait that the API names
# ends in another 429. After an outage that 200 calls met at once, two requests are in flight at first.
KNOWN = {
    "beside one who spends half of 250 in 60 s: 429s": 0.35,
    "beside one who spends half of 250 in 15 s: 429s": 0.25,
    "429 for 3 s without a hint, 200 callers: longest call": 7.0,
    "429 for 6 s without a hint, 200 callers: longest call": 11.0,
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_row_within_bounds(row: Callable[[], Iterator[Figure]]) -> None:
    """Each figure of the row is at most its bound."""
    figures = list(row())
    assert figures
    assert not [figure for figure in figures if figure.ours > KNOWN.get(figure.name, figure.at_most)]
