"""Async-first, typed SDK for the users and databases of DigitalOcean's managed database clusters."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors as errors
from ._version import __version__ as __version__

if TYPE_CHECKING:
    from ._public import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        """Import the public names on the first use of one. ``aiodbclient --help`` needs none, and aiohttp is slow."""
        if name == "__all__" or not name.startswith("_"):
            public = {
                key: value for key, value in vars(import_module("._public", __name__)).items() if key[0].isalpha()
            }
            globals().update(public, __all__=sorted([*public, "__version__", "errors"]))
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
