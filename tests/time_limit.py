"""End a test that hangs, so that it fails by its name instead of stopping the suite.

Hooks for a conftest. asyncio catches what a callback or a task raises, and a busy loop goes on, unless it is a
KeyboardInterrupt. So the ``signal`` method of pytest-timeout ends such a test by luck alone. Its ``thread`` method ends
the process, and its servers stay.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import suppress
from typing import NoReturn

import pytest

SECONDS = 120.0  # of a set-up, a call or a teardown: many times what it takes on a loaded machine
SECONDS_IF_THOROUGH = 900.0
AGAIN = 1.0  # seconds; the first exception may have been caught


class TimedOut(KeyboardInterrupt):
    """The test hangs."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Limit a call, and by the names below a set-up and a teardown."""
    seconds = SECONDS_IF_THOROUGH if item.get_closest_marker("thorough") else SECONDS
    hangs = False

    def end(*_: object) -> NoReturn:
        nonlocal hangs
        hangs = True
        raise TimedOut

    before = signal.signal(signal.SIGALRM, end)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        result = yield
        if hangs:
            raise TimedOut  # the test caught it
        return result
    except BaseException as error:
        if not hangs:  # else a loop that lost a callback to the exception may have raised another one
            raise
        raise pytest.fail.Exception(f"it hangs: ended after {seconds:g} s") from error
    finally:
        with suppress(TimedOut):
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


pytest_runtest_setup = pytest_runtest_teardown = pytest_runtest_call
