"""``python -m aiodbclient``: the command ``aiodbclient``."""

from ._cli import main

main()
