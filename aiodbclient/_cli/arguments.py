"""The arguments and options of the commands. What several commands take together is a set."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from attrs import frozen

from ..errors import InvalidArgumentError
from ..tenants import Role
from .asking import FEW_TYPED
from .completion import cluster_names, tenant_names
from .help import COMMON
from .output import CLUSTER_VARIABLE, STORE_VARIABLE

CLUSTER_HELP = f"The cluster's name or id. Default: ${CLUSTER_VARIABLE}."
CLUSTERS_HELP = f"The cluster's name or id. Repeat it for several. Default: ${CLUSTER_VARIABLE}, such as a,b."
WHICH = f"which cluster? Give its name or id as {{}}, or set ${CLUSTER_VARIABLE}. Nothing was sent"
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def option(*names: str, common: bool = False, **settings: Any) -> Any:
    """An option. Its help says what its default is. What is ``common`` to most commands has a section of its own."""
    return typer.Option(*names, show_default=False, rich_help_panel=COMMON if common else None, **settings)


def argument(metavar: str, help: str, **settings: Any) -> Any:
    """An argument."""
    return typer.Argument(metavar=metavar, help=help, show_default=False, **settings)


def _duration(text: str) -> timedelta:
    """A duration as operators write it: ``30d``, ``12h``, ``1d12h``."""
    parts = re.findall(r"(\d{1,6}(?:\.\d{1,3})?)([wdhms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(f"it takes a duration such as 30d, 1d12h or 0.5s, not {text!r}")
    return sum((timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta())


def duration_option(name: str, help: str, **settings: Any) -> Any:
    """An option that takes a duration."""
    return option(name, metavar="DURATION", help=help, parser=_duration, **settings)


TIMEOUT_GRACE = 30.0  # s that names in progress get to finish when --timeout is over
ClusterArgument = Annotated[list[str] | None, argument("CLUSTER", CLUSTER_HELP, autocompletion=cluster_names)]


PrivateOption = Annotated[bool, option("--private", help="Use the cluster's private connection.", common=True)]
AdminOption = Annotated[
    str | None,
    option(
        "--admin",
        envvar="AIODBCLIENT_ADMIN",
        metavar="USER:PASSWORD",
        common=True,
        help="The administrator, if it is not the cluster's primary user.",
    ),
]


FromOption = Annotated[
    Path | None,
    option(
        "--from",
        metavar="FILE",
        help="Read the names from a CSV file: its column `name`, or its only column. - is the standard input.",
    ),
]


MaxOption = Annotated[
    int | None,
    option(
        "--max",
        metavar="N",
        min=0,
        help="Refuse to end or move more than N, in case a file was cut short. --yes needs it beside --all "
        f"and --from, and for more than {FEW_TYPED} NAMEs.",
    ),
]


ShowOption = Annotated[bool, option("--show", help="Print secrets too.")]
YesOption = Annotated[bool, option("--yes", "-y", help="Do not ask.")]
AdoptOption = Annotated[
    bool, option("--adopt", help="Take over logins and databases that exist and are not on record.")
]
UsersFileOption = Annotated[
    Path | None,
    option(
        "--from",
        metavar="FILE",
        help="Read the users from a file: a CSV with the column `name`, or YAML or JSON as the API's POST takes users. "
        "- is the standard input.",
    ),
]
_ROLE_HELP = "Which logins of the tenants: their owner, or one that writes or reads data only. Default: owner."
_ROLES = [role.value for role in Role]
RoleOption = Annotated[Role, option("--role", metavar="|".join(_ROLES), help=_ROLE_HELP)]


def role_options(role: Role) -> list[str]:
    """The options that lead another command to the same role."""
    return [] if role is Role.OWNER else ["--role", role.value]


def _roles(text: str) -> list[Role]:
    if text not in (*_ROLES, "all"):
        raise typer.BadParameter(f"{text!r} is not one of {', '.join((*_ROLES, 'all'))}")
    return list(Role) if text == "all" else [Role(text)]


RolesOption = Annotated[Any, option("--role", metavar="|".join((*_ROLES, "all")), parser=_roles, help=_ROLE_HELP)]
MostOption = Annotated[
    int | None,
    option("--max-tenants", metavar="N", min=1, help="How many tenants each cluster may have. Default: no limit."),
]
AlsoStoreOption = Annotated[
    str | None,
    option("--store", envvar=STORE_VARIABLE, metavar="STORE", help="Leave alone what is a tenant's in this store."),
]


@frozen(kw_only=True)
class Api:
    """How a command talks to the API."""

    budget: Annotated[
        Literal["none"] | None,
        option(
            "--budget",
            envvar="AIODBCLIENT_BUDGET",
            metavar="none",
            common=True,
            hidden=True,
            help="none: do not limit requests. For a sandbox on this machine.",
        ),
    ] = None
    timeout: Annotated[
        timedelta | None,
        duration_option(
            "--timeout",
            f"Stop after so long, such as 30s. Names in progress get up to {TIMEOUT_GRACE:.0f}s to finish.",
            common=True,
        ),
    ] = None
    verbose: Annotated[
        bool,
        option(
            "--verbose",
            help="Print errors with the request or the statement, and the seconds of each tenant.",
            common=True,
        ),
    ] = False


@frozen(kw_only=True)
class OnCluster(Api):
    """The cluster of a command, which takes it as its first argument too."""

    cluster: Annotated[
        str | None,
        option("--cluster", metavar="CLUSTER", help=CLUSTER_HELP, autocompletion=cluster_names, hidden=True),
    ] = None


@frozen(kw_only=True)
class ListedOn(OnCluster):
    """The cluster of a command on all of it."""

    words: ClusterArgument = None

    @property
    def target(self) -> str:
        """The cluster."""
        return _split(self.words, self.cluster, 0)[0]


@frozen(kw_only=True)
class NamedOn(OnCluster):
    """The cluster of a command on one user or database of it, and the name."""

    words: Annotated[
        list[str] | None,
        argument(
            "CLUSTER NAME",
            f"The cluster's name or id, and the name. Default of CLUSTER: ${CLUSTER_VARIABLE}.",
            autocompletion=cluster_names,
        ),
    ] = None

    @property
    def target(self) -> tuple[str, str]:
        """The cluster and the name."""
        cluster, [name] = _split(self.words, self.cluster, 1)
        return cluster, name

    @property
    def is_whole(self) -> bool:
        """Whether the command line has the cluster and the name, and leaves none to the environment."""
        return self.cluster is not None or len(self.words or ()) > 1


def _clusters(given: list[str] | None) -> list[str]:
    """The clusters of the options, or of the environment."""
    return [each for each in ",".join(given or [os.environ.get(CLUSTER_VARIABLE, "")]).split(",") if each]


@frozen(kw_only=True)
class Recorded(Api):
    """The store of a command, and the clusters of its tenants."""

    clusters: Annotated[
        list[str] | None,
        option(
            "--cluster",
            metavar="CLUSTER",
            help=CLUSTERS_HELP,
            autocompletion=cluster_names,
            callback=_clusters,
            common=True,
        ),
    ] = None
    store: Annotated[
        str,
        option(
            "--store",
            envvar=STORE_VARIABLE,
            metavar="STORE",
            common=True,
            help="Where the credentials are: a file such as tenants.db, or postgresql://user@host/db. "
            "$AIODBCLIENT_STORE_KEY encrypts them.",
        ),
    ]
    prefix: Annotated[
        str,
        option(
            "--prefix",
            envvar="AIODBCLIENT_PREFIX",
            metavar="TEXT",
            common=True,
            help="The prefix of the tenants' databases and logins.",
        ),
    ] = ""


@frozen(kw_only=True)
class Place(Recorded):
    """Where a command works on tenants: the store, the cluster, and how to reach its server."""

    private: PrivateOption = False
    admin: AdminOption = None
    connection_limit: Annotated[
        int | None,
        option(
            "--connection-limit",
            metavar="N",
            min=1,
            common=True,
            help="How many connections each login may have. Default: a quarter of the server's.",
        ),
    ] = None


@frozen(kw_only=True)
class Chosen:
    """The tenants that a command is for."""

    names: Annotated[
        list[str] | None, argument("[NAME]...", "The tenants. Names, --from or --all.", autocompletion=tenant_names)
    ] = None
    file: FromOption = None
    everybody: Annotated[bool, option("--all", help="All tenants in the store.")] = False

    @property
    def typed(self) -> bool:
        """Whether each name was typed on the command line."""
        return not self.everybody and self.file is None


@frozen(kw_only=True)
class Listed:
    """The tenants that a command is for, in the store or not."""

    names: Annotated[
        list[str] | None, argument("[NAME]...", "The tenants. Names or --from.", autocompletion=tenant_names)
    ] = None
    file: FromOption = None


@frozen(kw_only=True)
class Ending:
    """What a command on users or databases may end, although it may be a tenant's."""

    store: AlsoStoreOption = None
    not_a_tenant: Annotated[
        bool,
        option(
            "--not-a-tenant", help="What this deletes or resets is no tenant's. For tenants: `aiodbclient tenants`."
        ),
    ] = False
    yes: YesOption = False


def _split(words: list[str] | None, option: str | None, count: int) -> tuple[str, list[str]]:
    """The cluster, which may come from the option, the first word or the environment, and ``count`` names."""
    names = list(words or ())
    cluster = option or os.environ.get(CLUSTER_VARIABLE, "")
    if option is None and names and (not cluster or len(names) == count + 1):
        cluster, *names = names
    if not cluster:
        raise InvalidArgumentError(WHICH.format("CLUSTER or --cluster"))
    if len(names) < count:
        raise InvalidArgumentError("NAME is missing; nothing was sent")
    if len(names) > count:
        raise InvalidArgumentError(f"unexpected extra argument: {names[-1]!r}; nothing was sent")
    if "," in cluster:
        first = cluster.partition(",")[0]
        raise InvalidArgumentError(
            f"{cluster}: this command is for one cluster: add --cluster {first}. Nothing was sent"
        )
    return cluster, names
