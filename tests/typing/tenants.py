"""What a type checker knows of tenants. Checked, not run."""

from __future__ import annotations

from typing import assert_type

from aiodbclient import Action, ClusterClient, Failed, Run
from aiodbclient.tenants import (
    Credential,
    Plan,
    PostgresStore,
    SQLiteStore,
    TenantDone,
    TenantOutcome,
    TenantPlanOutcome,
    TenantRemovalOutcome,
    TenantRemoved,
    Tenants,
)


async def use(cluster: ClusterClient) -> None:
    async with SQLiteStore("tenants.db") as store:
        assert_type(store, SQLiteStore)
        tenants = Tenants(cluster, store, prefix="t_", private=True, admin=None, lease=60.0)
        assert_type(await tenants.ensure("alpha"), Credential)
        assert_type(await tenants.get("alpha"), Credential | None)
        run = tenants.provision(["alpha"], if_exists="adopt")
        assert_type(run, Run[TenantOutcome])
        async for outcome in run:
            assert_type(outcome, TenantDone | Failed)
            assert_type(outcome.action, Action)
            assert_type(outcome.tries, int)
            if outcome.error is None:
                assert_type(outcome.credential, Credential)
            else:
                assert_type(outcome.error, Exception)
                assert_type(outcome.credential, None)
        [rotated] = [outcome async for outcome in tenants.rotate(["alpha"])]
        if rotated.error is None:
            assert_type(rotated.credential.uri_for(ca_file="ca.pem"), str)
        assert_type(tenants.retire(["alpha"]), Run[TenantOutcome])
        removal = tenants.remove(["alpha"])
        assert_type(removal, Run[TenantRemovalOutcome])
        async for removed in removal:
            assert_type(removed, TenantRemoved | Failed)
            assert_type(removed.action, Action)
            assert_type(removed.credential, None)
        plan = await tenants.plan(["alpha"], prune=True)
        assert_type(plan, Plan)
        assert_type(plan.create, tuple[str, ...])
        assert_type(plan.apply(), Run[TenantPlanOutcome])
        async for changed in plan.apply():
            assert_type(changed.credential, Credential | None)
    async with PostgresStore("postgresql://...", key="...") as shared:
        Tenants(cluster, shared)
