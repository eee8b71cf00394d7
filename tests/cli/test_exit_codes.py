"""The exit code of every command, for each way that it can end."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Command
from .test_grammar import commands

# Arguments that make each command send its first request, or read its store.
ARGUMENTS = {
    "clusters list": [],
    "clusters get": ["C"],
    "users list": ["C"],
    "users get": ["C", "nobody"],
    "users create": ["C", "somebody", "--show"],
    "users delete": ["C", "nobody", "--yes"],
    "users reset": ["C", "nobody", "--show", "--yes"],
    "users plan": ["C", "--from", "users.yaml"],
    "users apply": ["C", "--from", "users.yaml"],
    "dbs list": ["C"],
    "dbs get": ["C", "nothing"],
    "dbs create": ["C", "something"],
    "dbs delete": ["C", "nothing", "--yes"],
    "tenants list": ["--cluster", "C", "--store", "S"],
    "tenants rooms": ["--cluster", "C", "--store", "S"],
    "tenants plan": ["nobody", "--cluster", "C", "--store", "S"],
    "tenants provision": ["nobody", "--cluster", "C", "--store", "S"],
    "tenants check": ["nobody", "--cluster", "C", "--store", "S"],
    "tenants repair": ["nobody", "--cluster", "C", "--store", "S"],
    "tenants rotate": ["nobody", "--cluster", "C", "--store", "S"],
    "tenants retire": ["nobody", "--cluster", "C", "--store", "S"],
    "tenants suspend": ["nobody", "--cluster", "C", "--store", "S"],
    "tenants resume": ["nobody", "--cluster", "C", "--store", "S"],
    "tenants remove": ["nobody", "--yes", "--cluster", "C", "--store", "S"],
    "tenants show": ["nobody", "--cluster", "C", "--store", "S"],
    "tenants usage": ["nobody", "--cluster", "C", "--store", "S"],
    "tenants move": ["nobody", "--to", "C", "--yes", "--cluster", "C", "--store", "S"],
    "tenants dump": ["nobody", "--folder", "F", "--cluster", "C", "--store", "S"],
    "tenants exec": ["nobody", "--cluster", "C", "--store", "S", "--", "true"],
    "doctor": ["C"],
}
OF_STORES = ("tenants load", "store list", "store keygen", "store rekey", "store copy", "store forget", "sandbox")
READ = ("tenants list", "tenants rooms", "tenants show", "tenants exec")  # what the store knows is not asked of the API
STORED = ("list", "capacity", "check", "repair", "rotate", "revoke-previous", "suspend", "resume", "remove", "show", "exec")


def line(command: Command, name: str, cluster: str = "tenants-prod") -> list[str]:
    places = {"C": cluster, "S": command.store, "users.yaml": str(command.folder / "users.yaml")}
    return [*name.split(), *(places.get(word, word) for word in ARGUMENTS[name])]


@pytest.fixture(autouse=True)
def files(command: Command) -> None:
    (command.folder / "users.yaml").write_text("- nobody\n")


def test_every_command_is_here() -> None:
    assert {*ARGUMENTS, *OF_STORES} == set(commands())


def test_a_wrong_token_is_4(command: Command) -> None:
    command.environment["DIGITALOCEAN_TOKEN"] = "hunter2-wrong"
    for name in set(ARGUMENTS).difference(READ):
        done = command(*line(command, name))
        assert (done.code, "401" in done.out + done.err) == (1 if name == "doctor" else 4, True), name
        assert "DIGITALOCEAN_TOKEN" in done.out + done.err
    assert not Path(command.store).exists()


def test_no_token_and_an_unknown_cluster_and_an_unknown_option_are_2(command: Command) -> None:
    for name in ARGUMENTS:
        unknown = command(*line(command, name)[:1], *line(command, name)[1:2], "--nonsense")
        assert (unknown.code, unknown.out) == (2, ""), name
        if name not in ("clusters list", *READ):
            nowhere = command(*line(command, name, cluster="nowhere"))
            assert (nowhere.code, "no cluster is called 'nowhere'" in nowhere.err) == (2, True), name
    del command.environment["DIGITALOCEAN_TOKEN"]
    for name in set(ARGUMENTS).difference(READ):
        missing = command(*line(command, name))
        assert (missing.code, missing.out) == (2, ""), name
        assert "set DIGITALOCEAN_TOKEN" in missing.err
    assert not Path(command.store).exists()


def test_a_name_that_is_not_there_is_1_and_a_store_that_is_not_there_is_4(command: Command) -> None:
    for name in ("users get", "users delete", "users reset", "dbs get", "dbs delete"):
        assert command(*line(command, name)).code == 1, name
    for verb in STORED:
        assert command(*line(command, f"tenants {verb}")).code == 4, verb
    for arguments in (["list", command.store], ["rekey", command.store], ["copy", command.store, "to.db"]):
        command.environment["AIODBCLIENT_STORE_KEY"] = "" if arguments[0] != "rekey" else f"{'a' * 43}=,{'b' * 43}="
        assert command("store", *arguments).code == 4
    assert command(*line(command, "users plan")).code == 5
    assert command(*line(command, "tenants plan")).code == 5

    del command.environment["AIODBCLIENT_STORE_KEY"]
    assert command("tenants", "provision", "exit-codes", *command.place).code == 0
    for verb in ("check", "repair", "rotate", "suspend", "resume", "show", "exec"):
        assert command(*line(command, f"tenants {verb}")).code == 1, verb
    for verb in ("revoke-previous", "remove"):
        done = command(*line(command, f"tenants {verb}"))
        assert done.code in (0, 1), verb
    assert command("tenants", "remove", "exit-codes", *command.place, "--yes").code == 0
