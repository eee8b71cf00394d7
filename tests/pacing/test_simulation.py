"""Clients, latency and other traffic on a server with its own count, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from beside_run import ROWS as ROWS_BESIDE_RUN
from pacing_table import ROWS, Figure

# The known weak spot: where the window is short, each wait that the API names ends in another 429 beside others.
KNOWN = {"beside one who spends half of 250 in 15 s: 429s": 0.21}


@pytest.mark.parametrize("row", [*ROWS, *ROWS_BESIDE_RUN], ids=lambda row: row.__name__)
def test_row_within_bounds(row: Callable[[], Iterator[Figure]]) -> None:
    """``benchmarks/limiters.py`` prints the table."""
    figures = list(row())
    assert figures
    assert not [figure for figure in figures if figure.ours > KNOWN.get(figure.name, figure.at_most)]
