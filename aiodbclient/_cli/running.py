"""Run a command's coroutine: what signals do to it, and its exit code."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, ParamSpec

import typer

from ..errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    DatabaseClientError,
    InvalidArgumentError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnsupportedOperationError,
)
from .arguments import CLUSTER_VARIABLE
from .asking import SIGNALS
from .output import OutputError, complain, speaks_json, this_command, write_error

P = ParamSpec("P")

DONE, SOME_FAILED, BAD_USAGE, STOPPED, UNUSABLE, DIFFERENT = 0, 1, 2, 3, 4, 5


def reads(command: Callable[P, Coroutine[Any, Any, int]]) -> Callable[P, None]:
    """Make a function for Typer of a coroutine function that changes nothing and returns an exit code."""
    return _runs(command, writes=False)


def writes(command: Callable[P, Coroutine[Any, Any, int]]) -> Callable[P, None]:
    """Make a function for Typer of a coroutine function that may change something and returns an exit code."""
    return _runs(command, writes=True)


def _runs(command: Callable[P, Coroutine[Any, Any, int]], *, writes: bool) -> Callable[P, None]:
    @wraps(command)
    def called(*arguments: P.args, **options: P.kwargs) -> None:
        speaks_json.set(bool(options.get("json")) or options.get("output") == "json")
        raise typer.Exit(_exit_code(partial(command, *arguments, **options), writes=writes))

    return called


def _exit_code(command: Callable[[], Coroutine[Any, Any, int]], *, writes: bool) -> int:
    try:
        return asyncio.run(_until_signal(command()))
    except typer.Abort:
        write_error("\n")  # end the line of the question
        complain("stopped: nothing was changed", STOPPED)
        return STOPPED
    except (asyncio.CancelledError, KeyboardInterrupt):
        complain(
            f"stopped: the last request may have been applied. To go on: {this_command()}" if writes else "stopped",
            STOPPED,
        )
        return STOPPED
    except OutputError as error:
        return end_output(error)
    except DatabaseClientError as error:
        code = code_of(error)
        complain(message_of(error), code)
        return code


# What the library advises to a program, and what an operator does.
_ADVICE = (
    (
        "read the name back; if it is there without a password that you know, reset_auth it, else create it again",
        "look with `aiodbclient users get`; if it is there, `aiodbclient users reset` gives it a password; else create "
        "it again",
    ),
    ("the old password may have ended, so reset_auth it again", "the old password may have ended, so reset it again"),
    ("read the name back, and create it again", "look with `aiodbclient dbs get`, and create it again"),
)
# The same, wherever they are in a text.
_OPTIONS = (
    ("or pass force=True", "or use --force"),
    ("with repair(recreate=True)", "with `tenants repair --recreate`"),
    ('with if_exists="adopt"', "with --adopt"),
    ('if_exists="reset" gives', "--if-exists reset gives"),
)


def message_of(error: Exception, *, retried: bool = False) -> str:
    """The text of ``error``, with advice for an operator in the place of that for a program.

    Args:
        error: The error.
        retried: Whether running the same command again is the advice, so that none is needed here.
    """
    text = str(error)
    for advice, instead in _ADVICE:
        text = text.replace(f": {advice}", "" if retried else f": {instead}")
    for argument, option in _OPTIONS:
        text = text.replace(argument, option)
    return f"{text}; check $DIGITALOCEAN_TOKEN" if isinstance(error, AuthenticationError) else text


def end_output(error: OutputError, *, as_json: bool | None = None) -> int:
    """Print why the standard output cannot be written, unless nobody needs to know. Returns the exit code."""
    code = STOPPED if error.gone else UNUSABLE
    if error.lost or not error.gone:
        complain(f"{error}; {error.lost}" if error.lost else str(error), code, as_json=as_json)
    return code


def code_of(error: DatabaseClientError) -> int:
    """The exit code of a command that ended with ``error``."""
    match error:
        case ConfigurationError() | InvalidArgumentError() | UnsupportedOperationError():
            return BAD_USAGE
        case AuthenticationError() | PermissionDeniedError() | RateLimitError() | ServerError():
            return UNUSABLE
        case APIError():
            return SOME_FAILED
        case _:
            return UNUSABLE


async def _until_signal(work: Coroutine[Any, Any, int]) -> int:
    """Do ``work``, until SIGINT or SIGTERM cancels it."""
    task = asyncio.current_task()
    assert task is not None
    on_signals(task.cancel)
    return await work


def on_signals(react: Callable[[], object]) -> None:
    """Call ``react`` on SIGINT and SIGTERM from now on."""
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, react)


def cluster_and_name(first: str | None, second: str | None) -> tuple[str, str]:
    """The arguments ``[CLUSTER] NAME``: one alone is the name, and the cluster comes from the environment.

    Raises:
        InvalidArgumentError: One of them is missing.
    """
    if first is not None and second is not None:
        return first, second
    cluster = os.environ.get(CLUSTER_VARIABLE)
    if cluster and first is not None:
        return cluster, first
    missing = "NAME is missing" if cluster else f"CLUSTER and NAME are needed, or NAME with ${CLUSTER_VARIABLE} set"
    raise InvalidArgumentError(f"{missing}; nothing was sent")
