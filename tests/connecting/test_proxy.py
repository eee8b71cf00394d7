"""Through a proxy, which is another process, to an API with TLS."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme
from attrs import frozen
from yarl import URL

from aiodbclient import DatabaseClient, errors
from aiodbclient.client import _environment_proxy as environment_proxy

from ..server import CLUSTER, Server, says, serve
from ..waiting import until, wait_until


@frozen
class Proxy:
    """proxy.py with a password."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://me:hunter2@127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    port_file, log = folder / "port", folder / "log"
    options = ["--hostname=127.0.0.1", "--port=0", f"--port-file={port_file}", "--basic-auth=me:hunter2"]
    one = ["--num-acceptors=1", "--num-workers=1", f"--log-file={log}", f"--data-dir={folder}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", *options, *one],
        env=os.environ | {"HOME": f"{folder}"},  # it makes a folder there
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: process.poll() is not None or (port_file.exists() and port_file.read_text().strip()))
        yield Proxy(int(port_file.read_text()), log)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Server]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with serve(context) as server:
        server.otherwise = says(200, {"dbs": []})
        yield server


async def list_dbs(api: Server, folder: Path, options: str, **environment: str) -> str:
    """Run a program with these client options and environment that lists dbs, and return its output."""
    program = f"""
        import asyncio, traceback
        from aiodbclient import DatabaseClient, RetryPolicy

        async def main():
            async with DatabaseClient("secret-token", retry=RetryPolicy(max_tries=1), {options}) as client:
                print(await client.cluster("{CLUSTER}", engine="pg").dbs.list())

        try:
            asyncio.run(main())
        except Exception:
            traceback.print_exc()
        """
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    own = {"SSL_CERT_FILE": str(folder / "ca.pem"), "DIGITALOCEAN_API_URL": api.url}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(program),
        env=kept | own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return out.decode()


async def test_the_environments_proxy_is_used_on_request(api: Server, proxy: Proxy, tmp_path: Path) -> None:
    """The token is never that of a netrc file."""
    nowhere, netrc = "http://127.0.0.1:1", tmp_path / "netrc"
    netrc.write_text("default login me password from-netrc\n")

    assert await list_dbs(api, tmp_path, "trust_env=True", HTTPS_PROXY=proxy.url, NETRC=str(netrc)) == "[]\n"
    to = api.url.removeprefix("https://")
    await until(lambda: f"CONNECT {to}" in proxy.log.read_text())
    [request] = api.requests
    assert request.headers["authorization"] == "Bearer secret-token"
    assert "proxy-authorization" not in request.headers

    assert await list_dbs(api, tmp_path, "trust_env=False", HTTPS_PROXY=nowhere) == "[]\n"
    assert "ConnectError" in await list_dbs(api, tmp_path, "trust_env=True", HTTPS_PROXY=nowhere)
    assert await list_dbs(api, tmp_path, "trust_env=True", HTTPS_PROXY=nowhere, NO_PROXY="localhost") == "[]\n"


async def test_refusing_proxy_shows_no_password(api: Server, proxy: Proxy, tmp_path: Path) -> None:
    wrong = proxy.url.replace("hunter2", "hunter3")

    out = await list_dbs(api, tmp_path, "trust_env=True", HTTPS_PROXY=wrong)
    gone = await list_dbs(api, tmp_path, "trust_env=True", HTTPS_PROXY="http://me:hunter3@127.0.0.1:1")

    assert "ConnectError: dbs.list" in out
    assert "no connection: the proxy answered 407; it was not sent" in out
    assert "ConnectError: dbs.list" in gone
    assert "hunter3" not in out + gone
    assert api.requests == []


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://me:hunter2@host",
        "http://me:hunter2@",
        "http://me:hunter2@host:port",
        "http://me:hunter2@host/path",
        "http://host?password=hunter2",
    ],
)
def test_an_invalid_proxy_is_refused_and_not_quoted(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("https_proxy", proxy)

    with pytest.raises(errors.InvalidArgumentError, match=r"^HTTPS_PROXY must be like") as caught:
        DatabaseClient("token", base_url="https://api.example", trust_env=True)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"https_proxy": "http://host:3128"}, "http://host:3128"),
        ({"https_proxy": "host:3128"}, "http://host:3128"),
        ({"https_proxy": "https://host"}, "https://host"),
        ({"https_proxy": "http://me:secret@host:3128"}, "http://me:secret@host:3128"),
        ({"http_proxy": "http://host:3128"}, None),
        ({"https_proxy": "http://host:3128", "no_proxy": "api.example"}, None),
        ({"https_proxy": "http://host:3128", "no_proxy": "other.example"}, "http://host:3128"),
    ],
)
def test_the_environments_proxy_is_that_of_https(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], found: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    chosen = environment_proxy(URL("https://api.example"))

    assert chosen == (None if found is None else URL(found))
