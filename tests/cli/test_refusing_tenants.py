"""``users delete|reset`` and ``dbs delete`` refuse what is a tenant's, and no flag overrides that."""

from __future__ import annotations

from pathlib import Path

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


def test_no_flag_lifts_refusal(command: Command, names: list[str]) -> None:
    """There is no option to end what is a tenant's."""
    command.provision(names[0])
    place = ["--store", command.store, *command.on]
    for operation in ENDING:
        for option in ("--not-a-tenant", "--force", "-f"):
            command(*operation, names[0], option, "--yes", *place).fails(2, "No such option")
        assert command(*operation, names[0], "--yes", *place).code == 2
    assert command("tenants", "check", *command.place).code == 0


def test_missing_store_is_refused(command: Command, names: list[str]) -> None:
    """A name without a store behind it is no word that there are no tenants, nor is one that cannot be read."""
    command.provision(names[0])
    assert command("dbs", "create", names[1], *command.on).code == 0
    missing = str(command.folder / "none.db")
    command("dbs", "delete", names[1], "--yes", *command.on, "--store", missing).fails(
        4, f"{missing} does not exist: check --store or $AIODBCLIENT_STORE"
    )
    assert not Path(missing).exists()
    command.environment["AIODBCLIENT_STORE_KEY"] = command("store", "keygen", shows=True).out.strip()
    command("dbs", "delete", names[1], "--yes", *command.on, "--store", command.store).fails(4, "AIODBCLIENT_STORE_KEY")


def test_what_is_the_clusters_is_refused(command: Command) -> None:
    """The administrator and the default database stay."""
    for kind, name in (("dbs", "defaultdb"), ("users", "doadmin")):
        command(kind, "delete", name, "--yes", *command.on).fails(2, f"{name} is reserved: the cluster or its tenants")
    command(*PROVISION, "doadmin", *command.on).fails(2, "doadmin is reserved: the cluster or its tenants may need it")


def test_ending_asks_first(command: Command) -> None:
    """Without --yes it asks, and without a terminal it does nothing."""
    assert command("dbs", "create", "asked", *command.on).code == 0
    said = f"Delete the database asked of {command.cluster} and all its data? There is no terminal to ask on: add --yes"
    command("dbs", "delete", "asked", *command.on).fails(2, said)
    assert command("dbs", "get", "asked", *command.on).code == 0
