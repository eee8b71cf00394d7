"""The sandbox as a program, for clients in any language: ``python -m aiodbclient.sandbox --cluster pg``."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from inspect import Parameter, signature
from typing import Any

from ..rate_limiter import Window
from ._backends.memory import MemoryBackend
from ._faults import Faults, add_json
from ._sandbox import Sandbox
from ._tokens import DOCUMENTED

_POLL_SECONDS = 0.5
_READERS: dict[str, Callable[[str], Any]] = {"connections": int, "online_after": float}
_OPTIONS = [
    name for name, each in signature(Sandbox.add_cluster).parameters.items() if each.kind is Parameter.KEYWORD_ONLY
]


def main(arguments: Sequence[str] | None = None, program: str = "python -m aiodbclient.sandbox") -> int:
    """Serve until SIGINT or SIGTERM, and return the exit code: 1 if it could not start, or a server was killed."""
    parser = _parser(program)
    options = parser.parse_args(arguments)
    try:
        sandbox = Sandbox(options.port, options.token, options.rate_limit, bind=options.bind)
    except ValueError as error:
        parser.error(str(error))
    return asyncio.run(_serve(sandbox, options))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="An API like DigitalOcean's for the users and dbs of managed database clusters, on 127.0.0.1. "
        "While it runs, POST /sandbox/faults adds a fault, and DELETE ends all. "
        "@FILE reads arguments from a file, one per line, so that secrets stay out of the process list.",
        fromfile_prefix_chars="@",
    )
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (default: a free one)")
    parser.add_argument(
        "--bind",
        metavar="ADDRESS",
        help="the IPv4 address to listen on (default: 127.0.0.1); 0.0.0.0 for other machines and containers",
    )
    parser.add_argument("--token", help="the API token that clients must send (default: a random one)")
    parser.add_argument(
        "--cluster",
        action="append",
        default=[],
        type=_cluster,
        metavar="'ENGINE[=NAME][: OPTION...]'",
        help="add a cluster: pg, mysql, redis, valkey, mongodb, kafka, opensearch, ...; for example 'pg=tenants: "
        "version=17 tags=a tags=b', or 'mysql=shop: server=mysql://root:PASSWORD@127.0.0.1' for a server of your own. "
        f"OPTION: {', '.join(_OPTIONS)} (may be repeated)",
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        type=_fault,
        metavar="JSON",
        help='make requests fail: the arguments of Faults.add as JSON, for example \'{"operation": "users.create", '
        '"status": 503, "nth": 3}\' (may be repeated)',
    )
    parser.add_argument(
        "--rate-limit",
        type=_windows,
        default=None,
        metavar="REQUESTS/SECONDS",
        help="the burst limit of each token, besides 5000 an hour (default: 250/60); 'none' for no limit at all",
    )
    parser.add_argument("--json", action="store_true", help="print URL, token and clusters as one line of JSON")
    return parser


def _cluster(text: str) -> tuple[str, str | None, dict[str, Any]]:
    cluster, _, options = text.partition(":")
    engine, _, name = cluster.partition("=")
    if not engine:
        raise argparse.ArgumentTypeError("it names no engine; write for example pg or pg=tenants")
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return engine, name or None, _read(words)


def _read(words: list[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE ...`` as options, with quotes around a value with spaces, and ``tags`` more than once."""
    given: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in _OPTIONS:
            shown = repr(name) if name.isidentifier() else "in the text"  # it could be a part of a DSN
            raise argparse.ArgumentTypeError(f"unknown option {shown}; the options are {', '.join(_OPTIONS)}")
        try:
            read = _READERS.get(name, str)(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{value!r} is not a valid value of {name}") from None
        given[name] = [*given.get(name, []), read] if name == "tags" else read
    return given


def _fault(text: str) -> dict[str, Any]:
    try:
        given: dict[str, Any] = json.loads(text)
        add_json(Faults(), given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no fault: {error}") from None
    return given


def _windows(text: str) -> list[Window]:
    if text == "none":
        return []
    limit, _, seconds = text.partition("/")
    try:
        return [Window(int(limit), float(seconds)), DOCUMENTED[1]]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither REQUESTS/SECONDS, such as 250/60, nor none") from None


async def _serve(sandbox: Sandbox, options: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with AsyncExitStack() as opened:
            try:
                await _start(opened, sandbox, options)
            except (OSError, RuntimeError, ValueError) as error:
                print(f"The sandbox cannot start: {error}", file=sys.stderr)
                return 1
            while not sandbox.failed:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
            failed = ", ".join(sandbox.failed)
            print(f"The sandbox stops: the database server of {failed} ended unexpectedly", file=sys.stderr)
            return 1
    except asyncio.CancelledError:
        return 0


async def _start(opened: AsyncExitStack, sandbox: Sandbox, options: argparse.Namespace) -> None:
    if not options.json:
        print("The sandbox is starting ...", file=sys.stderr, flush=True)
    await opened.enter_async_context(sandbox)
    clusters: list[dict[str, str]] = []
    for engine, name, given in options.cluster:
        cluster = await sandbox.add_cluster(engine, name, **given)
        clusters.append({"id": cluster, "name": sandbox.clusters[cluster], "engine": engine})
    for given in options.fault:
        add_json(sandbox.faults, given)
    if options.json:
        budget = "none" if options.rate_limit == [] else None  # what AIODBCLIENT_BUDGET should be
        ready = {"url": sandbox.url, "token": sandbox.token, "budget": budget, "clusters": clusters}
        print(json.dumps(ready), flush=True)
    else:
        _greet(sandbox, clusters, unlimited=options.rate_limit == [])


def _greet(sandbox: Sandbox, clusters: list[dict[str, str]], *, unlimited: bool) -> None:
    print("The sandbox is running. For a client of DigitalOcean's API:\n")
    print(f"  export DIGITALOCEAN_API_URL={sandbox.url}")
    print(f"  export DIGITALOCEAN_TOKEN={shlex.quote(sandbox.token)}")
    if clusters:
        print(f"  export DIGITALOCEAN_CLUSTER_ID={clusters[0]['id']}")
        print(f"  export AIODBCLIENT_CLUSTER={shlex.quote(clusters[0]['name'])}")
    if unlimited:
        print("  export AIODBCLIENT_BUDGET=none  # no rate limit here, so do not pace")
    print()
    given: list[str] = []
    for cluster in clusters:
        backend = sandbox._cluster(cluster["id"]).backend  # pyright: ignore[reportPrivateUsage]
        in_memory = isinstance(backend, MemoryBackend)
        if not in_memory and backend.embedded is None:
            given.append(cluster["name"])
        server = "  (no database server: it answers the API alone)" if in_memory else ""
        print(f"  {cluster['engine']:<12} {cluster['name']:<20} {cluster['id']}{server}")
    if not clusters:
        print("  It has no clusters; add one with --cluster pg or --cluster pg=tenants.")
    stays = f" Users and databases on your own server stay: {', '.join(given)}." if given else ""
    print(f"\nCtrl-C stops it and deletes its data.{stays}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
