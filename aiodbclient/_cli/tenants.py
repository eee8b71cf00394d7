"""The commands ``aiodbclient tenants``. Each is in the module of its kind; here they get their names and order."""

from __future__ import annotations

from .help import Command, ProgramCommand, group
from .tenants_care import check_tenants, repair_tenants, retire_tenants, rotate_tenants
from .tenants_exec import exec_tenant
from .tenants_plan import plan_tenants
from .tenants_run import provision_tenants, remove_tenants
from .tenants_show import list_tenants, show_tenants

app = group(
    "Manage tenants: each has a database, and a login that owns it and reaches nothing else. The credentials are in a "
    "store. Every command can be stopped and run again: it continues."
)
app.command("list", cls=Command)(list_tenants)
app.command("plan", cls=Command)(plan_tenants)
app.command("provision", cls=Command)(provision_tenants)
app.command("check", cls=Command)(check_tenants)
app.command("repair", cls=Command)(repair_tenants)
app.command("rotate", cls=Command)(rotate_tenants)
app.command("retire", cls=Command)(retire_tenants)
app.command("remove", cls=Command)(remove_tenants)
app.command("show", cls=Command)(show_tenants)
app.command("exec", cls=ProgramCommand)(exec_tenant)
