"""Which cases of a test run with ``make test``, and which with ``make test-all`` alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first_of(cases: Iterable[Any], count: int = 1) -> list[Any]:
    """Return the cases for ``parametrize``. All but the first ``count`` are thorough."""
    cases = list(cases)
    return [*cases[:count], *(pytest.param(case, marks=pytest.mark.thorough) for case in cases[count:])]
