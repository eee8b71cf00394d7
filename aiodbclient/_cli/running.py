"""Run a command's coroutine with its options, until it ends, a signal comes, or its time is over."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import attrs
import typer

from .. import errors
from .arguments import TIMEOUT_GRACE
from .asking import SIGNALS, DeclinedError
from .failures import Exit, code_of, end_output, is_verbose, message_of
from .output import CLUSTER_VARIABLE, OutputError, complain, this_command, write_error

_changes: ContextVar[bool] = ContextVar("_changes", default=False)
_limit: ContextVar[asyncio.Timeout | None] = ContextVar("_limit", default=None)


def runs(command: Callable[..., Coroutine[Any, Any, int]]) -> Callable[..., None]:
    """Make a function for Typer of a coroutine function that returns an exit code."""
    parameters, arguments = _flat(command)

    def called(**options: Any) -> None:
        is_verbose.set(bool(options.get("verbose")))
        limit: timedelta | None = options.get("timeout")

        async def work() -> int:
            return await command(**arguments(options))

        raise typer.Exit(_exit_code(work, limit))

    called.__doc__ = command.__doc__
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


def _flat(command: Callable[..., Any]) -> tuple[list[inspect.Parameter], Callable[[dict[str, Any]], dict[str, Any]]]:
    """The parameters of ``command`` with the members of its sets, and what makes its arguments of their values."""
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


def given_options(given: Any, kind: type[Any], *, again: bool = False) -> list[str]:
    """The options of the set ``kind`` that were ``given``, for another command, without what the environment has.

    ``again``: it is the same command, and goes on as this one did.
    """
    options = list[str]()
    for member in attrs.fields(attrs.resolve_types(kind)):
        info, value = member.type.__metadata__[0], getattr(given, member.name)
        variable = CLUSTER_VARIABLE if member.name == "clusters" else info.envvar
        if value == member.default or (member.name in ("timeout", "verbose") and not again):
            continue
        if isinstance(value, timedelta):
            value = f"{value.total_seconds():g}s"
        values = value if isinstance(value, list) else [value]
        if variable is None or ",".join(map(str, values)) != os.environ.get(variable):
            name = str(info.default)  # where Typer keeps the first name of an option that is an annotation
            for each in values:
                options += [name] if each is True else [name, str(each)]
    return options


def changes() -> None:
    """From now on, a command that is stopped says that its last request may have been applied."""
    _changes.set(True)


def _exit_code(work: Callable[[], Coroutine[Any, Any, int]], limit: timedelta | None) -> int:
    try:
        return asyncio.run(_until_signal(work(), None if limit is None else limit.total_seconds()))
    except (typer.Abort, KeyboardInterrupt) as stopped:  # asyncio turns signals into a cancellation, but for a read
        if isinstance(stopped, typer.Abort) and not isinstance(stopped, DeclinedError):
            write_error("\n")  # end the line of the question
        complain("stopped: nothing was changed", Exit.STOPPED)
        return Exit.STOPPED
    except OutputError as error:
        return end_output(error)
    except errors.DatabaseClientError as error:
        code = code_of(error)
        complain(message_of(error), code)
        return code


async def _until_signal(work: Coroutine[Any, Any, int], seconds: float | None) -> int:
    """Do ``work``, until a signal cancels it, or its time is over. Returns the exit code."""
    task = asyncio.current_task()
    assert task is not None
    on_signals(task.cancel)
    try:
        async with asyncio.timeout(seconds) as limit:
            _limit.set(limit)
            return await work
    except asyncio.CancelledError:
        why, code = "stopped", Exit.STOPPED
    except TimeoutError:
        why, code = f"no answer within --timeout {seconds:g}s", Exit.UNUSABLE
    more = f": the last request may have been applied. To go on: {this_command()}" if _changes.get() else ""
    complain(f"{why}{more}", code)
    return code


def on_signals(react: Callable[[], object]) -> None:
    """Call ``react`` on each of ``SIGNALS`` from now on."""
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, react)


@contextmanager
def on_timeout(react: Callable[[], object]) -> Generator[None]:
    """Within this block, the end of ``--timeout`` calls ``react``. The command is cancelled ``TIMEOUT_GRACE`` later."""
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
