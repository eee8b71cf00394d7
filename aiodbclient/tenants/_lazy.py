"""``lazily``: a package imports each public name on its first use (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of ``package``. ``homes``: the names of each module in it."""
    home_of = {name: home for home, names in homes.items() for name in names.split()}
    attributes = vars(sys.modules[package])

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        attributes[name] = value = getattr(import_module(home_of[name], package), name)
        return value

    return get, lambda: sorted({*attributes, *home_of}), sorted(home_of)
