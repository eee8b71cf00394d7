"""``users delete|reset`` and ``dbs delete`` refuse what is a tenant's, and no flag overrides that."""

from __future__ import annotations

from .conftest import Command

ENDING = (["users", "delete"], ["users", "reset", "--show"], ["dbs", "delete"])
PROVISION = ["users", "provision", "--if-exists", "reset"]


def test_tenant_of_store_is_refused(command: Command, names: list[str]) -> None:
    """Whatever the store has of a tenant is refused: its database, and the logins of all its credentials."""
    a, b = names[:2]
    command.provision(a)
    assert command("tenants", "rotate", a, *command.place).code == 0
    assert command("tenants", "provision", a, "--role", "reader", *command.place).code == 0
    listed = command("tenants", "list", *command.place, "-o", "json").objects()
    command.environment["AIODBCLIENT_STORE"] = command.store
    for name in {a, *(each["username"] for each in listed)}:
        for operation in ENDING:
            refused = command(*operation, name, "--yes", *command.on)
            assert (refused.code, refused.out) == (2, ""), operation
            assert "use `aiodbclient tenants`\n" in refused.err
        command(*PROVISION, b, name, *command.on).fails(2, "use `aiodbclient tenants`\n")
    assert command("tenants", "check", a, *command.place).code == 0
    # What is no tenant's is not refused.
    assert command("dbs", "create", b, *command.on).code == 0
    assert command("dbs", "delete", b, "--yes", *command.on).code == 0


def test_name_of_login_is_refused(command: Command, names: list[str]) -> None:
    """Without a store, a login is known by its name."""
    command.provision(names[0])
    [tenant] = command("tenants", "list", *command.place, "-o", "json").objects()
    for operation in ENDING[:2]:
        command(*operation, tenant["username"], "--yes", *command.on).fails(
            2, "has the name of a tenant's login: use `aiodbclient tenants`"
        )
    command("dbs", "delete", names[0], "--yes", *command.on).fails(
        2, f"{names[0]} is a tenant's, whose login is {tenant['username']}: use"
    )
    sent = {"clusters.list", "clusters.get", "clusters.ca", "users.list"}
    assert {operation for operation, _ in command.sent()} <= sent
    assert command("tenants", "check", *command.place).code == 0
