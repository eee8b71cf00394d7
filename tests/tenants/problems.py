"""Compare the problems of tenants by their kinds."""

from __future__ import annotations

from collections.abc import Iterable

from aiodbclient.tenants import Problem, ProblemKind


def kinds_of(problems: Iterable[Problem]) -> set[ProblemKind]:
    return {each.kind for each in problems}


class Kinds:
    """Equal to problems of these kinds, one of each."""

    def __init__(self, *expected: ProblemKind) -> None:
        self._expected = sorted(expected)

    def __eq__(self, problems: object) -> bool:
        return isinstance(problems, Iterable) and sorted(each.kind for each in problems) == self._expected

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Kinds({self._expected})"


kinds = Kinds
