"""The command ``aiodbclient``, also as ``python -m aiodbclient``."""

from __future__ import annotations

import os
import signal

_INTERRUPTED = 128 + signal.SIGINT  # as shells have it


def main() -> None:
    """Run the command. Until it handles signals itself, nothing is begun, and Ctrl-C ends it at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise it is ignored
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from ._cli import main as run

    run()


if __name__ == "__main__":
    main()
