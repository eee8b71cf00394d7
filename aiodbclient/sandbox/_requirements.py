"""Check that the package of an extra is installed."""

from __future__ import annotations

from importlib.util import find_spec


def require(module: str, extra: str) -> None:
    """Check that ``module`` is installed.

    Raises:
        RuntimeError: It is not installed. The message has the command to install it.
    """
    if find_spec(module) is None:
        raise RuntimeError(f"this needs {module}: pip install 'aiodbclient[{extra}]'")
