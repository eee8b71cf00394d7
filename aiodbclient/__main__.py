"""The command ``aiodbclient``, also as ``python -m aiodbclient``."""

from __future__ import annotations

import os
import signal

_INTERRUPTED = 128 + signal.SIGINT  # as shells have it


def main() -> None:
    """Run the command. Before it handles signals itself, and after that, Ctrl-C ends it at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise it is ignored
        signal.signal(signal.SIGINT, _end_at_once)
    from ._cli import main as run

    try:
        run()
    except KeyboardInterrupt:  # asyncio has just given the signal back
        _end_at_once()
    finally:
        signal.signal(signal.SIGINT, _end_at_once)


def _end_at_once(*_: object) -> None:
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
