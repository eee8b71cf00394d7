"""The users of a cluster from a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from aiodbclient import (
    KafkaACL,
    MongoUserSettings,
    MySQLSettings,
    NewUser,
    OpenSearchACL,
    UserSettings,
    errors,
)

pytest.importorskip("yaml", reason="needs the cli extra")

from aiodbclient._cli.users_file import read_users

EVERYTHING = """\
# the users of everything
users:
- plain
- name: pg
  settings: {pg_allow_replication: true}
- name: my
  mysql_settings:
    auth_plugin: caching_sha2_password
- name: kafka
  settings:
    acl:
    - {topic: 'events.*', permission: consume}
- name: search
  settings:
    opensearch_acl: [{index: "logs*", permission: read}]
- name: mongo
  readonly: false
  settings:
    mongo_user_settings: {databases: [a, b], role: readWrite}
"""
USERS = [
    NewUser("plain"),
    NewUser("pg", settings=UserSettings(pg_allow_replication=True)),
    NewUser("my", MySQLSettings("caching_sha2_password")),
    NewUser("kafka", settings=UserSettings(acl=[KafkaACL("events.*", "consume")])),
    NewUser("search", settings=UserSettings(opensearch_acl=[OpenSearchACL("logs*", "read")])),
    NewUser(
        "mongo", None, UserSettings(mongo_user_settings=MongoUserSettings(["a", "b"], "readWrite")), readonly=False
    ),
]


def test_users_are_read_with_all_settings(tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "users.yaml"
    file.write_text(EVERYTHING)
    assert read_users(file) == USERS

    listed = yaml.safe_load(EVERYTHING)["users"]
    for text in (yaml.safe_dump(listed), json.dumps(listed, indent="\t"), json.dumps({"users": listed})):
        file.write_text(text)
        assert read_users(file) == USERS
    file.write_text("[]")
    assert read_users(file) == []


def test_the_examples_of_the_guide_are_read(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "how-to" / "operate.md").read_text()
    [block] = re.findall(r"^```text\n(users:\n.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "users.yaml").write_text(block)

    users = read_users(tmp_path / "users.yaml")

    assert [user.name for user in users] == ["replica", "legacy", "reports", "shipping", "logs"]
    assert all(user.settings or user.mysql_settings for user in users)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: this must be a list of users"),
        ("user: []\n", "line 1: the file has no member 'user'; it may have: users"),
        ("- name: a\n- nmae: b\n", "line 2: a user has no member 'nmae'; it may have: name, mysql_settings"),
        ("- name: a\n  settings:\n    acls: []\n", "line 3: settings has no member 'acls'; it may have: pg_allow"),
        ("- name: a\n- settings: {}\n", "line 2: a user needs `name`"),
        ("- name: a\n- b\n- name: a\n", "line 3: 'a' is there twice, first in line 1"),
        ("- name: a\n  name: b\n", "line 2: `name` comes twice"),
        ("- name: 123\n", r"line 1: this must be text, and is a number \(123\): put it between quotation marks"),
        ("- yes\n", "line 1: a user must have members such as `name:`"),
        ("- name: a\n  readonly: 'no'\n", r"line 2: this must be true or false, and is text \(no\)"),
        ("- name: a\n  settings: {acl: x}\n", "line 2: this must be a list"),
        ("- name: a\n  settings: {acl: [{topic: x}]}\n", "line 2: acl needs `topic` and `permission`"),
        (
            "- name: a\n- name: b\n  settings:\n    acl:\n    - {topic: x, permission: consum}\n",
            "line 5: 'consum' is not one of admin, consume, produce, produceconsume",
        ),
        ("- name: a\n  settings: {mongo_user_settings: {role: write}}\n", "line 2: 'write' is not one of readOnly"),
        ("- name: a\n  mysql_settings: {}\n", "line 2: mysql_settings needs `auth_plugin`"),
        ("- name: a\n  password: secret\n", "line 2: a user has no member 'password'"),
        ('{"users": [\n{"name": "a"},\n{"nme": "b"}]}', "line 3: a user has no member 'nme'"),
        ("- name: [\n", "line 2: not YAML or JSON"),
        ("- !!python/object:os.system x\n", "line 1: a user must have members"),
    ],
)
def test_the_error_of_a_wrong_file_names_the_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "users.yaml").write_text(text)

    with pytest.raises(errors.InvalidArgumentError, match=complaint):
        read_users(tmp_path / "users.yaml")


ENTRY = f"{{topic: {'a' * 2000}, permission: consume}}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("[" * 1_000_000, "not YAML or JSON", id="deep"),
        pytest.param("- " * 300_000, "not YAML or JSON", id="deep lists"),
        pytest.param("[" * 100_000 + "]" * 100_000, "not YAML or JSON", id="deep JSON"),
        pytest.param(f"- name: {'9' * 100_000}", r"a number \(9{60}\.\.\.\): put it between", id="huge number"),
        pytest.param(f'{{"users": {"9" * 100_000}}}', "must be a list of users", id="huge number in JSON"),
        pytest.param(f"- {{{'k' * 900}: a}}", "a user has no member 'k{59}\\.\\.\\.; it may have", id="long member"),
        pytest.param(
            f"- {{name: a, settings: &s {{acl: [&e {ENTRY}{', *e' * 100}]}}}}\n"
            + "".join(f"- {{name: u{n}, settings: *s}}\n" for n in range(30)),
            "too large, with what its aliases repeat",
            id="aliases",
        ),
        pytest.param("&a [*a]", "a user must have members", id="a list in itself"),
        pytest.param("- !!str [a]", "a user must have members", id="a list that says it is text"),
        pytest.param("- name: !!str {a: b}", "must be text, and is a mapping", id="a mapping that says it is text"),
        pytest.param("- {name: a, readonly: !!bool x}", "must be true or false", id="a flag that is none"),
        pytest.param("- {? [a] : b}", "a user has no member a list", id="a list as member"),
        pytest.param('{"name": "a", "name": "b"}', "the file has no member 'name'", id="JSON of one user"),
        pytest.param('[{"name": "a", "name": "b"}]', "`name` comes twice", id="JSON with a member twice"),
        pytest.param("- a\n---\n- b", "another document", id="two documents"),
        pytest.param('- "\\ud800"', "not YAML or JSON|unicode", id="half a character"),
    ],
)
def test_a_hostile_file_gets_an_error_in_time(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "users.yaml").write_text(text)

    with pytest.raises(errors.InvalidArgumentError, match=complaint) as refused:
        read_users(tmp_path / "users.yaml")
    assert len(str(refused.value)) < 1000


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="No such file"):
        read_users(tmp_path / "users.yaml")
    (tmp_path / "users.yaml").write_bytes(b"\xff")
    with pytest.raises(errors.InvalidArgumentError, match="not UTF-8"):
        read_users(tmp_path / "users.yaml")
