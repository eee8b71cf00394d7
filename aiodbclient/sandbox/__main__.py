"""The sandbox as a program, for clients in any language: ``python -m aiodbclient.sandbox --cluster pg``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, get_args
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from .._dsn import is_loopback
from ..rate_limiter import Window
from ._access import DOCUMENTED, LOOPBACK, Remaining
from ._api import STEERING
from ._backends import MemoryBackend
from ._faults import Faults, add_given, check_fault
from ._sandbox import Sandbox

_LOOK_AGAIN_SECONDS = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit code: 1 if it could not start, or a server was killed."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["fault"]:
        return _steer(_fault_parser().parse_args(given[1:]))
    parser = _parser()
    options = parser.parse_args(given)
    try:
        sandbox = Sandbox(
            options.port,
            options.token,
            options.rate_limit,
            remaining=options.remaining,
            data=options.data,
            bind=options.bind,
            allow_hosts=options.allow_host,
        )
    except ValueError as error:
        parser.error(str(error))
    return asyncio.run(_serve(sandbox, options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aiodbclient.sandbox",
        description="An API like DigitalOcean's for the users and dbs of managed database clusters, on 127.0.0.1. "
        "To set faults while it runs: `aiodbclient sandbox fault --help`. "
        "@FILE reads arguments from a file, one per line, so that secrets stay out of the process list.",
        fromfile_prefix_chars="@",
    )
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (default: a free one)")
    parser.add_argument(
        "--bind",
        default=LOOPBACK,
        metavar="ADDRESS",
        help="the IPv4 address to listen on (default: 127.0.0.1); 0.0.0.0 for other machines and containers",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="also accept requests to this host name, such as the container's; the API returns the first one as the "
        "host of databases (may be repeated)",
    )
    parser.add_argument("--token", help="the API token that clients must send (default: a random one)")
    parser.add_argument(
        "--cluster",
        action="append",
        default=[],
        type=_cluster,
        metavar="'ENGINE[=NAME][: OPTION...]'",
        help="add a cluster: pg, mysql, redis, valkey, mongodb, kafka, opensearch, ...; for example 'pg=tenants: "
        "version=14 tags=a tags=b', or 'mysql=shop: dsn=mysql://root:PASSWORD@127.0.0.1' for a server of your own. "
        f"OPTION: {', '.join(options_of(Sandbox.add_cluster))} (may be repeated)",
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        type=_fault,
        metavar="'OPERATION: OPTION...'",
        help="make requests fail, for example 'users.create: status=503 nth=3', 'users.get,users.list: delay=0.5' or "
        "'*: cut probability=0.01'; `aiodbclient sandbox fault --help` lists the options (may be repeated)",
    )
    parser.add_argument(
        "--rate-limit",
        type=_windows,
        default=None,
        metavar="REQUESTS/SECONDS",
        help="the burst limit of each token, besides 5000 an hour (default: 250/60); 'none' for no limit at all",
    )
    parser.add_argument(
        "--remaining",
        choices=get_args(Remaining),
        default="refused",
        help="when ratelimit-remaining is 0: when the hour is spent (hour), also with a 429 of the burst limit "
        "(refused, the default), or also with the answer that fills the burst limit (full)",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="store clusters, users, dbs and tokens in this folder for the next start (default: store nothing)",
    )
    parser.add_argument("--json", action="store_true", help="print URL, token and clusters as one line of JSON")
    return parser


def _fault_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aiodbclient sandbox fault",
        description="List, set and clear the faults of the running sandbox at $DIGITALOCEAN_API_URL, with its token in "
        "$DIGITALOCEAN_TOKEN. Without arguments it lists them.",
    )
    parser.add_argument(
        "fault",
        nargs="*",
        type=_fault,
        metavar="'OPERATION: OPTION...'",
        help="a fault to set, for example 'users.create: status=423 times=3', 'users.get,users.list: delay=0.5' or "
        f"'*: cut probability=0.01'. OPTION: {', '.join(options_of(Faults.add))}; "
        "docs/reference/sandbox.md explains them",
    )
    parser.add_argument(
        "--clear", nargs="?", const="all", type=_fault_id, metavar="ID", help="first end the fault with this ID, or all"
    )
    return parser


def _steer(options: argparse.Namespace) -> int:
    """Change the faults of a running sandbox, print them, and return the exit code."""
    url, token = os.environ.get("DIGITALOCEAN_API_URL", ""), os.environ.get("DIGITALOCEAN_TOKEN", "")
    parts = urlsplit(url)
    if parts.scheme != "http" or not is_loopback(parts.hostname):
        print("set DIGITALOCEAN_API_URL and DIGITALOCEAN_TOKEN to what the sandbox printed", file=sys.stderr)
        return 2
    opener = build_opener(ProxyHandler({}))

    def send(method: str, path: str = "", body: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{url}{STEERING}{path}", data, {"authorization": f"Bearer {token}"}, method=method)
        with opener.open(request, timeout=10) as answer:
            faults: list[dict[str, Any]] = json.load(answer)["faults"]
        return faults

    try:
        if options.clear is not None:
            send("DELETE", "/" if options.clear == "all" else f"/{options.clear}")
        for fault in options.fault:
            send("POST", body=fault)
        faults = send("GET")
    except HTTPError as error:
        with error:
            message = json.load(error).get("message") if error.headers.get_content_subtype() == "json" else error.reason
        print(f"the sandbox refuses it: {message}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"no sandbox answers at {url}: {error}", file=sys.stderr)
        return 1
    for each in faults:
        print(f"{each['id']:>4}  {each['fault']}  (applied to {each['fired']} of {each['seen']})")
    if not faults:
        print("no faults")
    return 0


def _cluster(text: str) -> tuple[str, str | None, dict[str, Any]]:
    cluster, _, options = text.partition(":")
    engine, _, name = cluster.partition("=")
    if not engine:
        raise argparse.ArgumentTypeError("it names no engine; write for example pg or pg=tenants")
    try:
        return engine, name or None, read_options(Sandbox.add_cluster, options)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fault(text: str) -> dict[str, Any]:
    try:
        return read_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fault_id(text: str) -> str:
    if text != "all" and not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not the ID of a fault; write --clear last to end all of them")
    return text


def _windows(text: str) -> list[Window]:
    if text == "none":
        return []
    limit, _, seconds = text.partition("/")
    try:
        return [Window(int(limit), float(seconds)), DOCUMENTED[1]]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither REQUESTS/SECONDS, such as 250/60, nor none") from None


def options_of(function: Callable[..., Any]) -> dict[str, Callable[[str], Any]]:
    """The options that ``function`` takes, and what reads the value of each."""
    return {
        name: _OF_TYPE.get(str(parameter.annotation), str)
        for name, parameter in signature(function).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY
    }


def read_options(function: Callable[..., Any], text: str) -> dict[str, Any]:
    """Read ``OPTION...`` as keyword arguments of ``function``, or raise ValueError."""
    # An option is ``name=value``, or only the name of a boolean. ``name=KEY:VALUE`` for a mapping, and ``name=VALUE``
    # for a list, may be repeated. A value with spaces has quotes.
    readers = options_of(function)
    given: dict[str, Any] = {}
    for word in shlex.split(text):
        name, equals, value = word.partition("=")
        if name not in readers:
            shown = repr(name) if name.isidentifier() else "in the text"  # it could be a part of a DSN
            raise ValueError(f"unknown option {shown}; the options are {', '.join(readers)}")
        read = readers[name]
        try:
            if not equals and read is not _flag:
                raise ValueError
            given[name] = _joined(given.get(name), read(value if equals else "true"))
        except ValueError:
            raise ValueError(f"{word!r} is not a valid value of {name}") from None
    return given


def read_fault(text: str) -> dict[str, Any]:
    """Read ``OPERATION[,OPERATION...]: OPTION...`` as the arguments of ``Faults.add``, or raise ValueError."""
    where, colon, what = text.partition(":")
    names = where.replace(",", " ").split()
    if not colon or not names:
        raise ValueError(f"{text!r} is not OPERATION: OPTION..., such as 'users.create: status=503 nth=3'")
    operation, given = "*" if names == ["*"] else names, read_options(Faults.add, what)
    check_fault(operation, given)
    return {"operation": operation, **given}


def _joined(before: Any, value: Any) -> Any:
    """Combine the values of a repeated option."""
    if isinstance(value, dict):
        return {**(before or {}), **value}
    return [*(before or []), *value] if isinstance(value, list) else value


def _flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError
    return value == "true"


def _pair(value: str) -> dict[str, str]:
    name, colon, value = value.partition(":")
    if not colon or not name.strip():
        raise ValueError
    return {name.strip(): value.strip()}


_OF_TYPE: Mapping[str, Callable[[str], Any]] = {
    "bool": _flag,
    "float": float,
    "float | None": float,
    "int": int,
    "int | None": int,
    "Mapping[str, str] | None": _pair,
    "Iterable[str]": lambda value: [value],
}


async def _serve(sandbox: Sandbox, options: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with sandbox:
            clusters: list[dict[str, str]] = []
            for engine, name, given in options.cluster:
                cluster = await sandbox.add_cluster(engine, name, **given)
                clusters.append({"id": cluster, "name": sandbox.clusters[cluster], "engine": engine})
            for given in options.fault:
                add_given(sandbox.faults, given, sandbox.clusters)
            if options.json:
                budget = "none" if options.rate_limit == [] else None  # what AIODBCLIENT_BUDGET should be
                ready = {"url": sandbox.url, "token": sandbox.token, "budget": budget, "clusters": clusters}
                print(json.dumps(ready), flush=True)
            else:
                _greet(sandbox, clusters, options.data, unlimited=options.rate_limit == [])
            while not sandbox.failed:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            failed = ", ".join(sandbox.failed)
            print(f"The sandbox stops: the database server of {failed} ended unexpectedly", file=sys.stderr)
    except asyncio.CancelledError:
        return 0
    except (OSError, RuntimeError, ValueError) as error:
        print(f"The sandbox cannot start: {error}", file=sys.stderr)
    return 1


def _greet(sandbox: Sandbox, clusters: list[dict[str, str]], data: str | None, *, unlimited: bool) -> None:
    print("The sandbox is running. For a client of DigitalOcean's API:\n")
    print(f"  export DIGITALOCEAN_API_URL={sandbox.url}")
    print(f"  export DIGITALOCEAN_TOKEN={shlex.quote(sandbox.token)}")
    if clusters:
        print(f"  export DIGITALOCEAN_CLUSTER_ID={clusters[0]['id']}")
        print(f"  export AIODBCLIENT_CLUSTER={shlex.quote(clusters[0]['name'])}")
    if unlimited:
        print("  export AIODBCLIENT_BUDGET=none  # no rate limit here, so do not pace")
    print()
    for cluster in clusters:
        backend = sandbox._cluster(cluster["id"]).backend  # pyright: ignore[reportPrivateUsage]
        server = "  (no database server: it answers the API alone)" if isinstance(backend, MemoryBackend) else ""
        print(f"  {cluster['engine']:<12} {cluster['name']:<20} {cluster['id']}{server}")
    if not clusters:
        print("  It has no clusters; add one with --cluster pg or --cluster pg=tenants.")
    print(f"\nCtrl-C stops it and {f'keeps its data in {data}' if data else 'deletes its data'}.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
