"""``revoke-previous``: how many sessions of old logins are open, and ``--unused``. A rotation that is stopped."""

from __future__ import annotations

import psycopg
import pytest

from ..waiting import wait_until
from .conftest import Command


@pytest.fixture
def rotated(command: Command, names: list[str]) -> list[str]:
    """The URIs of the logins of two tenants from before their rotation."""
    command.provision(*names[:2])
    old = command("tenants", "show", *names[:2], *command.place, "-o", "uri", shows=True).out.split()
    assert command("tenants", "rotate", *names[:2], *command.place).code == 0
    return old


def test_open_sessions_are_counted(command: Command, names: list[str], rotated: list[str]) -> None:
    """The question says how many sessions of the previous logins are open."""
    a, b = names[:2]
    revoke = ["tenants", "revoke-previous", a, b, *command.place]
    with psycopg.connect(rotated[0]), psycopg.connect(rotated[0]), psycopg.connect(rotated[1]):
        asked = command(*revoke)
        said = f"Revoke the previous logins of {a}, {b} (2), and end their 3 open sessions?"
        assert (asked.code, said in asked.err) == (2, True), asked.err
    assert command(*revoke, "--yes").out == "2 revoked\n"
    nothing = command(*revoke)
    assert (nothing.code, nothing.out) == (0, "2 kept\n")  # and it does not ask


@pytest.mark.thorough
def test_stopped_rotation_goes_on(embedded: Command, names: list[str]) -> None:
    """A rotation that was stopped names the option with which it goes on: without, those that are done are refused."""
    embedded.provision(names[0])
    stalled = embedded.proxy.add(login="doadmin", delay=3600.0)
    for older, said in ([], "again, with --older-than 1h\n"), (["--older-than", "0s"], "run the same command again\n"):
        stalled.fired = 0
        process = embedded.start("tenants", "rotate", names[0], *older, *embedded.place)
        wait_until(lambda: stalled.fired)
        done = embedded.interrupt_twice(process)
        assert (done.code, done.out, done.err.endswith(said)) == (3, "", True), done.err


def test_unused_keeps_what_is_used(command: Command, names: list[str], rotated: list[str]) -> None:
    """--unused keeps a login that has open sessions, and says how many."""
    a, b = names[:2]
    revoke = ["tenants", "revoke-previous", a, b, "--unused", "--yes", *command.place]
    with psycopg.connect(rotated[0]) as used:
        done = command(*revoke)
        assert (done.code, done.out.splitlines()[-1]) == (0, "1 kept, 1 revoked")
        assert f"{a}: kept, 1 sessions of the previous login are open\n" in done.out
        used.execute("SELECT 1")
        [kept] = [each for each in command(*revoke, "-o", "json").objects() if each["name"] == a]
        assert (kept["action"], kept["sessions"]) == ("kept", 1)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(rotated[1])


def test_unanswered_server_is_said(command: Command, names: list[str], rotated: list[str]) -> None:
    """If a server cannot be asked, the question says so, and nothing is changed."""
    command.sandbox.faults.add("clusters.get", status=403)
    asked = command("tenants", "revoke-previous", names[0], *command.place)
    asked.fails(2, "and end their sessions (how many is unknown: ")
