r"""Names with ``_``, ``%`` and ``\`` on MySQL and MariaDB, where GRANT takes patterns and where it does not."""

from __future__ import annotations

from collections.abc import Callable

import pymysql
import pytest
from aiodbclient.tenants._grants import mysql as grants
from aiodbclient.tenants._grants.mysql_server import Work

from aiodbclient import Action, ClusterClient
from aiodbclient.errors import GrantError
from aiodbclient.tenants import Credential, Problem, Tenants

from ..mysql import PATTERNS, SERVERS, administrator, in_grant
from .conftest import only
from .test_mysql_tenants import cluster, once, tenants

__all__ = ["cluster", "tenants"]

PAIRS = [
    ("a_b", "axb"),
    ("a%b", "axyb"),
    *(
        pytest.param(pair, marks=pytest.mark.thorough)
        for pair in (("a\\_b", "a_b"), ("p_q_r", "pxqxr"), ("%", "_"), ("tenant_1", "tenant91"))
    ),
]
pytestmark = pytest.mark.parametrize(
    "mysql_cluster", [*SERVERS, *([PATTERNS] if "mysql" in SERVERS else [])], indirect=True
)
DENIED = "denied"


@pytest.fixture
def its_dsn(request: pytest.FixtureRequest, mysql: Callable[[str], str]) -> str:
    return mysql(request.node.callspec.params["mysql_cluster"])


def refused(credential: Credential, statement: str) -> None:
    with pytest.raises(pymysql.MySQLError, match=DENIED):
        once(credential, statement)


@pytest.mark.parametrize("pair", PAIRS)
async def test_every_verb_and_role_stays_within_its_own_name(tenants: Tenants, pair: tuple[str, str]) -> None:
    """The one name is a pattern that matches the other. Each of both, and each role, reaches its own schema alone."""
    for name in pair:
        once(await tenants.ensure(name), "CREATE TABLE t (a INT)")
    for turn in range(2):
        for name, other in (pair, pair[::-1]):
            schema = f"`{tenants._tenancy.prefix}{other}`"
            owner = await tenants.ensure(name)
            writer, reader = [await tenants.role(role).ensure(name) for role in ("writer", "reader")]
            once(owner, f"CREATE TABLE n{turn} (a INT)")
            once(writer, "INSERT INTO t VALUES (1)")
            once(reader, "SELECT a FROM t")
            refused(writer, "DROP TABLE t")
            refused(reader, "INSERT INTO t VALUES (1)")
            for credential in (owner, writer, reader):
                refused(credential, f"SELECT a FROM {schema}.t")
                refused(credential, f"CREATE TABLE {schema}.planted (a INT)")
            for role in (tenants, tenants.role("writer"), tenants.role("reader")):
                assert (await only(role.check([name]))).problems == ()
                rotated = await only(role.rotate([name]))
                assert (rotated.action, rotated.error) == (Action.ROTATED, None)
                assert (await only(role.retire([name]))).action is Action.RETIRED
                assert (await only(role.repair([name]))).action is Action.KEPT
    first, second = pair
    assert (await only(tenants.remove([first], keep_database=True))).action is Action.DELETED
    kept = await only(tenants.provision([first], if_exists="adopt"))
    assert kept.error is None
    assert (await only(tenants.remove([first]))).action is Action.DELETED
    for role in (tenants, tenants.role("reader")):
        assert (await only(role.check([second]))).problems == ()  # the other one was not touched
    assert once(await tenants.ensure(second), "SELECT COUNT(*) FROM t") == [(2,)]


async def test_rights_that_the_other_mode_gave_are_found_and_given_again(tenants: Tenants, its_dsn: str) -> None:
    """As after a change of ``partial_revokes``: what was escaped is literal now, and the reverse."""
    one = await tenants.ensure("a_b")
    other = await tenants.ensure("axb")
    assert one.database is not None
    with administrator(its_dsn) as root:
        now = in_grant(root, one.database)
        then = one.database.replace("_", "\\_") if now == one.database else one.database
        root.execute("REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", (one.username,))
        root.execute(f"GRANT ALL ON `{then.replace('%', '%%')}`.* TO %s@'%%'", (one.username,))
    assert Problem.RIGHTS_MISSING in (await only(tenants.check(["a_b"]))).problems

    assert (await only(tenants.repair(["a_b"]))).error is None

    for name in ("a_b", "axb"):
        assert (await only(tenants.check([name]))).problems == ()
    refused(one, f"SELECT * FROM `{other.database}`.t")
    assert once(one, "SHOW TABLES") == []


async def test_a_schema_that_rights_do_not_open_is_no_refused_password(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No password is reset for it, and the error names the rights."""

    async def takes_all(work: Work, username: str) -> None:
        await work.rows("REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", username)

    monkeypatch.setattr(grants, "set_rights", takes_all)
    with pytest.raises(GrantError, match="accepted with its password, but its rights do not open the schema") as caught:
        await tenants.ensure("a_b")
    assert "with the password that the API returns" not in str(caught.value)


async def test_a_grant_to_the_administrator_does_not_shut_it_out(
    tenants: Tenants, cluster: ClusterClient, its_dsn: str
) -> None:
    """With partial_revokes=ON, REVOKE on one schema restricts whoever has the right on all of them."""
    one = await tenants.ensure("a_b")
    with administrator(its_dsn) as root:
        root.execute(f"GRANT SELECT ON `{in_grant(root, one.database or '')}`.* TO doadmin@'%'")

    assert (await only(tenants.repair(["a_b"]))).error is None
    assert (await only(tenants.rotate(["a_b"]))).error is None

    dsn = (await cluster.info()).connection.uri_for(await cluster.users.get("doadmin"))
    with administrator(dsn) as doadmin:
        doadmin.execute(f"CREATE TABLE `{one.database}`.by_doadmin (a INT)")
    assert once(await tenants.ensure("a_b"), "SHOW TABLES") == [("by_doadmin",)]
