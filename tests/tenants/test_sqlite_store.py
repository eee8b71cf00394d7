from contextlib import asynccontextmanager

import pytest
from cryptography.fernet import Fernet

from aiodbclient.tenants import SQLiteStore
from aiodbclient.tenants.testing import StoreContract


class TestSQLiteStore(StoreContract):
    key = None

    @pytest.fixture(autouse=True)
    def in_a_folder(self, tmp_path):
        self.path = tmp_path / "tenants.db"

    @asynccontextmanager
    async def place(self):
        self.path.unlink(missing_ok=True)
        yield lambda: SQLiteStore(self.path, self.key)


class TestEncryptedSQLiteStore(TestSQLiteStore):
    key = Fernet.generate_key()
