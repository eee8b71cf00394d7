"""The pytest fixtures in another project's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..proc import passed_in

ASYNC_TEST = """
import pytest

{mark}
async def test_signup(aiodbclient_sandbox, aiodbclient_client):
    cluster = aiodbclient_client.cluster(await aiodbclient_sandbox.add_cluster("pg", backend="memory"))
    user = await cluster.users.create("tenant")
    assert (await cluster.users.get("tenant")).password == user.password
    aiodbclient_sandbox.faults.add("users.get", status=503, nth=1)
    await cluster.users.get("tenant")
    assert [r.status for r in aiodbclient_sandbox.requests if r.operation == "users.get"] == [200, 503, 200]

{mark}
async def test_each_test_has_its_own(aiodbclient_sandbox):
    assert aiodbclient_sandbox.clusters == {{}}
    assert aiodbclient_sandbox.requests == []
"""
TENANTS_TEST = """
import psycopg, pytest

ports = []

{mark}
@pytest.mark.parametrize("again", range(3))
async def test_each_test_has_its_own_tenants(aiodbclient_tenants, aiodbclient_sandbox, again):
    credential = await aiodbclient_tenants.ensure("alpha")
    async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
        await connection.execute("CREATE TABLE notes (text text)")  # is not there from the test before
        ports.append(connection.info.port)
    assert len(set(ports)) == 1
    assert len(aiodbclient_sandbox.clusters) == 1

{mark}
@pytest.mark.parametrize("aiodbclient_tenants", [{{"connections": 22}}], indirect=True)
async def test_the_cluster_has_the_options_of_the_test(aiodbclient_tenants):
    credential = await aiodbclient_tenants.ensure("alpha")
    async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
        rows = await connection.execute("SELECT current_setting('max_connections')::int < 40")
        assert await rows.fetchone() == (True,)
"""
SYNC_TEST = """
import asyncio, urllib.request

def test_without_async(aiodbclient_sandbox):
    asyncio.run(aiodbclient_sandbox.add_cluster("redis"))
    request = urllib.request.Request(
        aiodbclient_sandbox.url + "/v2/databases", headers={"authorization": "Bearer " + aiodbclient_sandbox.token}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
"""
IDLE_TEST = """
import sys

def test_nothing_is_imported_unasked():
    assert "aiodbclient._pytest_plugin" in sys.modules
    assert not {"aiodbclient.client", "aiohttp", "attrs"} & set(sys.modules)
"""
STRICT = ["-o", "asyncio_mode=strict", "-o", "asyncio_default_fixture_loop_scope=function"]
AUTO = ["-o", "asyncio_mode=auto", *STRICT[2:]]
ONLY_ASYNCIO = ["-p", "no:aiohttp", "-p", "no:anyio", "-p", "no:schemathesis", "-p", "no:hypothesispytest"]
ONLY_ANYIO = ["-p", "no:asyncio", "-p", "no:aiohttp", "-p", "no:schemathesis", "-p", "no:hypothesispytest"]
ONLY_OURS = [*ONLY_ANYIO, "-p", "no:anyio", "-p", "no:xdist"]


@pytest.mark.parametrize(
    ("tests", "mark", "options"),
    [
        pytest.param([ASYNC_TEST], "", [*ONLY_ASYNCIO, *AUTO], id="asyncio-auto"),
        pytest.param(
            [ASYNC_TEST, TENANTS_TEST],
            "@pytest.mark.asyncio",
            [*ONLY_ASYNCIO, *STRICT],
            id="asyncio-strict",
            marks=pytest.mark.thorough,
        ),
        pytest.param([ASYNC_TEST], "@pytest.mark.anyio", ONLY_ANYIO, id="anyio", marks=pytest.mark.thorough),
        pytest.param([IDLE_TEST, SYNC_TEST], "", ONLY_OURS, id="no other plugin"),  # the first one imports nothing
    ],
)
def test_the_fixtures_work_with(tmp_path: Path, tests: list[str], mark: str, options: list[str]) -> None:
    (tmp_path / "conftest.py").write_text("import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n")
    for number, test in enumerate(tests):
        text = test.format(mark=mark) if "{mark}" in test else test
        (tmp_path / f"test_{number}.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    passed, printed = passed_in(tmp_path, *options)
    assert passed == sum(test.count("def test_") for test in tests) + 2 * (TENANTS_TEST in tests)
    assert "warning" not in printed
