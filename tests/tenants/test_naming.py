"""The names of a tenant's database, logins and owner role are unique, and within the engine's length limit."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from aiodbclient import Engine
from aiodbclient.engines import CAPABILITIES
from aiodbclient.errors import InvalidArgumentError, UnsupportedOperationError
from aiodbclient.tenants import Role
from aiodbclient.tenants._grants.rights import SETTINGS, settings_for
from aiodbclient.tenants._naming import Names, check_tenant, names_of, record_name, tenant_of

WITH_DATABASES = [Engine.PG, Engine.ADVANCED_PG, Engine.MYSQL, Engine.ADVANCED_MYSQL, Engine.MONGODB]
BY_PREFIX = [Engine.KAFKA, Engine.OPENSEARCH]
MYSQL = [Engine.MYSQL, Engine.ADVANCED_MYSQL]
POSTGRESQL = [Engine.PG, Engine.ADVANCED_PG]

POSTGRESQL_OR_MYSQL = {*POSTGRESQL, *MYSQL}

ENGINES = st.sampled_from([*WITH_DATABASES, *BY_PREFIX])
TENANTS = st.text("aB0_-é", min_size=1, max_size=70) | st.text("ab", min_size=60, max_size=64)


def test_every_engine_that_can_have_tenants_is_tested_here() -> None:
    known = {engine for engine, capabilities in CAPABILITIES.items() if capabilities.tenants}
    assert known == {*WITH_DATABASES, *BY_PREFIX}


def test_every_engine_that_can_have_tenants_gives_them_their_rights_in_one_way() -> None:
    by_sql, by_settings = POSTGRESQL_OR_MYSQL, {*SETTINGS}
    assert by_sql | by_settings == {*WITH_DATABASES, *BY_PREFIX}
    assert not by_sql & by_settings
    for engine in by_sql | by_settings:
        assert (settings_for(engine, names_of("alpha", engine)) is None) == (engine in by_sql)


@pytest.mark.parametrize("engine", [Engine.REDIS, Engine.VALKEY, "cockroach"])
def test_where_there_can_be_no_tenants_there_are_no_names(engine: str) -> None:
    with pytest.raises(UnsupportedOperationError, match="nothing was created"):
        names_of("alpha", engine)


def everything(names: Names) -> set[str]:
    return {*names.logins, names.owner, names.database or names.logins[0]}


@given(ENGINES, TENANTS, TENANTS, st.sampled_from(["", "a", "B0_"]))
def test_no_tenant_has_a_name_of_another(engine: Engine, one: str, another: str, prefix: str) -> None:
    assume(one != another)
    try:
        first, second = names_of(one, engine, prefix), names_of(another, engine, prefix)
    except InvalidArgumentError:
        assume(False)
        return
    assert not everything(first) & everything(second)
    assert first == names_of(one, engine, prefix)


@given(ENGINES, TENANTS)
def test_every_name_is_as_long_as_the_engine_takes_and_differs_from_the_others(engine: Engine, tenant: str) -> None:
    try:
        names = names_of(tenant, engine)
    except InvalidArgumentError:
        assume(False)
        return
    roles = [*names.logins, names.owner]
    assert len({*roles}) == 3
    if engine in MYSQL:
        assert max(map(len, roles)) <= 32
    else:
        assert max(len(role.encode()) for role in roles[1:]) <= 63
    assert names.other(names.logins[0]) == names.logins[1]
    assert names.other(names.logins[1]) == names.logins[0]


LONG = "a-tenant-whose-name-is-longer-than-a-login-of-mysql"


@pytest.mark.parametrize(
    ("engine", "tenant", "names"),
    [
        (
            Engine.PG,
            "alpha",
            ("my_alpha", "my_alpha_53ce71e1b09c4582_b", "my_alpha_53ce71e1b09c4582_owner", "my_alpha"),
        ),
        (
            Engine.PG,
            "é" * 30,
            (
                f"my_{'é' * 30}",
                f"my_{'é' * 20}_627b94006c4c6e5b_b",
                f"my_{'é' * 18}_627b94006c4c6e5b_owner",
                f"my_{'é' * 30}",
            ),
        ),
        (
            Engine.MYSQL,
            LONG,
            (
                "my_a-tenant-w_5ea74375fd75ffe6_a",
                "my_a-tenant-w_5ea74375fd75ffe6_b",
                "my_a-tena_5ea74375fd75ffe6_owner",
                f"my_{LONG}",
            ),
        ),
        (
            Engine.KAFKA,
            "alpha",
            ("my_alpha", "my_alpha_53ce71e1b09c4582_b", "my_alpha_53ce71e1b09c4582_owner", None),
        ),
    ],
)
def test_names_stay_what_they_are_over_upgrades(engine: Engine, tenant: str, names: tuple[str | None, ...]) -> None:
    """Otherwise logins with other names would belong to no tenant."""
    named = names_of(tenant, engine, "my_")
    assert (*named.logins, named.owner, named.database) == names
    assert named.tenant == tenant


@pytest.mark.parametrize(
    ("engine", "tenant", "logins", "group", "record"),
    [
        (
            Engine.PG,
            "alpha",
            ("my_alpha_53ce71e1b09c4582_ra", "my_alpha_53ce71e1b09c4582_rb"),
            "my_alpha_53ce71e1b09c4582_reader",
            "alpha_5306d220eac8089a_reader",
        ),
        (
            Engine.MYSQL,
            LONG,
            ("my_a-tenant-_5ea74375fd75ffe6_ra", "my_a-tenant-_5ea74375fd75ffe6_rb"),
            "my_a-ten_5ea74375fd75ffe6_reader",
            f"{LONG}_9e7af1626c6531bd_reader",
        ),
    ],
)
def test_the_names_of_a_role_stay_what_they_are_over_upgrades(
    engine: Engine, tenant: str, logins: tuple[str, str], group: str, record: str
) -> None:
    named = names_of(tenant, engine, "my_", Role.READER)
    assert (named.logins, named.group, named.record) == (logins, group, record)
    assert named.owner == names_of(tenant, engine, "my_").owner


@given(st.text(min_size=1), st.sampled_from(Role))
@example("\ud800", Role.READER)
def test_a_record_shows_its_tenant_and_role(tenant: str, role: Role) -> None:
    """Any text, because records are looked up before names are checked."""
    assert tenant_of(record_name(tenant, role)) == (tenant, role)
    assert (record_name(tenant, role) == tenant) == (role is Role.OWNER)


@pytest.mark.parametrize(
    "record", ["alpha", "alpha_0123456789abcdef_reader", "alpha_reader", "_53ce71e1b09c4582_reader"]
)
def test_any_other_record_is_an_owners(record: str) -> None:
    assert tenant_of(record) == (record, Role.OWNER)


@pytest.mark.parametrize("engine", [*WITH_DATABASES, *BY_PREFIX])
@pytest.mark.parametrize("name", ["doadmin", "DoAdmin", "postgres", "pg_alpha", "PG_ALPHA", "root", "admin"])
def test_names_that_belong_to_the_cluster_are_refused(engine: Engine, name: str) -> None:
    for prefix in ("", name[:3]):
        with pytest.raises(InvalidArgumentError, match=f"'{name}' belongs to the cluster .*; nothing was sent"):
            names_of(name.removeprefix(prefix), engine, prefix)
    if engine is Engine.OPENSEARCH:
        name = name.lower()
    assert names_of(f"x{name}", engine).logins[0] == f"x{name}"


@pytest.mark.parametrize("engine", MYSQL)
@pytest.mark.parametrize(
    "name", ["mysql.sys", "MySQL.Session", "MARIADB.SYS", "unauthenticated user", "event_scheduler"]
)
def test_accounts_of_the_server_itself_are_no_tenants(engine: Engine, name: str) -> None:
    for prefix in ("", name[:3]):
        with pytest.raises(InvalidArgumentError, match=f"'{name}' belongs to the cluster .*; nothing was sent"):
            names_of(name.removeprefix(prefix), engine, prefix)
    assert names_of(f"{name}-1", engine).database == f"{name}-1"


@pytest.mark.parametrize("name", ["test", "test_", "test_alpha", "TEST", "Test_Alpha"])
def test_schemas_that_mariadb_opens_to_every_login_are_no_tenants(name: str) -> None:
    for engine in MYSQL:
        for prefix in ("", name[:2]):
            with pytest.raises(InvalidArgumentError, match=r"opens the schema test, .*; nothing was sent"):
                names_of(name.removeprefix(prefix), engine, prefix)
        for fine in ("tests", "testing_", "my_test", "te_st"):
            assert names_of(fine, engine).database == fine
    for engine in {*WITH_DATABASES} - {*MYSQL}:
        assert names_of(name, engine).database == name


@given(TENANTS, st.sampled_from(Role), st.sampled_from(Role))
def test_the_logins_of_all_roles_are_known_on_mysql(tenant: str, one: Role, another: Role) -> None:
    first, second = names_of(tenant, Engine.MYSQL, role=one), names_of(tenant, Engine.MYSQL, role=another)
    assert first.family == second.family >= {*first.logins, *second.logins}
    assert len(first.family) == 6
    assert (one is another) == bool({*first.logins} & {*second.logins})


@pytest.mark.parametrize("engine", [*WITH_DATABASES, *BY_PREFIX])
@pytest.mark.parametrize("which", ["a", "b", "owner"])
def test_the_form_of_a_derived_name_is_no_tenants(engine: Engine, which: str) -> None:
    """Otherwise a tenant could have the name of another tenant's second login."""
    with pytest.raises(InvalidArgumentError, match=r"has the form of a name that is derived .*; nothing was sent"):
        names_of(f"alpha_0123456789abcdef_{which}", engine)


@pytest.mark.parametrize(
    ("engine", "longest", "match"),
    [
        *((engine, "a" * 63, "longer than the 63 bytes of PostgreSQL; nothing was sent") for engine in POSTGRESQL),
        *((engine, "a" + "é" * 31, "longer than the 63 bytes of PostgreSQL") for engine in POSTGRESQL),
        *((engine, "é" * 64, "longer than the 64 characters of MySQL; nothing was sent") for engine in MYSQL),
    ],
)
def test_a_name_that_is_too_long_for_the_engine_is_refused(engine: Engine, longest: str, match: str) -> None:
    assert names_of(longest, engine).database == longest
    assert names_of(longest[1:], engine, longest[0]).database == longest
    with pytest.raises(InvalidArgumentError, match=match):
        names_of(longest, engine, "a")


@pytest.mark.parametrize("engine", MYSQL)
def test_a_login_of_mysql_is_the_name_itself_where_it_fits(engine: Engine) -> None:
    assert names_of("a" * 32, engine).logins[0] == "a" * 32
    assert names_of("a" * 33, engine).logins[0] != "a" * 33


@pytest.mark.parametrize("engine", BY_PREFIX)
@pytest.mark.parametrize("name", ["a.b", "a b", "a*", "é", "a\n"])
def test_where_names_are_prefixes_they_have_no_other_characters(engine: Engine, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="letters, digits, _ and - alone; nothing was sent"):
        names_of(name, engine)
    assert names_of("a0_-", engine).database is None
    assert names_of("-Z", Engine.KAFKA).database is None


@pytest.mark.parametrize("name", ["", ".", "..", "a\0", "\ud800", 7, None])
def test_invalid_names_are_refused(name: object) -> None:
    with pytest.raises(InvalidArgumentError, match="nothing was sent"):
        names_of(name, Engine.PG)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="nothing was sent"):
        names_of("\udfff", Engine.PG, "a")


def test_a_name_of_spaces_is_no_tenants() -> None:
    for engine in WITH_DATABASES:
        with pytest.raises(InvalidArgumentError, match=r"only has spaces, .*; nothing was sent"):
            names_of(" \u2003", engine, "my_")
    assert check_tenant(" a ") == " a "
