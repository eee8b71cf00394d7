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


def rows_of(text: str) -> list[list[str]]:
    """The rows of the tables in ``text``, without their titles."""
    lines = [line for line in text.splitlines() if line[:2] == "| " and line[:5] != "| ---"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if row[0] not in ("engine", "who")]


SHOWN = rows_of(PAGE)
SECTIONS = [section.partition("\n") for section in LIST.split("\n## ")[1:]]
LISTED = {title.removesuffix(" engines"): rows_of(body) for title, _, body in SECTIONS}


def test_each_row_of_the_page_has_a_test() -> None:
    assert {engine for engine, *_ in SHOWN} == LISTED.keys() == {"Both", "PostgreSQL", "MySQL"}
    for engine, rows in LISTED.items():
        tried = [what for of, what, _ in SHOWN if of == engine and what not in NEED_NONE]
        assert len(tried) > 1
        assert [what for _, what, _ in rows][: len(tried)] == tried


def test_each_row_of_the_list_names_a_test() -> None:
    rows = [row for rows in LISTED.values() for row in rows]
    assert len(rows) > 35
    assert [row for row in rows if "test_" not in row[2]] == []


def test_the_page_has_only_what_is_not_refused() -> None:
    assert [row for row in SHOWN if row[2].startswith("refused")] == []


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_the_list_names_is_there(name: str) -> None:
    assert f"def {name}(" in TESTS
