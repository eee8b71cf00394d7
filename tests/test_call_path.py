"""A call reads as one path: few functions, in few files."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import aiodbclient
from aiodbclient import RateLimiter

from .conftest import MakeCluster
from .server import Server, returns_the_user, says

PACKAGE = str(Path(aiodbclient.__file__).parent)


class Trace:
    """The functions of the package that ran, and the most of them that were one within the other.

    ``generated`` are those that attrs, cattrs and NamedTuple write for the package's classes.
    """

    def __init__(self) -> None:
        self.functions: dict[CodeType, None] = {}
        self.generated: dict[CodeType, None] = {}
        self.depth = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and is_own(frame) and not frame.f_code.co_name.endswith("comp>"):  # inlined since 3.12
            self.functions[frame.f_code] = None
            depth, outer = 0, frame
            while outer is not None:
                depth += is_own(outer)
                outer = outer.f_back  # type: ignore[assignment]
            self.depth = max(self.depth, depth)
        elif event == "call" and is_generated(frame):
            self.generated[frame.f_code] = None

    @property
    def files(self) -> set[str]:
        return {code.co_filename for code in self.functions}

    def __str__(self) -> str:
        names = (f"{Path(code.co_filename).name}: {code.co_qualname}" for code in (*self.functions, *self.generated))
        counts = (
            f"{len(self.functions)} functions, {len(self.files)} files, {self.depth} deep, "
            f"and {len(self.generated)} generated functions"
        )
        return "\n".join((counts, *names))


def is_own(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(PACKAGE)


def is_generated(frame: FrameType) -> bool:
    file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__"))
    return ("generated" in file and " aiodbclient." in file) or module.startswith("namedtuple_")


async def traced(call: Awaitable[Any]) -> Trace:
    trace = Trace()
    gc.collect()
    gc.disable()  # it closes generators of earlier calls, which the trace would show
    sys.setprofile(trace)
    try:
        await call
    finally:
        sys.setprofile(None)
        gc.enable()
    return trace


async def test_create_call_path(server: Server, make_cluster: MakeCluster) -> None:
    """A create on a cluster whose engine is known, from the public method to HTTP and back."""
    server.otherwise = returns_the_user()
    users = make_cluster(rate_limiter=RateLimiter()).users
    await users.create("warm")

    trace = await traced(users.create("alice"))

    print(trace)
    assert len(trace.functions) <= 35
    assert len(trace.generated) <= 7  # of NewUser, Slot, Call, Response and User
    assert len(trace.files) <= 10
    assert trace.depth <= 8


async def test_trace_notices_more_functions(server: Server, make_cluster: MakeCluster) -> None:
    """The control: a first call, which reads the engine, runs more functions."""
    users = make_cluster(rate_limiter=RateLimiter(), engine=None).users
    server.will(says(200, {"database": {"engine": "pg"}}), returns_the_user())

    trace = await traced(users.create("alice"))

    assert len(trace.functions) > 35
