"""Whether a package of an extra is installed."""

from __future__ import annotations

from importlib.util import find_spec


def require(module: str, extra: str) -> None:
    """Make sure that ``module`` is installed.

    Raises:
        RuntimeError: It is not; the message says what to install.
    """
    if find_spec(module) is None:
        raise RuntimeError(f"this needs {module}: pip install 'aiodbclient[{extra}]'")
