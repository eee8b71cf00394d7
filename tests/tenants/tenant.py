"""A tenant of the tests of a server: its steps, without operations and a store."""

from __future__ import annotations

from attrs import define, field

from aiodbclient._masking import Secret
from aiodbclient.tenants import Problem, Role
from aiodbclient.tenants._naming import Names
from aiodbclient.tenants._servers import BaseTenant, Server, TenantSteps

PASSWORD = "Aa1-secret"  # of all logins, unless a test says otherwise


@define(eq=False)
class Tenant:
    """A tenant, as a store would have it, and the steps that change it."""

    server: Server
    names: Names
    on_record: dict[str, Role] = field(factory=dict[str, Role])  # its logins that work

    @property
    def database(self) -> str:
        return self.names.database

    @property
    def owner(self) -> str:
        return self.names.owner

    @property
    def logins(self) -> list[str]:
        """The logins of the owner on record, the oldest first."""
        return [login for login, role in self.on_record.items() if role is Role.OWNER]

    @property
    def steps(self) -> TenantSteps:
        return self.server.steps(BaseTenant(self.names))

    async def add(self, role: Role = Role.OWNER, password: str = PASSWORD) -> str:
        """Add a login and log in, as provision, rotate and repair do."""
        found = await self.server.inspect(self.names)
        [login] = self.names.next_logins([*found.logins, *found.disabled, *self.on_record])
        await self.steps.add_login(login, Secret(password), role)
        assert await self.server.log_in(self.names, login, Secret(password)) is None
        self.on_record[login] = role
        return login

    async def end(self, *logins: str) -> bool:
        """End logins and drop them, as ``revoke_previous`` does. Return whether they are gone."""
        for login in logins:
            self.on_record.pop(login, None)
        await self.steps.end_logins(logins)
        return await self.steps.drop_logins(logins) == ()

    async def problems(self) -> frozenset[Problem]:
        return await self.server.problems(self.names, self.on_record)

    async def repair(self) -> None:
        await self.steps.repair(self.on_record)

    async def freeze(self) -> None:
        await self.steps.freeze(self.on_record)

    async def suspend(self) -> None:
        await self.steps.end_logins(self.on_record)
        await self.steps.lock_out()
        self.on_record.clear()

    async def remove(self) -> None:
        await self.steps.end_logins(self.on_record)
        await self.steps.drop_database()
        await self.steps.drop_logins(self.on_record)
        await self.steps.drop_roles()
        self.on_record.clear()
