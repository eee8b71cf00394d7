"""The page about the provider has each assumption that ``doctor`` knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="needs the cli extra")

from aiodbclient._cli.doctor_findings import ASSUMPTIONS

FOLDER = Path(__file__).parents[2]
PAGE = (FOLDER / "docs" / "why" / "provider.md").read_text()
CELLS = [line.strip("| ").split(" | ") for line in PAGE.splitlines()]
ROWS = {row[0].strip("` "): row[1:] for row in CELLS if len(row) == 4}  # facts about servers have two cells


def test_the_page_has_a_row_for_each_assumption_and_no_other() -> None:
    assert [name for name in ROWS if name not in ("id", "---")] == [each.id for each in ASSUMPTIONS]


@pytest.mark.parametrize("assumption", ASSUMPTIONS, ids=lambda each: each.id)
def test_a_row_has_the_sentence_a_source_and_a_consequence(assumption: object) -> None:
    [each] = [each for each in ASSUMPTIONS if each is assumption]
    sentence, source, consequence = ROWS[each.id]
    assert sentence == each.sentence
    assert source
    assert consequence


def test_each_line_of_doctor_that_an_assumption_names_is_printed() -> None:
    files = [path for path in (FOLDER / "aiodbclient" / "_cli").glob("doctor*.py") if path.stem != "doctor_findings"]
    code = "".join(path.read_text() for path in files)  # without the assumptions themselves
    printed = {*re.findall(r'"([a-z ]+)"', code)} | {"TLS"}
    for each in ASSUMPTIONS:
        assert not each.check or each.check in printed, each
