"""For environments installed before the command moved into the package. To be deleted when none is left."""

from aiodbclient.__main__ import main as main
