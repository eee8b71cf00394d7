"""Run a command's coroutine with its options, until it ends, a signal comes, or its time is over."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from typing import Any

import attrs
import typer

from ...errors import DatabaseClientError
from .asking import SIGNALS
from .failures import Exit, code_of, message_of
from .options import TIMEOUT_GRACE
from .printing import note

_limit: ContextVar[asyncio.Timeout | None] = ContextVar("_limit", default=None)


def runs(command: Callable[..., Coroutine[Any, Any, int]]) -> Callable[..., None]:
    """Make a function for Typer of a coroutine function that returns an exit code."""
    parameters, arguments = _flat(command)

    def called(**options: Any) -> None:
        limit: timedelta | None = options.get("timeout")
        verbose = bool(options.get("verbose"))
        try:
            work = command(**arguments(options))
            code = asyncio.run(_until_signal(work, None if limit is None else limit.total_seconds()))
        except typer.Abort:  # at a question
            print(file=sys.stderr)  # ends the line of the question
            note("stopped: nothing was changed")
            code = Exit.STOPPED
        except DatabaseClientError as error:
            note(message_of(error, verbose=verbose))
            code = code_of(error)
        raise typer.Exit(code)

    called.__doc__ = command.__doc__
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


def _flat(command: Callable[..., Any]) -> tuple[list[inspect.Parameter], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Flatten the option classes of ``command``, and return its parameters and what builds its arguments."""
    given = inspect.signature(command, eval_str=True).parameters.values()
    sets = {each.name: each.annotation for each in given if attrs.has(each.annotation)}
    parameters = list[inspect.Parameter]()
    for each in given:
        if each.name in sets:
            parameters += _members(each.annotation)
        else:
            parameters.append(each.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def arguments(values: dict[str, Any]) -> dict[str, Any]:
        made = {
            name: kind(**{member.name: values.pop(member.name) for member in attrs.fields(kind)})
            for name, kind in sets.items()
        }
        return values | made

    return parameters, arguments


def _members(kind: Any) -> Iterator[inspect.Parameter]:
    for member in attrs.fields(attrs.resolve_types(kind)):
        default = inspect.Parameter.empty if member.default is attrs.NOTHING else member.default
        yield inspect.Parameter(member.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=member.type)


async def _until_signal(work: Coroutine[Any, Any, int], seconds: float | None) -> int:
    """Do ``work``, until a signal cancels it or its time is over, and return the exit code."""
    task = asyncio.current_task()
    assert task is not None
    logging.getLogger("psycopg").addHandler(logging.NullHandler())  # it warns of what an error says too
    on_signals(task.cancel)
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            _limit.set(limit)
            return await work
    except asyncio.CancelledError:
        note("stopped")
        return Exit.STOPPED
    except TimeoutError as error:
        if not limit.expired():  # an OSError, as of a socket
            raise
        note("; ".join([f"no answer within --timeout {seconds:g}s", *getattr(error.__context__, "__notes__", [])]))
        return Exit.UNUSABLE
    finally:
        on_signals(partial(os._exit, Exit.INTERRUPTED))  # nothing is left to finish


def on_signals(react: Callable[[], object]) -> None:
    """Call ``react`` on each of ``SIGNALS`` from now on."""
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, react)


@contextmanager
def on_timeout(react: Callable[[], object]) -> Generator[None]:
    """Call ``react`` when ``--timeout`` ends in this block; the command is cancelled ``TIMEOUT_GRACE`` later."""
    limit = _limit.get()
    when = None if limit is None else limit.when()
    if limit is None or when is None:
        yield
        return
    limit.reschedule(when + TIMEOUT_GRACE)
    timer = asyncio.get_running_loop().call_at(when, react)
    try:
        yield
    finally:
        timer.cancel()
