"""An event loop in virtual time, and what its calls take at best."""

from __future__ import annotations

import asyncio
import inspect
import selectors
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar
from unittest.mock import patch

from aiodbclient._pacing import limiter as limiter_module

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    jump: Callable[[float], None]

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("everybody waits and no timer is set: this would hang for ever")
            self.jump(timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never sleeps: its clock jumps instead."""

    def __init__(self) -> None:
        selector = self._jumping = _JumpingSelector()
        super().__init__(selector)
        selector.jump = self._jump
        self._now = 1000.0

    def _jump(self, seconds: float) -> None:
        self._now += seconds

    def time(self) -> float:
        return self._now

    def timers(self) -> int:
        """The number of timers that are set and not cancelled."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined]


def live(main: Callable[[VirtualLoop], Awaitable[T]]) -> T:
    """Run ``main`` on its own virtual loop."""
    loop = VirtualLoop()
    with patch.object(limiter_module, "monotonic", loop.time), asyncio.Runner(loop_factory=lambda: loop) as runner:

        async def start() -> T:
            return await main(loop)

        return runner.run(start())


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test in virtual time. Its first argument is the loop."""

    def run(**arguments: Any) -> None:
        live(lambda loop: test(loop, **arguments))

    parameters = list(inspect.signature(test).parameters.values())
    run.__signature__ = inspect.Signature(parameters[1:])  # type: ignore[attr-defined]  # the fixtures
    run.__name__, run.__module__, run.__doc__ = test.__name__, test.__module__, test.__doc__
    return run


def optimum(count: int, windows: Iterable[tuple[int, float]] = ((250, 60.0), (5000, 3600.0))) -> float:
    """The earliest time for the last of ``count`` requests, if the first is sent at 0."""
    windows = tuple(windows)
    at: list[float] = []
    for k in range(count):
        at.append(max([0.0] + [at[k - limit] + seconds for limit, seconds in windows if k >= limit]))
    return at[-1]
