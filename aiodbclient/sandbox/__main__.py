"""The sandbox as a program, for clients in any language: ``python -m aiodbclient.sandbox --cluster pg``."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import get_args

from .._pacing.budget import Window
from .limits import DOCUMENTED, Remaining
from .sandbox import Sandbox


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Returns 0 then, 1 if it could not start; bad arguments exit with 2."""
    options = _parser().parse_args(arguments)
    return asyncio.run(_serve(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aiodbclient.sandbox",
        description="An API like DigitalOcean's for the users and dbs of managed database clusters, on 127.0.0.1.",
    )
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (default: a free one)")
    parser.add_argument("--token", help="the API token that clients must send (default: a random one)")
    parser.add_argument(
        "--cluster",
        action="append",
        default=[],
        type=_cluster,
        metavar="ENGINE[=NAME]",
        help="add a cluster: pg, mysql, redis, valkey, mongodb, kafka, opensearch, ... (may be repeated)",
    )
    parser.add_argument(
        "--dsn",
        action="append",
        default=[],
        type=_dsn,
        metavar="NAME=DSN",
        help="put this PostgreSQL, MySQL or MariaDB server behind the cluster NAME (may be repeated)",
    )
    parser.add_argument(
        "--rate-limit",
        type=_windows,
        default=None,
        metavar="REQUESTS/SECONDS",
        help="the burst limit of each token, beside 5000 an hour (default: 250/60); none for no limit at all",
    )
    parser.add_argument(
        "--remaining",
        choices=get_args(Remaining),
        default="refused",
        help="when ratelimit-remaining is 0: when the hour is spent, also with a 429 of the burst limit (default), or "
        "also with the answer that fills it",
    )
    parser.add_argument("--json", action="store_true", help="tell URL, token and clusters as one line of JSON")
    return parser


def _cluster(text: str) -> tuple[str, str | None]:
    engine, _, name = text.partition("=")
    if not engine:
        raise argparse.ArgumentTypeError(f"{text!r} names no engine; say for example pg or pg=tenants")
    return engine, name or None


def _dsn(text: str) -> tuple[str, str]:
    name, _, dsn = text.partition("=")
    if not name or "://" not in dsn:
        raise argparse.ArgumentTypeError("say NAME=DSN, for example tenants=postgresql://postgres@127.0.0.1/postgres")
    return name, dsn


def _windows(text: str) -> list[Window]:
    if text == "none":
        return []
    limit, _, seconds = text.partition("/")
    try:
        burst = Window(int(limit), float(seconds))
        if burst.limit < 1 or burst.seconds <= 0:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not REQUESTS/SECONDS, such as 250/60, nor none") from None
    return [burst, DOCUMENTED[1]]


async def _serve(options: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    dsns: dict[str, str] = dict(options.dsn)
    try:
        async with Sandbox(options.port, options.token, options.rate_limit, remaining=options.remaining) as sandbox:
            told: list[dict[str, str]] = []
            for engine, name in options.cluster:
                cluster = await sandbox.add_cluster(engine, name, dsn=dsns.pop(name, None) if name else None)
                told.append({"id": cluster, "name": sandbox.clusters[cluster], "engine": engine})
            if dsns:
                raise ValueError(f"--dsn names no cluster: {', '.join(dsns)}; add --cluster ENGINE={next(iter(dsns))}")
            if options.json:
                print(json.dumps({"url": sandbox.url, "token": sandbox.token, "clusters": told}), flush=True)
            else:
                _greet(sandbox, told)
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        return 0
    except (OSError, RuntimeError, ValueError) as error:
        print(f"The sandbox cannot start: {error}", file=sys.stderr)
    return 1


def _greet(sandbox: Sandbox, clusters: list[dict[str, str]]) -> None:
    print("The sandbox is running. For a client of DigitalOcean's API:\n")
    print(f"  export DIGITALOCEAN_API_URL={sandbox.url}")
    print(f"  export DIGITALOCEAN_TOKEN={shlex.quote(sandbox.token)}\n")
    for cluster in clusters:
        print(f"  {cluster['engine']:<12} {cluster['name']:<20} {cluster['id']}")
    if not clusters:
        print("  It has no cluster; add some with --cluster pg or --cluster pg=tenants.")
    print("\nCtrl-C stops it, and nothing of it is left.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
