"""Commands on a whole store: its records, its key, a copy, and stores of other packages."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from aiodbclient.errors import StoreError
from aiodbclient.tenants import SQLiteStore
from aiodbclient.tenants._record import Verb

from .conftest import Command


def test_a_key_is_made_changed_and_dropped(command: Command) -> None:
    old, new = (command("store", "keygen", shows=True).out.strip() for _ in range(2))
    assert old != new
    command.environment["AIODBCLIENT_STORE_KEY"] = old
    assert command("tenants", "provision", "sealed", *command.place).code == 0

    alone = command("store", "rekey", command.store)
    assert (alone.code, "to NEW,OLD" in alone.err) == (2, True)
    command.environment["AIODBCLIENT_STORE_KEY"] = f"{new},{old}"
    assert command("store", "rekey", command.store).out == "1 records rewritten\n"
    command.environment["AIODBCLIENT_STORE_KEY"] = new
    assert "sealed" in command("store", "list", command.store).out
    command.environment["AIODBCLIENT_STORE_KEY"] = old
    refused = command("store", "list", command.store)
    assert (refused.code, refused.out) == (4, "")
    command.environment["AIODBCLIENT_STORE_KEY"] = new
    assert command("tenants", "remove", "sealed", *command.place, "--yes").code == 0


def test_a_store_is_copied_to_another_key(command: Command) -> None:
    key = command("store", "keygen", shows=True).out.strip()
    target = str(command.folder / "target.db")
    assert command("tenants", "provision", "copied", *command.place).code == 0

    command.environment["AIODBCLIENT_STORE_KEY_TO"] = key
    copied = command("store", "copy", command.store, target)
    assert copied.out == "1 records copied\n"
    assert copied.err.endswith(f"as plain text. Delete it when all processes use the copy: rm {command.store}\n")
    assert command("store", "copy", command.store, target, "-o", "json").out == '{"copied": 0}\n'
    assert b"AVNS_" not in Path(target).read_bytes()
    command.environment["AIODBCLIENT_STORE_KEY"] = key
    assert "copied" in command("store", "list", target).out

    del command.environment["AIODBCLIENT_STORE_KEY"]
    command.environment["AIODBCLIENT_STORE_KEY_TO"] = ""
    same = command("store", "copy", command.store, command.store)
    assert (same.code, "are the same" in same.err) == (2, True)
    missing = command("store", "copy", str(command.folder / "no.db"), target)
    assert (missing.code, "does not exist" in missing.err) == (4, True)
    command.environment["AIODBCLIENT_STORE_KEY"] = key
    there = ["--cluster", command.cluster, "--store", target]
    assert command("tenants", "remove", "copied", *there, "--yes").code == 0


def test_a_backup_is_refreshed_and_never_the_wrong_way_round(command: Command) -> None:
    backup = str(command.folder / "backup.db")
    assert command("tenants", "provision", "kept", "turned", *command.place).code == 0
    copy = ["store", "copy", command.store, backup, "--backup"]
    assert command(*copy).out == "2 records copied\n"
    assert command("tenants", "provision", "added", *command.place).code == 0
    reads = ["tenants", "show", "turned", "-o", "uri"]
    for verb in ("rotate", "revoke-previous", "suspend", "resume"):
        assert (
            command(
                "tenants", verb, "turned", *command.place, *(["--yes"] if verb in ("suspend", "revoke-previous") else [])
            ).code
            == 0
        )
        wrong = command("store", "copy", backup, command.store, "--backup")
        assert (wrong.code, "has records and is no backup" in wrong.err) == (2, True)
        done = command(*copy)
        assert (done.code, done.out) == (0, "2 records copied\n" if verb == "rotate" else "1 records copied\n"), (
            done.err
        )
        assert command(*copy).out == "0 records copied\n"
    uris = {command(*reads, "--store", each, shows=True).out for each in (command.store, backup)}
    assert len(uris) == 1
    command.leave("kept", Verb.ROTATE)
    assert command(*copy).out == "1 records copied\n"
    assert command("tenants", "repair", "kept", *command.place).code == 0
    assert command(*copy).out == "1 records copied\n"
    assert command("tenants", "check", *command.place).out == "3 checked: all well\n"

    older = str(command.folder / "older.db")
    assert command("store", "copy", command.store, older, "--backup").code == 0
    assert command("tenants", "rotate", "turned", *command.place).code == 0
    assert command(*copy).out == "1 records copied\n"
    refused = command("store", "copy", older, backup, "--backup")
    assert (refused.code, "a newer record of 'turned' than the source" in refused.err) == (4, True)
    assert command("tenants", "remove", "--all", *command.place, "--yes", "--max", "3").code == 0


def test_a_backup_is_no_store_until_it_is_restored(command: Command) -> None:
    backup, restored = str(command.folder / "backup.db"), str(command.folder / "restored.db")
    command.environment["AIODBCLIENT_PREFIX"] = "restored-"  # others have tenants on this server
    assert command("tenants", "provision", "alpha", "beta", *command.place).code == 0
    copy = ["store", "copy", command.store, backup]
    assert command(*copy, "--backup").code == 0
    assert (command(*copy, "--backup", "--restore").code, command(*copy, "--restore").code) == (2, 2)
    place = ["--cluster", command.cluster, "--store", backup]
    for verb in (["rotate", "--force"], ["remove"], ["suspend"], ["provision"], ["check"]):
        yes = ["--yes"] if verb[0] in ("rotate", "remove", "suspend") else []
        refused = command("tenants", *verb, "alpha", *place, *yes)
        assert (refused.code, refused.out) == (4, "")
        assert f"{backup} is a backup of the store {command.store}: use that one. If that one is lost: " in refused.err
        assert refused.err.endswith("Nothing was changed\n")
    read = command("tenants", "list", *place)
    assert (read.code, "What this one says may be old, and it takes no change" in read.err) == (0, True)

    async def use() -> None:
        async with SQLiteStore(backup) as store:
            assert await store.get("alpha") is not None
            with pytest.raises(StoreError, match="it is a backup of the store"):
                await store.claim("alpha", 10.0)

    asyncio.run(use())
    assert command("tenants", "rotate", "alpha", *command.place).code == 0
    assert command("tenants", "revoke-previous", "alpha", *command.place, "--yes").code == 0
    assert command("tenants", "provision", "gamma", *command.place).code == 0
    Path(command.store).unlink()
    [line] = re.findall(r"lost: aiodbclient (.*)\. Nothing", refused.err)
    by_accident = command("store", "copy", backup, restored)
    assert (by_accident.code, f"{backup} {restored} --restore. Nothing" in by_accident.err) == (2, True)
    assert not Path(restored).exists()
    words = [restored if word == "restored.db" else word for word in shlex.split(line)]
    done = command(*words)
    assert (done.code, done.out) == (0, "2 records copied\n")
    assert "What this one says may be old" not in done.err
    [repair] = re.findall(r"that it repairs: aiodbclient (.*)\n", done.err)
    [check] = re.findall(r"newer than the backup: aiodbclient (.*)\n", done.err)
    there = ["--cluster", command.cluster, "--store", restored]
    assert command("tenants", "check", *there).code == 5
    assert command(*shlex.split(repair)).code == 0
    assert command("tenants", "check", *there).out == "2 checked: all well\n"
    newer = command(*shlex.split(check))
    assert (newer.code, newer.out) == (5, "gamma: not_on_record\n3 checked\n")
    [adopt] = re.findall(r"take them over: aiodbclient (.*)\n", newer.err)
    assert command(*shlex.split(adopt), "--yes").out == "1 adopted\n"
    assert command(*shlex.split(check)).out == "3 checked: all well\n"
    assert command("tenants", "check", "alpha", *there, "--not-on-record").code == 2
    assert command("store", "copy", restored, backup, "--backup").code == 0
    assert command("tenants", "remove", "--all", *there, "--yes", "--max", "3").code == 0
    # What is gone from the store is gone from the backup only when somebody says so.
    assert command("store", "forget", backup, "alpha", "--yes").out == "alpha: forgotten\n"


def test_a_login_that_is_newer_than_the_backup_ends_and_repair_says_so(command: Command) -> None:
    backup, restored = str(command.folder / "backup.db"), str(command.folder / "restored.db")
    assert command("tenants", "provision", "newer", *command.place).code == 0
    assert command("store", "copy", command.store, backup, "--backup").code == 0
    assert command("tenants", "rotate", "newer", *command.place).code == 0
    hint = command("store", "copy", backup, restored, "--restore").err
    assert "ends logins that were made after it. Deliver the credential of each tenant that it repairs: " in hint
    there = ["--cluster", command.cluster, "--store", restored]
    said = [" ".join(command("tenants", verb, "--help").out.split()) for verb in ("check", "repair")]
    assert "`login_back`, for example: a login that is not on record can log in" in said[0]
    assert "after a restore of the store, those that were made after the backup" in said[1]
    assert command("tenants", "check", *there).out.startswith("newer: login_back\n")
    repaired = command("tenants", "repair", "newer", *there)
    what = "a login that is not on record, and may be newer, was ended: deliver the credential on record"
    assert repaired.out == f"newer: repaired: login_back ({what})\n1 repaired\n"
    assert command("tenants", "check", *there).out == "1 checked: all well\n"
    assert command("tenants", "remove", "newer", *there, "--yes").code == 0


def test_a_store_of_another_package_is_found_by_its_scheme(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, list[str] | None]] = []

    class Entry:
        name = "vault"

        @staticmethod
        def load() -> Any:
            def make(url: str, key: list[str] | None) -> SQLiteStore:
                opened.append((url, key))
                return SQLiteStore(command.store)

            return make

    def entry_points(*, group: str, name: str) -> list[type[Entry]]:
        return [Entry] if (group, name) == ("aiodbclient.stores", "vault") else []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    place = ["--cluster", command.cluster, "--store", "vault://secret/tenants"]
    assert command("tenants", "provision", "vaulted", *place).code == 0
    assert "vaulted" in command("tenants", "list", *place).out
    assert command("tenants", "remove", "vaulted", *place, "--yes").code == 0
    assert opened[0] == ("vault://secret/tenants", None)
