"""``users delete|reset`` and ``dbs delete`` refuse what is a tenant's, and no flag overrides that."""

from __future__ import annotations

from pathlib import Path

import pytest

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
        for verb in ENDING:
            refused = command(*verb, name, "--yes", *command.on)
            assert (refused.code, refused.out) == (2, ""), verb
            assert "use `aiodbclient tenants`\n" in refused.err
        refused = command(*PROVISION, b, name, *command.on)
        assert (refused.code, refused.out, "use `aiodbclient tenants`\n" in refused.err) == (2, "", True)
    assert command("tenants", "check", a, *command.place).code == 0
    # What is no tenant's is not refused.
    assert command("dbs", "create", b, *command.on).code == 0
    assert command("dbs", "delete", b, "--yes", *command.on).code == 0


def test_name_of_login_is_refused(command: Command, names: list[str]) -> None:
    """Without a store, a login is known by its name."""
    command.provision(names[0])
    [tenant] = command("tenants", "list", *command.place, "-o", "json").objects()
    for verb in ENDING[:2]:
        refused = command(*verb, tenant["username"], "--yes", *command.on)
        assert (refused.code, "has the name of a tenant's login: use `aiodbclient tenants`" in refused.err) == (2, True)
    refused = command("dbs", "delete", names[0], "--yes", *command.on)
    assert (refused.code, f"{names[0]} is a tenant's, whose login is {tenant['username']}: use" in refused.err) == (
        2,
        True,
    )
    sent = {"clusters.list", "clusters.get", "clusters.ca", "users.list"}
    assert {operation for operation, _ in command.sent()} <= sent
    assert command("tenants", "check", *command.place).code == 0


@pytest.mark.parametrize("option", ["--not-a-tenant", "--force", "-f", "--max=9"])
def test_no_flag_lifts_refusal(command: Command, names: list[str], option: str) -> None:
    """There is no option to end what is a tenant's."""
    command.provision(names[0])
    place = ["--store", command.store, *command.on]
    for verb in ENDING:
        assert "No such option" in command(*verb, names[0], option, "--yes", *place).err
        assert command(*verb, names[0], "--yes", *place).code == 2
    assert command("tenants", "check", *command.place).code == 0


def test_missing_store_is_refused(command: Command, names: list[str]) -> None:
    """A name without a store behind it is no word that there are no tenants, nor is one that cannot be read."""
    command.provision(names[0])
    assert command("dbs", "create", names[1], *command.on).code == 0
    missing = str(command.folder / "none.db")
    refused = command("dbs", "delete", names[1], "--yes", *command.on, "--store", missing)
    assert (refused.code, f"{missing} does not exist: check --store or $AIODBCLIENT_STORE" in refused.err) == (4, True)
    assert not Path(missing).exists()
    command.environment["AIODBCLIENT_STORE_KEY"] = command("store", "keygen", shows=True).out.strip()
    locked = command("dbs", "delete", names[1], "--yes", *command.on, "--store", command.store)
    assert (locked.code, "AIODBCLIENT_STORE_KEY" in locked.err) == (4, True)


def test_what_is_the_clusters_is_refused(command: Command) -> None:
    """The administrator and the default database stay."""
    for kind, name in (("dbs", "defaultdb"), ("users", "doadmin")):
        refused = command(kind, "delete", name, "--yes", *command.on)
        assert (refused.code, f"{name} belongs to the cluster" in refused.err) == (2, True)
    refused = command(*PROVISION, "doadmin", *command.on)
    assert (refused.code, "doadmin belongs to the cluster" in refused.err) == (2, True)


def test_ending_asks_first(command: Command) -> None:
    """Without --yes it asks, and without a terminal it does nothing."""
    assert command("dbs", "create", "asked", *command.on).code == 0
    refused = command("dbs", "delete", "asked", *command.on)
    said = f"Delete the database asked of {command.cluster} and all its data? There is no terminal to ask on: add --yes"
    assert (refused.code, said in refused.err) == (2, True)
    for answer, code in (("n", 3), ("y", 0)):
        terminal = command.terminal("dbs", "delete", "asked", *command.on, columns=200)
        terminal.expect("[y/N]")
        terminal.type(f"{answer}\n")
        assert terminal.end()[0] == code
    assert command("dbs", "get", "asked", *command.on).code == 1
