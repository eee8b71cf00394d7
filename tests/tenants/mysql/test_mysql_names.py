"""Names with ``_``, ``-`` and ``.`` on MySQL, where GRANT takes patterns and where it does not."""

from __future__ import annotations

import pymysql
import pytest

from aiodbclient.errors import InvalidArgumentError, NotFoundError
from aiodbclient.tenants import Credential, ProblemKind, TenantAction, Tenants
from aiodbclient.tenants._naming import names_of

from ...mysql import administrator, in_grant
from ..conftest import Place, only
from ..problems import kinds_of
from .test_mysql_tenants import once, tenants

__all__ = ["tenants"]

PAIRS = [
    ("a_b", "axb"),
    *(
        pytest.param(pair, marks=pytest.mark.thorough)
        for pair in (("a-b.c", "a_b_c"), ("p_q_r", "pxqxr"), ("tenant_1", "tenant91"), ("_", "_x"))
    ),
]


def refused(credential: Credential, statement: str) -> None:
    with pytest.raises(pymysql.MySQLError, match="denied"):
        once(credential, statement)


@pytest.mark.parametrize("pair", PAIRS)
async def test_verbs_and_roles_stay_within_their_name(my_place: Place, tenants: Tenants, pair: tuple[str, str]) -> None:
    """The one name is a pattern that matches the other. Each of both, and each role, reaches its own schema alone."""
    for name in pair:
        once(await tenants.ensure(name), "CREATE TABLE t (a INT PRIMARY KEY)")
    for turn in range(2):
        for name, other in (pair, pair[::-1]):
            schema = f"`{my_place.prefix}{other}`"
            owner = await tenants.ensure(name)
            writer, reader = [await tenants.role(role).ensure(name) for role in ("writer", "reader")]
            once(owner, f"CREATE TABLE n{turn} (a INT PRIMARY KEY)")
            once(writer, f"INSERT INTO t VALUES ({turn})")
            once(reader, "SELECT a FROM t")
            refused(writer, "DROP TABLE t")
            refused(reader, "INSERT INTO t VALUES (1)")
            for credential in (owner, writer, reader):
                refused(credential, f"SELECT a FROM {schema}.t")
                refused(credential, f"CREATE TABLE {schema}.planted (a INT PRIMARY KEY)")
            for role in (tenants, tenants.role("writer"), tenants.role("reader")):
                assert (await only(role.check([name]))).problems == ()
                rotated = await only(role.rotate([name]))
                assert (rotated.action, rotated.error) == (TenantAction.ROTATED, None)
                assert (await only(role.revoke_previous([name]))).action is TenantAction.REVOKED
            assert (await only(tenants.repair([name]))).action is TenantAction.KEPT
    first, second = pair
    assert (await only(tenants.remove([first]))).action is TenantAction.DELETED
    nothing = await only(tenants.provision([first], if_exists="adopt"))
    assert isinstance(nothing.error, NotFoundError), "the other one is no database of this name"
    assert (await only(tenants.provision([first]))).action is TenantAction.CREATED
    assert (await only(tenants.remove([first]))).action is TenantAction.DELETED
    for role in (tenants, tenants.role("reader")):
        assert (await only(role.check([second]))).problems == ()  # the other one was not touched
    assert once(await tenants.ensure(second), "SELECT COUNT(*) FROM t") == [(2,)]


async def test_name_that_grant_refuses_makes_nothing(my_place: Place, tenants: Tenants, mysql_root: str) -> None:
    """Where GRANT takes patterns, each ``_`` counts twice."""
    under = "_" * 20
    room = 64 - len(my_place.prefix) - my_place.prefix.count("_") - 2 * len(under)
    longest, longer = under + "a" * room, under + "a" * (room + 1)
    once(await tenants.ensure(longest), "CREATE TABLE t (a INT PRIMARY KEY)")
    schema = my_place.prefix + longer
    with administrator(mysql_root) as root:
        if in_grant(root, schema) == schema:
            once(await tenants.ensure(longer), "CREATE TABLE t (a INT PRIMARY KEY)")
            return
        with pytest.raises(InvalidArgumentError, match="which makes 65; nothing was made"):
            await tenants.ensure(longer)
        assert await my_place.store.get(longer) is None
        root.execute("SELECT User FROM mysql.user")
        accounts = [user for (user,) in root.fetchall() if names_of(schema, "mysql").is_login(user)]
        root.execute("SELECT schema_name FROM information_schema.schemata WHERE schema_name = %s", (schema,))
        assert (accounts, root.fetchall()) == ([], ())
        root.execute(f"CREATE DATABASE `{schema}`")
        adopted = await only(tenants.provision([longer], if_exists="adopt"))
        root.execute(f"DROP DATABASE `{schema}`")
    assert isinstance(adopted.error, InvalidArgumentError)
    assert await my_place.store.get(longer) is None


async def test_rights_of_other_mode_found_and_given_again(tenants: Tenants, mysql_root: str) -> None:
    """As after a change of ``partial_revokes``: what was escaped is literal now, and the reverse."""
    one = await tenants.ensure("a_b")
    other = await tenants.ensure("axb")
    assert one.database is not None
    with administrator(mysql_root) as root:
        now = in_grant(root, one.database)
        then = one.database.replace("_", "\\_") if now == one.database else one.database
        root.execute("REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@'%%'", (one.username,))
        root.execute(f"GRANT ALL ON `{then.replace('%', '%%')}`.* TO %s@'%%'", (one.username,))
    assert ProblemKind.RIGHTS_MISSING in kinds_of((await only(tenants.check(["a_b"]))).problems)

    assert (await only(tenants.repair(["a_b"]))).error is None

    for name in ("a_b", "axb"):
        assert (await only(tenants.check([name]))).problems == ()
    refused(one, f"SELECT * FROM `{other.database}`.t")
    assert once(one, "SHOW TABLES") == []
