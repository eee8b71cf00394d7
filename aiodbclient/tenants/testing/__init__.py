"""The tests that every store must pass, for who writes one. They need a test runner, and no package of one.

Subclass ``StoreContract`` in a test module, and write ``place``, which makes an empty place and stores on it::

    class TestVaultStore(StoreContract):
        @asynccontextmanager
        async def place(self):
            async with a_fresh_vault() as vault:
                yield lambda: VaultStore(vault.url, vault.token)

pytest collects the tests because the name of your class begins with ``Test``; for unittest, inherit from
``unittest.TestCase`` as well. Each test is a plain function that runs its own event loop. What the tests cannot see is
yours to test: that a change is on the disk when a method returns, and that the claims of a dead process are free.
"""

from .contract import StoreContract
from .tools import LONG, a_credential

__all__ = ["LONG", "StoreContract", "a_credential"]
