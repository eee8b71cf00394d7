"""The functions of the package that a call runs, each once, as a person who reads it counts."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable
from pathlib import Path
from types import CodeType, FrameType

import aiodbclient

PACKAGE = str(Path(aiodbclient.__file__).parent)


async def path_of(call: Awaitable[object]) -> tuple[set[CodeType], set[str]]:
    """The functions that ``call`` runs, and their files."""
    ran = set[CodeType]()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and not code.co_name.endswith("comp>"):
            ran.add(code)  # a comprehension is inlined since 3.12

    gc.collect()
    gc.disable()  # it closes generators of earlier calls
    sys.setprofile(note)
    try:
        await call
    finally:
        sys.setprofile(None)
        gc.enable()
    print(*sorted(f"{Path(code.co_filename).name}: {code.co_qualname}" for code in ran), sep="\n")
    return ran, {code.co_filename for code in ran}
