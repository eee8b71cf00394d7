"""Run a command's coroutine: its options, what signals do to it, its errors, and its exit code."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from datetime import timedelta
from typing import Any

import attrs
import typer

from .. import errors
from .arguments import CLUSTER_VARIABLE, TIMEOUT_GRACE
from .asking import SIGNALS, DeclinedError
from .output import (
    BAD_USAGE,
    SOME_FAILED,
    STOPPED,
    UNUSABLE,
    OutputError,
    command_line,
    complain,
    end_output,
    this_command,
    write_error,
)

_NO_DATABASE = re.compile(r'administrator .*cannot log in.* database "(.+)" does not exist', re.DOTALL)
_SCOPES = (
    "tenants need the scopes database:read and database:view_credentials, changes of users and databases also "
    "database:create, database:update and database:delete"
)
_verbose: ContextVar[bool] = ContextVar("_verbose", default=False)
_changes: ContextVar[bool] = ContextVar("_changes", default=False)
_limit: ContextVar[asyncio.Timeout | None] = ContextVar("_limit", default=None)


def runs(command: Callable[..., Coroutine[Any, Any, int]]) -> Callable[..., None]:
    """Make a function for Typer of a coroutine function that returns an exit code."""
    parameters, arguments = _flat(command)

    def called(**options: Any) -> None:
        _verbose.set(bool(options.get("verbose")))
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
    except typer.Abort as stopped:
        if not isinstance(stopped, DeclinedError):
            write_error("\n")  # end the line of the question
        complain("stopped: nothing was changed", STOPPED)
        return STOPPED
    except KeyboardInterrupt:  # while a file or a pipe was read: asyncio turns all other signals into a cancellation
        complain("stopped: nothing was changed", STOPPED)
        return STOPPED
    except OutputError as error:
        return end_output(error)
    except errors.DatabaseClientError as error:
        code = code_of(error)
        complain(message_of(error), code)
        return code


async def _until_signal(work: Coroutine[Any, Any, int], seconds: float | None) -> int:
    """Do ``work``, until SIGINT or SIGTERM cancels it, or its time is over. Returns the exit code."""
    task = asyncio.current_task()
    assert task is not None
    on_signals(task.cancel)
    try:
        async with asyncio.timeout(seconds) as limit:
            _limit.set(limit)
            return await work
    except asyncio.CancelledError:
        why, code = "stopped", STOPPED
    except TimeoutError:
        why, code = f"no answer within --timeout {seconds:g}s", UNUSABLE
    more = f": the last request may have been applied. To go on: {this_command()}" if _changes.get() else ""
    complain(f"{why}{more}", code)
    return code


def on_signals(react: Callable[[], object]) -> None:
    """Call ``react`` on SIGINT and SIGTERM from now on."""
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


def message_of(error: Exception, *, retried: bool = False) -> str:
    """What to print of ``error``, with advice for an operator."""
    text, advice = said_by(error), advice_for(error, retried=retried)
    return f"{text.rstrip('.')}: {advice}" if advice else text


def said_by(error: Exception) -> str:
    """What an error says, without advice, and without the request or the statement unless ``--verbose``."""
    if not isinstance(error, errors.DatabaseClientError):
        return str(error)
    plain = copy(error)
    plain.advice = ""  # it is for programs
    if isinstance(plain, errors.GrantError) and not _verbose.get():
        plain.statement = ""
    text = str(plain)
    if isinstance(error, errors.APIError) and (error.id or error.message) and not _verbose.get():
        said = ": ".join(part for part in (error.id, error.message) if part).rstrip(".")
        text = f"the API answered {error.status} {said}"
        text += f" (after {error.tries} tries)" if error.tries > 1 else ""
        text += "; it may have been applied" if error.may_have_applied else ""
    return text


def advice_for(error: Exception, *, retried: bool = False) -> str:
    """What an operator does about ``error``. Where the library has no advice, most errors need none here either."""
    if not isinstance(error, errors.DatabaseClientError):
        return ""
    match error:
        case errors.AuthenticationError():
            return (
                "$DIGITALOCEAN_TOKEN is wrong, expired or revoked. Make another one in the control panel, under API: "
                f"{_SCOPES}"
            )
        case errors.PermissionDeniedError():
            return f"{_SCOPES}. Change the token's scopes in the control panel, under API"
        case errors.GrantError() if gone := _NO_DATABASE.search(str(error)):
            create = command_line(["dbs", "create", "CLUSTER", gone[1]])
            return f"the administrator logs in through this database. To create it again: {create}"
        case _ if not error.advice or has_way_out(error):
            return ""
        case errors.StoreError():
            return _ABOUT_KEYS
        case _:
            return "" if retried else "look before you run it again"


def has_way_out(error: Exception) -> bool:
    """Whether another command than this one is the way out. ``Opened.ways`` names it, once for all tenants."""
    match error:
        case errors.NoRoomError() | errors.RotationPendingError() | errors.SuspendedError():
            return True
        case errors.ConflictError(id="") | errors.NotFoundError(id=""):
            return bool(error.advice)
        case _:
            return False


_ABOUT_KEYS = (
    "set $AIODBCLIENT_STORE_KEY to the key of this store, or unset it if the store has none. If its key is lost, "
    "provision the tenants into a new store with --adopt"
)


def code_of(error: errors.DatabaseClientError) -> int:
    """The exit code of a command that ended with ``error``."""
    match error:
        case errors.ConfigurationError() | errors.InvalidArgumentError() | errors.UnsupportedOperationError():
            return BAD_USAGE
        case errors.AuthenticationError() | errors.PermissionDeniedError():
            return UNUSABLE
        case errors.RateLimitError() | errors.ServerError():
            return UNUSABLE
        case errors.APIError() | errors.NoRoomError():
            return SOME_FAILED
        case _:
            return UNUSABLE
