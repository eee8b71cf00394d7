"""The users of a cluster from a file: ``users provision``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from aiodbclient import KafkaACL, MongoUserSettings, MySQLSettings, NewUser, OpenSearchACL, UserSettings, errors
from aiodbclient._cli.plumbing.files import read_users

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


def test_read_users_with_settings(tmp_path: Path) -> None:
    """YAML and JSON hold users as the API's POST takes them, alone or under ``users:``."""
    import yaml

    file = tmp_path / "users.yaml"
    file.write_text(EVERYTHING)
    assert read_users(None, file) == USERS
    listed = yaml.safe_load(EVERYTHING)["users"]
    for text in (yaml.safe_dump(listed), json.dumps(listed), json.dumps({"users": listed})):
        for name in ("users.yaml", "users"):  # the form is known by its beginning too
            (tmp_path / name).write_text(text)
            assert read_users(None, tmp_path / name) == USERS
    file.write_text("[]")
    assert read_users(None, file) == []


def test_read_users_of_csv(tmp_path: Path) -> None:
    """A CSV has their names in the column ``name``."""
    file = tmp_path / "users.csv"
    file.write_text("plan,name\ngold,ann\nfree,bob\n")
    assert read_users(None, file) == [NewUser("ann"), NewUser("bob")]
    assert read_users(["ann"], None) == [NewUser("ann")]


def test_read_users_of_guide(tmp_path: Path) -> None:
    """The example of the guide has settings of each engine."""
    guide = (Path(__file__).parents[2] / "docs" / "how-to" / "operate.md").read_text()
    [block] = re.findall(r"^```text\n(users:\n.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "users.yaml").write_text(block)

    users = read_users(None, tmp_path / "users.yaml")

    assert [user.name for user in users] == ["replica", "legacy", "reports", "shipping", "logs"]
    assert all(user.settings or user.mysql_settings for user in users)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not a list of users"),
        ("user: []\n", "not a list of users, alone or under `users:`"),
        ("- name: a\n- nmae: b\n", r"extra fields found \(nmae\) @ users\[1\]"),
        ("- name: a\n- settings: {}\n", r"required field missing @ users\[1\]\.name"),
        ("- name: a\n- b\n- name: a\n", "given twice: a"),
        ("- name: 123\n", r"expected str @ users\[0\]\.name"),
        ("- name: a\n  readonly: 'no'\n", r"expected bool \| None @ users\[0\]\.readonly"),
        ("- name: a\n  settings: {acl: x}\n", r"@ users\[0\]\.settings\.acl"),
        (
            "- name: a\n  settings: {mongo_user_settings: {databases: shop, role: readOnly}}\n",
            r"@ users\[0\]\.settings\.mongo_user_settings\.databases",
        ),
        (
            "- name: a\n- name: b\n  settings:\n    acl:\n    - {topic: x, permission: consum}\n",
            r"KafkaPermission.* @ users\[1\]\.settings\.acl\[0\]\.permission",
        ),
        ("- name: a\n  password: secret\n", r"extra fields found \(password\)"),
        ("&a [*a]", r"expected NewUser @ users\[0\]"),
        ("- name: a\n  settings: [1]\n", r"@ users\[0\]\.settings"),
        ("- name: [\n", "line 2: not YAML or JSON"),
        ("- !!python/object:os.system x\n", "line 1: not YAML or JSON"),
        ("[" * 1_000_000, "not YAML or JSON"),
        (f"- name: {'9' * 100_000}", "not YAML or JSON"),
    ],
)
def test_wrong_users_file_names_path(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "users.yaml").write_text(text)

    with pytest.raises(errors.InvalidArgumentError, match=complaint) as refused:
        read_users(None, tmp_path / "users.yaml")
    assert len(str(refused.value)) < 1000
