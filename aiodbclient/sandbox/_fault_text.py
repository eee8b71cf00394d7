"""Parse faults given as text on the command line: ``users.create: status=503 nth=3``. Pure."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from . import _option_text as option_text
from ._faults import Faults


@frozen
class FaultText:
    """The arguments of ``Faults.add``."""

    operation: str | list[str]
    options: dict[str, Any]


def parse(text: str) -> FaultText:
    """Read ``OPERATION[,OPERATION...]: OPTION...``, with the options of ``Faults.add``.

    Raises:
        ValueError: It does not have this form, or ``Faults.add`` would refuse it.
    """
    where, colon, what = text.partition(":")
    names = where.replace(",", " ").split()
    if not colon or not names:
        raise ValueError(f"{text!r} is not OPERATION: OPTION..., such as 'users.create: status=503 nth=3'")
    fault = FaultText("*" if names == ["*"] else names, option_text.read(Faults.add, what))
    Faults().add(fault.operation, **fault.options)
    return fault
