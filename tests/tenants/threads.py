"""Threads that act again and again, as programs and attackers do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(*acts: Callable[[], object]) -> Iterator[None]:
    """Repeat each act in its own thread, until the block ends."""
    stop = threading.Event()

    def repeat(act: Callable[[], object]) -> None:
        while not stop.is_set():
            act()

    threads = [threading.Thread(target=repeat, args=[act]) for act in acts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
