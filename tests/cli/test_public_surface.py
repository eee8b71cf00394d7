"""The command uses only the public names of the package, as your program would."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from aiodbclient import _cli as cli

FOLDER = Path(cli.__file__).parent


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.py"))])
def test_the_command_imports_nothing_private(path: Path) -> None:
    tree = ast.walk(ast.parse(path.read_text()))
    above = [node for node in tree if isinstance(node, ast.ImportFrom) and node.level > 1]

    modules = {part for node in above for part in (node.module or "").split(".")}
    names = {imported.name for node in above for imported in node.names}

    assert not [name for name in modules | names if is_private(name)]
