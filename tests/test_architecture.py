"""Which module may import which: the contracts stand in pyproject.toml."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

cli = pytest.importorskip("importlinter.cli")


def test_imports_go_down_and_in_no_circle(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[1]
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", [str(root), *sys.path])

    broken = cli.lint_imports(no_cache=True)

    assert broken == 0, capsys.readouterr().out
