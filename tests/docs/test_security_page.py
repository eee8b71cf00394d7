"""Each row of the page about security is in tests/tenants/README.md. Its tests and those of tests/README.md exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
LIST = (ROOT / "tests" / "tenants" / "README.md").read_text()
CONTROLS = (ROOT / "tests" / "README.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+)`", LIST + CONTROLS)))
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
NEED_NONE = {"use up CPU, memory and disk"}


def rows_of(text: str) -> dict[str, list[list[str]]]:
    """The rows of each table of ``text`` that begins with ``who``, by the heading above it."""
    found: dict[str, list[list[str]]] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line[:2] == "| "]
        if rows and rows[0][0] == "who":
            found[title.removeprefix("What succeeds on ").replace("both", "Both")] = rows[2:]
    return found


def test_each_row_of_the_page_has_a_test() -> None:
    shown, listed = rows_of(PAGE), rows_of(LIST)
    assert shown.keys() == listed.keys() == {"Both engines", "PostgreSQL", "MySQL"}
    for engine, rows in shown.items():
        assert len(rows) > 3
        tried = [(who, what) for who, what, *_ in rows if what not in NEED_NONE]
        assert [(who, what) for who, what, *_ in listed[engine]][: len(tried)] == tried


def test_each_row_of_the_list_names_a_test() -> None:
    rows = [row for rows in rows_of(LIST).values() for row in rows]
    assert len(rows) > 35
    assert [row for row in rows if "test_" not in row[2]] == []


def test_the_page_has_only_what_is_not_refused() -> None:
    results = [row[2] for rows in rows_of(PAGE).values() for row in rows]
    assert [result for result in results if result.startswith("refused")] == []


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_the_list_names_is_there(name: str) -> None:
    assert f"def {name}(" in TESTS
