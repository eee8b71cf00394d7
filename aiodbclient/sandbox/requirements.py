"""Packages of the extras."""

from __future__ import annotations

from importlib.util import find_spec


def require(module: str, extra: str) -> None:
    """Raise RuntimeError that says what to install where ``module`` is missing."""
    if find_spec(module) is None:
        raise RuntimeError(f"this needs {module}: pip install 'aiodbclient[{extra}]'")
