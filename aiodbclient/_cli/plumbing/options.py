"""The arguments and options of the commands. What several commands take together is a set."""

from __future__ import annotations

import os
import re
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer
from attrs import frozen

from ...errors import InvalidArgumentError
from ...tenants import Role
from .completion import cluster_names, tenant_names
from .printing import NAME

COMMON = "Common options"  # the panel of the options that most commands take
CLUSTER_VARIABLE = "AIODBCLIENT_CLUSTER"
STORE_VARIABLE = "AIODBCLIENT_STORE"
PREFIX_VARIABLE = "AIODBCLIENT_PREFIX"
PROGRAM = "aiodbclient.program"  # where the context has what comes after --
TIMEOUT_GRACE = 30.0  # s that names in progress get to finish when --timeout is over
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def option(*names: str, common: bool = False, **settings: Any) -> Any:
    """An option, in the panel of the common ones if it is ``common``."""
    return typer.Option(*names, show_default=False, rich_help_panel=COMMON if common else None, **settings)


def argument(metavar: str, help: str, **settings: Any) -> Any:
    return typer.Argument(metavar=metavar, help=help, show_default=False, **settings)


def choice(*names: str, values: str, **settings: Any) -> Any:
    """An option that takes one of ``values``, with ``|`` between them, which a TAB offers."""

    def complete(incomplete: str) -> list[str]:
        return [each for each in values.split("|") if each.startswith(incomplete)]

    return option(*names, metavar=values, autocompletion=complete, **settings)


def duration_option(name: str, help: str, **settings: Any) -> Any:
    return option(name, metavar="DURATION", help=help, parser=_duration, **settings)


def _duration(text: str) -> timedelta:
    """A duration as operators write it: ``30d``, ``12h``, ``1d12h``."""
    parts = re.findall(r"(\d{1,6}(?:\.\d{1,3})?)([wdhms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(f"it takes a duration such as 30d, 1d12h or 0.5s, not {text!r}")
    return sum((timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta())


def _clusters(given: list[str] | None) -> list[str]:
    """The clusters, with commas or without."""
    found = ",".join(given).split(",") if given else []
    if "" in found:
        raise typer.BadParameter("it is empty")
    return found


def _cluster_option(help: str) -> Any:
    more = {"envvar": CLUSTER_VARIABLE, "autocompletion": cluster_names, "callback": _clusters}
    return option("--cluster", metavar="CLUSTER", help=help, common=True, **more)


def store_option(help: str, **settings: Any) -> Any:
    return option("--store", envvar=STORE_VARIABLE, metavar="STORE", help=help, **settings)


FromOption = Annotated[
    Path | None, option("--from", metavar="FILE", help="Read names: a CSV with column `name`, or lines.")
]
PrivateOption = Annotated[bool, option("--private", help="Use the private network.", common=True)]
AdminOption = Annotated[
    str | None,
    option("--admin", envvar="AIODBCLIENT_ADMIN", metavar="USER:PASSWORD", common=True, help="The administrator."),
]
ShowOption = Annotated[bool, option("--show", help="Print secrets too.")]
YesOption = Annotated[bool, option("--yes", "-y", help="Do not ask.")]
TenantNames = Annotated[list[str] | None, argument("NAME", "The tenants.", autocompletion=tenant_names)]
RoleOption = Annotated[
    Role, choice("--role", values="|".join(Role), help="Which login of the tenants. Default: owner.")
]
RolesOption = Annotated[
    Literal["owner", "writer", "reader", "all"],
    choice("--role", values="owner|writer|reader|all", help="Which logins of the tenants. Default: owner."),
]
MaxTenantsOption = Annotated[
    int | None, option("--max-tenants", metavar="N", min=1, help="How many tenants each cluster may have.")
]


def roles_of(role: str) -> list[Role]:
    return list(Role) if role == "all" else [Role(role)]


@frozen(kw_only=True)
class ApiOptions:
    """How a command talks to the API."""

    timeout: Annotated[
        timedelta | None, duration_option("--timeout", "Stop after this time, such as 30s.", common=True)
    ] = None
    verbose: Annotated[bool, option("--verbose", help="Print errors with their details.", common=True)] = False


@frozen(kw_only=True)
class ClusterOptions(ApiOptions):
    clusters: Annotated[list[str] | None, _cluster_option("Only this cluster: name or id. Repeatable.")] = None


@frozen(kw_only=True)
class OneClusterOptions(ApiOptions):
    clusters: Annotated[list[str], _cluster_option("The cluster's name or id.")]

    @property
    def cluster(self) -> str:
        if len(self.clusters) != 1:
            raise InvalidArgumentError(
                f"this command is for one cluster, and {len(self.clusters)} are given: add --cluster {self.clusters[0]}"
            )
        return self.clusters[0]


@frozen(kw_only=True)
class StoreOptions(ClusterOptions):
    """The store of a command, and the clusters of its tenants."""

    store: Annotated[str, store_option("A file, or postgresql://user@host/db.", common=True)]
    prefix: Annotated[
        str, option("--prefix", envvar=PREFIX_VARIABLE, metavar="TEXT", common=True, help="Prefix of databases.")
    ] = ""


@frozen(kw_only=True)
class TenantOptions(StoreOptions):
    """Where a command works on tenants: the store, the clusters, and how to reach their servers."""

    private: PrivateOption = False
    admin: AdminOption = None
    connection_limit: Annotated[
        int | None, option("--connection-limit", metavar="N", min=1, common=True, help="Connections of each new login.")
    ] = None


@frozen(kw_only=True)
class Selection:
    """The tenants that a command is for."""

    names: TenantNames = None
    file: FromOption = None
    everybody: Annotated[bool, option("--all", help="All tenants in the store.")] = False

    @property
    def is_typed(self) -> bool:
        """Whether each name was typed on the command line."""
        return not self.everybody and self.file is None


@frozen(kw_only=True)
class Confirmation:
    """The consent to end something."""

    dry_run: Annotated[
        bool,
        option("--dry-run", help="Print what it would do. It asks no database server, and changes nothing."),
    ] = False
    most: Annotated[int | None, option("--max", metavar="N", min=0, help="Refuse if more than N are selected.")] = None
    yes: YesOption = False


def suggest(options: OneClusterOptions | StoreOptions, *words: str) -> str:
    """A command to copy, which repeats the options that say where the tenants are."""
    return " ".join([NAME, *map(shlex.quote, words), *given(options)])


def given(options: OneClusterOptions | StoreOptions) -> list[str]:
    """The options of another command on the same clusters and store, without what the environment has."""
    clusters, words = options.clusters or (), list[str]()
    if ",".join(clusters) != os.environ.get(CLUSTER_VARIABLE, ""):
        words += [word for each in clusters for word in ("--cluster", shlex.quote(each))]
    if isinstance(options, StoreOptions) and options.store != os.environ.get(STORE_VARIABLE):
        has_password = "://" in options.store and "@" in options.store and urlsplit(options.store).password is not None
        words += ["--store", f'"${STORE_VARIABLE}"' if has_password else shlex.quote(options.store)]
    if isinstance(options, StoreOptions) and options.prefix != os.environ.get(PREFIX_VARIABLE, ""):
        words += ["--prefix", shlex.quote(options.prefix)]
    return words
