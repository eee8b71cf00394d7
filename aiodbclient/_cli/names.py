"""Check the names that an operator gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..engines import Engine
from ..errors import InvalidArgumentError
from ..tenants._naming import names_of
from .asking import FEW

_SHOWN = 10  # problems that a message lists at most


def check_name(name: str) -> None:
    """Refuse ``-`` as a name for something new: whoever types it means the standard input."""
    if name == "-":
        raise InvalidArgumentError(
            "'-' is not a name, and names are not read from the standard input here; nothing was sent"
        )


def selecting(names: Sequence[str]) -> list[str]:
    """The arguments that select ``names``: a few of them as they are; all for many."""
    return list(names) if len(names) <= FEW else ["--all"]


def check_tenants(names: Iterable[str], engine: Engine | str, prefix: str) -> None:
    """Check that all names can be tenants' names."""
    problems = list[str]()
    for name in names:
        try:
            names_of(name, engine, prefix)
        except InvalidArgumentError as error:
            problems.append(str(error).removesuffix("; nothing was sent"))
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InvalidArgumentError(f"{'; '.join(problems[:_SHOWN])}{more}. Nothing was changed")
