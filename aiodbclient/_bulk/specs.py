"""The specs of a bulk run: pull them and check them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sized
from typing import Any

from .._user_settings import check_settings
from ..errors import InvalidArgumentError
from ..models import NewUser

_END = object()


class Source:
    """The specs of a run. It pulls at most one ahead."""

    def __init__(self, specs: Iterable[Any] | AsyncIterable[Any], wake: asyncio.Event) -> None:
        _refuse_no_iterable(specs, "a run")
        self.ready: deque[Any] = deque(maxlen=1)  # the spec that was pulled but not started, if any
        self.pulling: asyncio.Future[Any] | None = None  # awaits the next one
        self.failure: BaseException | None = None  # that the iterable raised
        self._specs = aiter(specs) if isinstance(specs, AsyncIterable) else iter(specs)
        self._wake = wake
        self.pulled = 0
        self.total = len(specs) if isinstance(specs, Sized) else None  # None: not known yet
        self._ended = False

    def has_next(self) -> bool:
        """Whether a spec is ``ready``. If none is, pull the next one, or start a task that pulls it."""
        if self.ready or self._ended or self.pulling is not None:
            return bool(self.ready)
        if isinstance(self._specs, AsyncIterator):
            self.pulling = asyncio.ensure_future(_next(self._specs))
            self.pulling.add_done_callback(self._pulled)
        else:
            try:
                self._take(next(self._specs, _END))
            except Exception as error:  # noqa: BLE001 - an error of the caller's own iterable; ``Run`` raises it
                self._end(error)
        return bool(self.ready)

    def _pulled(self, task: asyncio.Future[Any]) -> None:
        self.pulling = None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._take(task.result())
        else:
            self._end(error)
        self._wake.set()

    def _take(self, spec: Any) -> None:
        if spec is _END:
            self._ended = True
            self.total = self.pulled
        else:
            self.pulled += 1
            self.ready.append(spec)

    def _end(self, error: BaseException) -> None:
        self._ended = True
        if isinstance(error, StopAsyncIteration):  # ``async for`` would end silently
            error = RuntimeError("the iterable of names raised StopAsyncIteration")
        self.failure = error


async def listed(specs: Iterable[Any] | AsyncIterable[Any]) -> list[Any]:
    """Return the specs of a plan as a list."""
    _refuse_no_iterable(specs, "a plan")
    return [each async for each in specs] if isinstance(specs, AsyncIterable) else list(specs)


def _refuse_no_iterable(specs: object, taker: str) -> None:
    if isinstance(specs, str | bytes) or not isinstance(specs, Iterable | AsyncIterable):
        raise InvalidArgumentError(f"{taker} takes an iterable of names, not {type(specs).__name__}; nothing was sent")


async def _next(specs: AsyncIterator[Any]) -> Any:
    return await anext(specs, _END)


def shown_name(given: object) -> str:
    """Return the name of the outcome for a given spec: its name, or its repr if it has none."""
    name = getattr(given, "name", given)
    return name if isinstance(name, str) else repr(given)


def name_spec(given: object) -> str:
    """Return ``given`` if it is a name."""
    if isinstance(given, str):
        return given
    raise InvalidArgumentError(f"this run takes names (str), not {given!r}; nothing was sent")


def user_spec(given: object) -> NewUser:
    """Return ``given`` as a NewUser."""
    spec = NewUser(given) if isinstance(given, str) else given
    if isinstance(spec, NewUser) and isinstance(spec.name, str):
        check_settings(spec.mysql_settings, spec.settings, spec.readonly)
        return spec
    raise InvalidArgumentError(f"a run takes names and NewUsers, not {given!r}; nothing was sent")
