"""The tests that every store must pass, for authors of stores.

Subclass ``StoreContract`` in a test module. Its method ``place`` makes an empty place, and yields a function
that makes stores on it::

    class TestVaultStore(StoreContract):
        @asynccontextmanager
        async def place(self):
            async with a_fresh_vault() as vault:
                yield lambda: VaultStore(vault.url, vault.token)

pytest collects the tests, since the name of your class begins with ``Test``. For unittest, inherit from
``unittest.TestCase`` as well. Each test is a plain method that runs an event loop of its own, so no plugin is needed.

These tests cannot check two things, so test them yourself: a change is on the disk when a method returns, and the
claims of a dead process are free.
"""

from ._contract import StoreContract
from ._tools import LONG, a_credential

__all__ = ["LONG", "StoreContract", "a_credential"]
