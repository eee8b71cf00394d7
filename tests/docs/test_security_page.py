"""Each test that the page about security names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(test_\w+)`", PAGE)
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests" / "tenants").glob("test_*.py"))


def test_each_row_names_a_test() -> None:
    rows = [
        line for line in PAGE.partition("## Who may do what on PostgreSQL")[2].splitlines() if line.startswith("| ")
    ]
    assert len(rows) > 30
    assert [row for row in rows if "test_" not in row] == [
        "| who | tries to | result | tests |",
        "| --- | --- | --- | --- |",
    ] * 2


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_the_page_names_is_there(name: str) -> None:
    assert f"def {name}(" in TESTS
