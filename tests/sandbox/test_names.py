"""Any name is one percent-encoded segment of the path."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._protocol import NOWHERE, Route, match

from .conftest import Call

CLUSTER = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=15)


@given(names)
def test_every_name_comes_back_from_its_segment(name: str) -> None:
    path = f"/v2/databases/{CLUSTER}/users/{quote(name, safe='')}"
    assert match("GET", path) == Route("users.get", CLUSTER, name)
    assert match("POST", path + "/reset_auth") == Route("users.reset_auth", CLUSTER, name)


@pytest.mark.parametrize(
    ("segment", "name"), [("a%2Fb", "a/b"), ("a%252Fb", "a%2Fb"), ("a%3Fb?c", "a?b"), ("a+b", "a+b"), ("%20", " ")]
)
def test_a_segment_is_decoded_once(segment: str, name: str) -> None:
    assert match("GET", f"/v2/databases/{CLUSTER}/dbs/{segment}").name == name


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2/databases/",
        "/v1/databases",
        "//v2/databases",
        f"/v2/databases/{CLUSTER}/users/",
        f"/v2/databases/{CLUSTER}/users/a/b",
        f"/v2/databases/{CLUSTER}//a",
        f"/v2/databases/{CLUSTER}/users/a/reset_auth/",
        f"http://elsewhere/v2/databases/{CLUSTER}",
    ],
)
def test_other_paths_lead_nowhere(path: str) -> None:
    assert match("GET", path) == NOWHERE
    assert match("DELETE", path) == NOWHERE


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(name=names)
async def test_a_name_makes_the_round_trip_over_http(sandbox: Sandbox, call: Call, name: str) -> None:
    ids = list(sandbox.clusters) or [await sandbox.add_cluster("opensearch")]
    users = f"/v2/databases/{ids[0]}/users"
    if name in (".", "..", "doadmin"):
        return  # no client can send dots in a path, and the primary user exists
    assert (await call("POST", users, {"name": name})).json["user"]["name"] == name
    here = f"{users}/{quote(name, safe='')}"
    assert (await call("GET", here)).json["user"]["name"] == name
    assert sandbox.requests[-1].name == name
    assert (await call("DELETE", here)).status == 204
