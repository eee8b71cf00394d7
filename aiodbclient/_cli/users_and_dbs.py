"""Users of a cluster from a list: ``users provision``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from ..engines import CAPABILITIES
from ..errors import InvalidArgumentError
from .arguments import Api, ShowOption, UsersFileOption, argument, option
from .asking import some
from .completion import cluster_names
from .files import read_users
from .following import Heard, Report, follow
from .opening import find_cluster, open_client, patiently
from .output import CLUSTER_VARIABLE, keep_stdout_private, safe
from .printing import Printed
from .running import runs

_IfExists = Literal["keep", "reset", "error", "update"]


@runs
async def provision_users(
    printed: Printed,
    api: Api,
    names: Annotated[list[str] | None, argument("[NAME]...", "The users. Names or --from.")] = None,
    file: UsersFileOption = None,
    cluster: Annotated[
        str,
        option(
            "--cluster", envvar=CLUSTER_VARIABLE, metavar="CLUSTER", help="The cluster.", autocompletion=cluster_names
        ),
    ] = "",
    if_exists: Annotated[
        _IfExists,
        option(
            "--if-exists",
            metavar="|".join(get_args(_IfExists)),
            help="What to do with users that exist. Default: keep.",
        ),
    ] = "keep",
    show: ShowOption = False,
) -> int:
    """Create users, with the settings that a file has. Safe to repeat.

    --if-exists keep leaves a user that exists as it is, reset gives it a new password, update sends its settings, and
    error counts it as failed.

    Example: aiodbclient users provision --from users.yaml --cluster tenants-prod
    """
    users = read_users(names, file)
    heard = Heard()
    async with open_client(api.budget, on_event=heard) as (client, limit):
        async with patiently():
            found = await find_cluster(client, cluster)
        known = None if found.engine is None else CAPABILITIES.get(found.engine)
        if not show and known is not None and not known.returns_passwords:
            raise InvalidArgumentError(
                f"the passwords of {some([user.name for user in users])} would be lost: {found.engine} returns a "
                "password once. Add --show. Nothing was changed"
            )

        def row(outcome: Any, role: str) -> dict[str, Any]:
            return {"password": outcome.user.password} if show and outcome.user is not None else {}

        def details(outcome: Any, role: str) -> str:
            password = row(outcome, role).get("password")
            return "" if password is None else f"name: {safe(outcome.name)}\npassword: {password}\n"

        if show:
            keep_stdout_private()
        report = Report(as_objects=printed.as_json, row=row, details=details, heard=heard)
        run = found.users.provision(users, if_exists=if_exists)
        return await follow({"": run}, names=[user.name for user in users], budget=limit, report=report)
