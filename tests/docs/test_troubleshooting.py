"""The troubleshooting page has the messages of the code, and all errors that operators meet."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text()
QUOTED = re.findall(r"^> (.+)$", PAGE, re.MULTILINE)
# Messages of PostgreSQL itself.
OF_THE_SERVER = {
    "password authentication failed for user",
    "permission denied for database",
    "too many connections for database",
}


def texts() -> list[str]:
    """Each string in the code, without its placeholders."""
    found = list[str]()
    for path in (ROOT / "aiodbclient").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "\0"
                        for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


TEXTS = texts()


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_is_one_of_the_code(message: str) -> None:
    assert message in OF_THE_SERVER or any(message in text for text in TEXTS)


@pytest.mark.parametrize(
    "error", ["StoreError", "GrantError", "ClaimLostError", "RotationPendingError", "ConflictError", "NotFoundError"]
)
def test_an_error_that_operators_meet_has_a_section(error: str) -> None:
    assert re.search(rf"^## .*\b{error}\b", PAGE, re.MULTILINE)
