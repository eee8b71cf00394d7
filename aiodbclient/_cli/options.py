"""Single options of the commands, and how an option is made. ``arguments`` has those that come together."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from ..tenants import Role
from .asking import FEW_TYPED
from .completion import cluster_names

CLUSTER_VARIABLE = "AIODBCLIENT_CLUSTER"
STORE_VARIABLE = "AIODBCLIENT_STORE"
CLUSTER_HELP = f"The cluster's name or id. Default: ${CLUSTER_VARIABLE}."
CLUSTERS_HELP = f"The cluster's name or id. Repeat it for several. Default: ${CLUSTER_VARIABLE}, such as a,b."
WHICH = f"which cluster? Give its name or id as {{}}, or set ${CLUSTER_VARIABLE}. Nothing was sent"
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def option(*names: str, common: bool = False, **settings: Any) -> Any:
    """An option. Its help says what its default is. What is ``common`` to most commands, a page says once."""
    return typer.Option(*names, show_default=False, rich_help_panel="common" if common else None, **settings)


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


def output_option(forms: str, help: str, **settings: Any) -> Any:
    """``-o``, which takes one of ``forms``."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in forms.split("|"):
            raise typer.BadParameter(f"{value!r} is not one of {forms.replace('|', ', ')}")
        return value

    return option("--output", "-o", metavar=forms, help=help, callback=check, **settings)


TIMEOUT_GRACE = 30.0  # s that names in progress get to finish when --timeout is over
ClusterArgument = Annotated[list[str] | None, argument("CLUSTER", CLUSTER_HELP, autocompletion=cluster_names)]


PrivateOption = Annotated[bool, option("--private", help="Use the cluster's private connection.", common=True)]
AdminOption = Annotated[
    str | None,
    option(
        "--admin",
        envvar="AIODBCLIENT_ADMIN",
        metavar="DSN",
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
        help="Refuse to end or move more than N, in case a file was cut short. --yes needs it beside --all, "
        f"--from and --prune, and for more than {FEW_TYPED} NAMEs.",
    ),
]


ShowOption = Annotated[bool, option("--show", help="Print secrets too.")]
YesOption = Annotated[bool, option("--yes", "-y", help="Do not ask.")]
AdoptOption = Annotated[
    bool, option("--adopt", help="Take over logins and databases that exist and are not on record.")
]
UsersFileOption = Annotated[
    Path,
    option(
        "--from",
        metavar="FILE",
        help="A list of users in YAML or JSON, as the API's POST takes them. - is the standard input.",
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
    int | None, option("--most", metavar="N", min=1, help="How many tenants each cluster may have. Default: no limit.")
]
AlsoStoreOption = Annotated[
    str | None,
    option("--store", envvar=STORE_VARIABLE, metavar="STORE", help="Leave alone what is a tenant's in this store."),
]
