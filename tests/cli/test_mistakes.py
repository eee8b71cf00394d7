"""What an operator does by mistake is refused before anything is lost, and says what helps."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from uuid import uuid4

import pytest

from aiodbclient import DatabaseClient
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants._record import Verb

from .conftest import Command


def test_an_empty_word_is_refused(command: Command, names: list[str]) -> None:
    """A variable of a script that is not set is an empty word. As a folder it would be the working directory."""
    a, place = names[0], command.place
    command.provision(a)
    before = len(command.sent())
    for line, said in (
        (["tenants", "provision", *place, "--from", ""], "--from is empty"),
        (["tenants", "exec", "--all", *place, "--failed", "", "--", "true"], "--failed is empty"),
        (["tenants", "show", a, *place, "-o", "uri", "--ca-file", ""], "--ca-file is empty"),
        (["tenants", "move", a, *place, "--to", ""], "--to is empty"),
        (["dbs", "delete", command.cluster, "", "--yes", "--not-a-tenant"], "an argument is empty"),
        (["users", "delete", command.cluster, "--yes", "", "--not-a-tenant"], "an argument is empty"),
    ):
        refused = command(*line)
        assert (refused.code, refused.out) == (2, ""), line
        assert f"aiodbclient: {said}. Nothing was sent. See" in refused.err
    assert len(command.sent()) == before
    assert command("tenants", "check", a, *place, "--prefix", "").code == 0
    program = ["--", sys.executable, "-c", "import sys; sys.exit(sys.argv[1:] != ['', '--x='])", "", "--x="]
    assert command("tenants", "exec", a, *place, *program).code == 0


def test_what_belongs_to_the_cluster_is_not_deleted(command: Command) -> None:
    with Sandbox(windows=[]) as own:
        asyncio.run(own.add_cluster("pg", "fresh", backend="postgres"))
        command.environment |= {"DIGITALOCEAN_TOKEN": own.token, "DIGITALOCEAN_API_URL": own.url}
        for kind, name in (("dbs", "defaultdb"), ("users", "doadmin")):
            refused = command(kind, "delete", "fresh", name, "--not-a-tenant", "--yes")
            assert (refused.code, f"{name} belongs to the cluster" in refused.err) == (2, True)

        async def delete() -> None:
            async with DatabaseClient(own.token, base_url=own.url) as client:
                [cluster] = [each for each in await client.clusters.list() if each.name == "fresh"]
                await client.cluster(cluster.id).dbs.delete("defaultdb")

        asyncio.run(delete())  # as the control panel does
        broken = command("doctor", "fresh")
        assert broken.code == 1
        failed = command("tenants", "provision", "alpha", "--cluster", "fresh", "--store", command.store)
        for said in (broken.out, failed.err):
            assert "the administrator logs in through this database. To create it again: aiodbclient dbs create" in said
            assert "trusted sources" not in said
        [line] = re.findall("again: aiodbclient (.*)", broken.out)
        assert command(*line.replace("CLUSTER", "fresh").split()).code == 0
        assert command("doctor", "fresh").code == 0
    command.environment |= {"DIGITALOCEAN_TOKEN": command.sandbox.token, "DIGITALOCEAN_API_URL": command.sandbox.url}


def test_a_tenant_without_its_database_is_told_in_plain_words(command: Command, names: list[str]) -> None:
    a = names[0]
    command.provision(a, names[1])
    for each in names[:2]:
        assert command("dbs", "delete", command.cluster, each, "--yes", "--not-a-tenant").code == 0
    for verb in (["rotate"], ["usage"]):
        failed = command("tenants", verb[0], a, *verb[1:], *command.place)
        assert failed.code == 1
        assert f"{a}: the database '{a}' does not exist, and what was in it is lost\n" in failed.err
        assert "SET " not in failed.err
    command.leave(names[1], Verb.REMOVE)
    removing = command("tenants", "usage", names[1], *command.place)
    assert (removing.code, f"the tenant '{names[1]}' is being removed" in removing.err) == (1, True)
    assert "lost" not in removing.err
    rotated = command("tenants", "rotate", a, *command.place)
    [repair] = re.findall("make an empty one: aiodbclient (.*)", rotated.err)
    assert command(*shlex.split(repair)).code == 0
    assert command("tenants", "rotate", a, *command.place).code == 0


def test_what_ends_logins_asks_first_and_says_how_many(command: Command, names: list[str]) -> None:
    a, b, c = names[:3]
    command.provision(a, b, c)
    nothing = command("tenants", "revoke-previous", a, *command.place)
    assert (nothing.code, nothing.out) == (0, "1 kept\n")
    assert command("tenants", "rotate", a, b, *command.place).code == 0
    revoke = ["tenants", "revoke-previous", a, b, c, *command.place]
    asked = command(*revoke)
    assert f"Revoke the previous logins of {a}, {b} (2 logins of 2 tenants) on {command.cluster}, and" in asked.err
    assert (asked.code, "Programs that still use them stop working." in asked.err) == (2, True)
    force = ["tenants", "rotate", a, c, "--force", *command.place]
    asked = command(*force)
    assert "Give 2 logins on tenants-prod new credentials? This ends 1 old login: programs that still use" in asked.err
    assert asked.code == 2
    assert command("tenants", "rotate", c, "--force", *command.place).code == 0  # it ends none
    terminal = command.terminal(*revoke, columns=200)
    assert "stop working. [y/N]" in terminal.expect("[y/N]")
    terminal.type("n\n")
    code, seen = terminal.end()
    assert (code, "nothing was changed" in seen) == (3, True)
    pending = [each["pending"] for each in command("tenants", "list", *command.place, "--json").objects()]
    assert pending == ["revoke-previous", "revoke-previous", "revoke-previous"]
    assert command(*force, "--yes").out == "2 rotated\n"
    assert command(*revoke, "--yes").out == "3 revoked\n"


def test_exec_ends_with_the_codes_that_its_help_says(command: Command, names: list[str]) -> None:
    a = names[0]
    command.provision(a)
    run = ["tenants", "exec", a, *command.place]
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    said = " ".join(command("tenants", "exec", "--help").out.split())
    assert "this exits with its exit code: 127 if there is no such program, 3 if --timeout ended it, 4 if" in said
    assert "4 if --timeout was over before it began." in said
    early = command.process(*run, "--timeout", "0s", "--", *sleep)
    assert (early.code, early.err) == (4, "aiodbclient: no answer within --timeout 0s\n")
    assert command.process(*run, "--", sys.executable, "-c", "exit(7)").code == 7
    assert command.process(*run, "--", "nosuchprogram").code == 127
    ended = command.process(*run, "--timeout", "10s", "--", *sleep)
    assert (ended.code, "--timeout has ended the program. To go on: aiodbclient tenants exec" in ended.err) == (3, True)
    assert "-o json" in said.partition("this exits with 1 if one failed")[0]
    failed = command.process(*run, "--json", "--", sys.executable, "-c", "exit(7)")
    assert (failed.code, failed.objects()[0]["exit_code"]) == (1, 7)


def test_a_name_that_the_store_knows_is_not_asked_of_the_api(command: Command, names: list[str]) -> None:
    a = names[0]
    command.provision(a)
    before = len(command.sandbox.requests)
    for verb in ("list", "capacity", "show"):
        assert command("tenants", verb, *command.place).code == 0
    for which in (a, "--all"):
        assert command.process("tenants", "exec", which, *command.place, "--", "true").code == 0
    assert len(command.sandbox.requests) == before
    del command.environment["DIGITALOCEAN_TOKEN"]
    assert a in command("tenants", "list", *command.place).out
    [listed] = command("tenants", "list", "--store", command.store, "--json").objects()
    assert listed["cluster_name"] == command.cluster
    unknown = command("tenants", "list", "--cluster", "nowhere", "--store", command.store)
    assert (unknown.code, "there is no API token" in unknown.err) == (2, True)


def test_a_wrong_token_or_id_says_what_to_do(command: Command) -> None:
    wrong = command("tenants", "check", "--cluster", str(uuid4()), "--store", command.store)
    assert (wrong.code, "`aiodbclient clusters list` lists them" in wrong.err) == (2, True)
    command.environment["DIGITALOCEAN_TOKEN"] = command.sandbox.add_token(["database:create"])
    lacking = command("clusters")
    assert (lacking.code, "database:read" in lacking.err, "in the control panel, under API" in lacking.err) == (
        4,
        True,
        True,
    )
    command.environment["DIGITALOCEAN_TOKEN"] = "hunter2-wrong"
    refused = command("clusters").err
    assert "wrong, expired or revoked. Make another one in the control panel, under API: tenants need the" in refused
    assert "scopes database:read and database:view_credentials" in refused
    doctor = command("doctor", command.cluster).out
    assert doctor.count("Make ") == 1


@pytest.mark.parametrize(
    "admin",
    ["host=h user=doadmin password='hunter2 hunter2'", "mysql://doadmin:hunter2 hunter2@h/d"],
    ids=["dsn", "url"],
)
def test_a_command_to_copy_masks_a_password_with_spaces(command: Command, names: list[str], admin: str) -> None:
    command.provision(names[0])
    asked = command("tenants", "remove", names[0], *command.place, "--admin", admin)
    assert (asked.code, "--admin" in asked.err, "hunter2" in asked.err) == (2, True, False)


def test_a_password_with_a_bracket_is_no_crash(command: Command) -> None:
    refused = command("tenants", "list", "--store", "postgresql://u:p[hunter2@127.0.0.1:1/d")
    assert (refused.code, refused.err.startswith("aiodbclient: cannot use the store")) == (4, True), refused.err
