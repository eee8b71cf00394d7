"""``client.request``: any call of the API, with the same rate limiter, retries and masking as the others."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiodbclient import RateLimiter, RequestEvent, errors
from aiodbclient._http.call import RequestStats
from aiodbclient.clusters import for_work
from aiodbclient.rate_limiter import Window

from .conftest import MakeClient, MakeCluster
from .server import CLUSTER, Server, fails, hangs_up, says

FIREWALL = f"/v2/databases/{CLUSTER}/firewall"
RULES = {"rules": [{"type": "ip_addr", "value": "192.168.1.1"}]}


async def test_it_returns_the_json_of_the_answer(server: Server, make_client: MakeClient) -> None:
    client = make_client()
    server.will(says(200, RULES), says(200, [1, None, "ä"]), says(204), says(200, text=" \n"), says(200))

    assert await client.request("GET", FIREWALL) == RULES
    assert await client.request("get", "/v2/databases/options") == [1, None, "ä"]
    assert await client.request("PUT", FIREWALL, json=RULES) is None
    assert await client.request("POST", FIREWALL, json={}) is None
    assert await client.request("HEAD", FIREWALL) is None

    assert [request.body for request in server.requests] == [None, None, RULES, {}, None]
    assert server.calls[1] == ("GET", "/v2/databases/options")
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer secret-token"}


async def test_params_become_the_query(server: Server, make_client: MakeClient) -> None:
    server.will(says(200, {}))

    await make_client().request(
        "GET", "/v2/databases", params={"tag_name": "a b&c", "per_page": 200, "all": True, "id": ["x", 2]}
    )

    assert server.calls == [("GET", "/v2/databases?tag_name=a+b%26c&per_page=200&all=true&id=x&id=2")]


async def test_it_is_paced_by_the_same_limiter(server: Server, make_client: MakeClient) -> None:
    server.otherwise = says(200, RULES)
    client = make_client(rate_limiter=RateLimiter([Window(1, 60.0)]), max_wait=0.0)
    await client.request("GET", FIREWALL)

    with pytest.raises(errors.MaxWaitError, match=r"^request \(GET /v2/.*no slot.*it was not sent"):
        await client.request("GET", FIREWALL)
    with pytest.raises(errors.MaxWaitError):
        await client.clusters.list()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_safe_requests_are_repeated(method: str, server: Server, make_client: MakeClient) -> None:
    server.will(hangs_up, fails(503), fails(429, retry_after="0.01"), says(204))

    assert await make_client().request(method, FIREWALL) is None
    assert [call[0] for call in server.calls] == [method] * 4


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("failure", [hangs_up, fails(503)])
async def test_a_lost_post_is_not_sent_again(
    method: str, failure: Any, server: Server, make_client: MakeClient
) -> None:
    server.will(fails(429, retry_after="0.01"), failure)

    with pytest.raises(errors.DatabaseClientError, match=r"may have been applied") as caught:
        await make_client().request(method, FIREWALL, json={"name": "pool"})

    assert caught.value.may_have_applied
    assert len(server.requests) == 2


OTHER_PATHS: list[Any] = [
    "https://elsewhere.example/v2/databases",
    "//elsewhere.example/v2/databases",
    "v2/databases",
    "/v3/databases",
    "/v2",
    "/v2/",
    "/v2x/databases",
    "/v2/databases/",
    "/v2//databases",
    "/v2/databases/../droplets",
    "/v2/databases/./options",
    "/v2/databases/%2e%2e/droplets",
    "/v2/databases/%2E./droplets",
    "/v2/databases/..%2fdroplets",
    "/v2/databases/a%2f..%2f..",
    "/v2/databases/a%5c..%5cdroplets",
    "/v2/databases/..;/droplets",
    "/v2/databases/%252e%252e/droplets",
    "/v2/databases/a%00b",
    "/v2/databases/a%0d%0ab",
    "/v2/databases/a%zz",
    "/v2/databases/a%2",
    "/v2/databases?tag_name=x",
    "/v2/databases#x",
    "/v2/databases/a b",
    "/v2/databases/a\nb",
    "/v2/databases/a\\b",
    "/v2/databases/ä",
    "/v2/databases/" + "a" * 9000,
    "",
    None,
    b"/v2/databases",
]
CYCLE: list[Any] = []
CYCLE.append(CYCLE)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]
OTHER_BODIES: dict[str, Any] = {
    "a set": {"hunter2"},
    "an object": {"a": object()},
    "bytes": {"a": b"hunter2"},
    "nan": math.nan,
    "inf": {"a": math.inf},
    "half a character": {"password": "hunter2\ud800"},
    "a cycle": CYCLE,
    "nested deeply": DEEP,
    "a long text": "a" * (1 << 20),
}
OTHER_METHODS = ["OPTIONS", "CONNECT", "", "GET ", None, 1]
OTHER_PARAMS: list[Any] = [{"a": None}, {"a": object()}, {"a": [None]}, {"a": "\ud800"}, "a=b", 1]


@pytest.mark.parametrize(
    ("argument", "value", "complaint"),
    [
        *(("path", path, "nothing was sent") for path in OTHER_PATHS),
        *(pytest.param("json", body, r"^json .*nothing was sent", id=name) for name, body in OTHER_BODIES.items()),
        *(("params", params, r"^params.*nothing was sent") for params in OTHER_PARAMS),
        *(("method", method, r"^method must be one of GET, HEAD") for method in OTHER_METHODS),
    ],
)
async def test_other_argument_is_refused(
    argument: str, value: Any, complaint: str, server: Server, make_client: MakeClient
) -> None:
    arguments: dict[str, Any] = {"method": "PUT", "path": FIREWALL, argument: value}
    with pytest.raises(errors.InvalidArgumentError, match=complaint) as caught:
        await make_client().request(**arguments)
    assert "hunter2" not in str(caught.value)
    assert not server.requests


@pytest.mark.parametrize("path", ["/v2/databases/a%2Fb", "/v2/droplets/1/actions", "/v2/databases/a%25b%20c/x:y@z"])
async def test_a_path_is_sent_as_it_is(path: str, server: Server, make_client: MakeClient) -> None:
    server.will(says(200, {}))
    await make_client().request("GET", path)
    assert server.calls == [("GET", path)]


async def test_answer_without_json_is_an_error(server: Server, make_client: MakeClient) -> None:
    client = make_client()
    server.will(says(200, text="<html>password=hunter2"), says(200, text="[" * 100_000), says(302, location="/"))

    for _ in range(3):
        with pytest.raises(errors.InvalidResponseError) as caught:
            await client.request("GET", FIREWALL)
        assert "hunter2" not in repr(vars(caught.value))
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


# Requests that are part of other work.


async def test_an_event_has_the_label_of_its_work(server: Server, make_cluster: MakeCluster) -> None:
    events: list[RequestEvent] = []
    stats = RequestStats()
    server.will(fails(503), says(200, {"users": []}))
    cluster = make_cluster(on_event=events.append)
    assert await for_work(cluster, stats=stats, label="alpha").users.list() == []
    assert (stats.requests, {event.label for event in events}) == (2, {"alpha"})


async def test_an_event_of_another_call_has_no_label(server: Server, make_client: MakeClient) -> None:
    events: list[RequestEvent] = []
    server.will(says(200, {}))
    await make_client(on_event=events.append).request("GET", FIREWALL)
    assert [(event.operation, event.label) for event in events] == [("request", None)]
