"""Find secrets in an error, as a tool does that reports errors with local variables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any


def leaks(error: BaseException, *secrets: str) -> list[str]:
    """Where an error shows a secret: in its text, or in a frame of it or of an earlier error."""
    found = [f"{type(error).__name__}: {error}"] if any(each in str(error) for each in secrets) else []
    for frame in frames(error):
        if Path(__file__).parent in Path(frame.f_code.co_filename).parents:
            continue
        for name, value in frame.f_locals.items():
            if any(each in reported(value) for each in secrets):
                found.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}: {name}")
    return found


def frames(error: BaseException) -> Iterator[FrameType]:
    """The frames of an error, and of those that it came from."""
    seen, waiting = set[int](), [error]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        trace = one.__traceback__
        while trace is not None:
            yield trace.tb_frame
            trace = trace.tb_next
        waiting += [each for each in (one.__cause__, one.__context__) if each is not None]
        waiting += getattr(one, "exceptions", ())


def reported(value: Any, depth: int = 3) -> str:
    """What a tool such as Sentry shows of a local variable: its repr, and that of what containers hold."""
    if depth and isinstance(value, dict | list | tuple):
        return "".join(reported(each, depth - 1) for each in (value.values() if isinstance(value, dict) else value))
    try:
        return repr(value)
    except AttributeError:  # ``__init__`` failed
        return ""
