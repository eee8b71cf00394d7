"""Which module may import which: the contracts stand in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter.cli")

# Not in this process, where it would silence all loggers that there are.
LINT_IMPORTS = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def test_imports_go_down_and_in_no_circle() -> None:
    root = Path(__file__).parents[1]

    linted = subprocess.run([sys.executable, "-c", LINT_IMPORTS], cwd=root, capture_output=True, text=True, timeout=120)

    assert linted.returncode == 0, linted.stdout + linted.stderr
