"""The page about the provider says what the client and the sandbox do."""

from __future__ import annotations

import re
from pathlib import Path

from aiodbclient import RateLimiter, Window
from aiodbclient.sandbox import _provider

PAGE = (Path(__file__).parents[2] / "docs" / "why" / "provider.md").read_text()
ROWS = dict(re.findall(r"^\| `([\w-]+)` \| (.+?) \|", PAGE, re.MULTILINE))


def test_untried_assumptions_have_rows() -> None:
    """Each assumption that neither doctor nor the live tests try is in a table."""
    [untried] = re.findall(r"Neither tries (.+?):", PAGE, re.DOTALL)
    assert {*re.findall(r"`([\w-]+)`", untried)} <= ROWS.keys()
    assert len(ROWS) > 20


def test_windows_are_the_clients() -> None:
    """The rate limit of the page is the client's default."""
    minute, hour = (int(each.replace(",", "")) for each in re.findall(r"[\d,]{3,}", ROWS["windows"]))
    assert RateLimiter().windows == (Window(minute, 60.0), Window(hour, 3600.0))
    assert f"{hour:,} an hour" in PAGE


def test_roles_are_the_sandboxes() -> None:
    """The sandbox creates the provider's roles that the page names, and no other."""
    made = {*_provider.SYSTEM_ROLES, *re.findall(r"CREATE ROLE (_?\w+)", _provider.make_primary(18)[0])}
    assert made == {*re.findall(r"`(_\w+|doadmin_group)`", PAGE)}


def test_mysql_rights_are_the_sandboxes() -> None:
    """The administrator of MySQL has the dynamic rights that the page names, and reads the schemas that it names."""
    [rights] = re.findall(r"has many rights on .+?\(twin", PAGE, re.DOTALL)
    assert all(right in rights for right in _provider.MYSQL_DYNAMIC_RIGHTS.split(", "))
    assert all(f"`{schema}`" in rights for schema in _provider.MYSQL_GUARDED)
