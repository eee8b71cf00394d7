"""Bounds and questions before something is removed."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InvalidArgumentError

_SHOWN = 10  # names that a question lists at most


def check_most(removed: int, most: int | None) -> None:
    """Check what ``--max`` allows.

    Args:
        removed: How many would be removed.
        most: How many may be; None for any number.

    Raises:
        InvalidArgumentError: There are more.
    """
    if most is not None and removed > most:
        raise InvalidArgumentError(
            f"{removed} would be removed, which is more than --max {most}: is the file complete? Nothing was changed"
        )


def some(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
