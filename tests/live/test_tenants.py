"""A tenant's life, by SQL on the real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiodbclient import Cluster, ClusterInfo
from aiodbclient.engines import MYSQL, POSTGRESQL
from aiodbclient.tenants import SQLiteStore, TenantRole, Tenants


async def has_no_problems(tenants: TenantRole, name: str) -> bool:
    """Whether ``check`` logs in with each credential, and finds nothing."""
    [outcome] = await tenants.check([name])
    assert outcome.error is None, outcome.error
    assert outcome.problems == ()
    return True


async def test_tenant_lives_and_goes(cluster: Cluster, info: ClusterInfo, prefix: str, tmp_path: Path) -> None:
    """`doadmin`, `doadmin-mysql`, `by-sql`: create, rotate, revoke, read-only login, suspend, resume, remove."""
    if info.engine not in POSTGRESQL | MYSQL:
        pytest.skip("needs PostgreSQL or MySQL")
    async with SQLiteStore(tmp_path / "tenants.db") as store:
        tenants = Tenants(cluster, store)
        try:
            first = await tenants.ensure(prefix)
            assert await has_no_problems(tenants, prefix)
            [rotated] = await tenants.rotate([prefix])
            assert rotated.error is None, rotated.error
            assert await has_no_problems(tenants, prefix)  # both logins work
            [revoked] = await tenants.revoke_previous([prefix])
            assert (revoked.error, revoked.action) == (None, "revoked")
            now = await tenants.get(prefix)
            assert now is not None
            assert now.username != first.username
            await tenants.role("reader").ensure(prefix)
            assert await has_no_problems(tenants.role("reader"), prefix)
            for run, action in ((tenants.suspend, "suspended"), (tenants.resume, "resumed")):
                [outcome] = await run([prefix])
                assert (outcome.error, outcome.action) == (None, action)
            assert await has_no_problems(tenants, prefix)
        finally:
            [removed] = await tenants.remove([prefix])
        assert removed.error is None, removed.error
