import secrets
from contextlib import asynccontextmanager

import pytest
from cryptography.fernet import Fernet

from aiodbclient.tenants import PostgresStore
from aiodbclient.tenants.testing import StoreContract


class TestPostgresStore(StoreContract):
    key = None

    @pytest.fixture(autouse=True)
    def server(self, postgres):
        self.dsn = postgres

    @asynccontextmanager
    async def place(self):
        table = f"credentials_{secrets.token_hex(4)}"
        yield lambda: PostgresStore(self.dsn, table, self.key)


class TestEncryptedPostgresStore(TestPostgresStore):
    key = Fernet.generate_key()
