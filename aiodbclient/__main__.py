"""``python -m aiodbclient``: the command ``aiodbclient``."""

from .cli import main

main()
