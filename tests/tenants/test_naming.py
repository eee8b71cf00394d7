"""The names of a tenant's database, logins and owner role are unique, and within the engine's length limit."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiodbclient import Engine
from aiodbclient.engines import CAPABILITIES, SQL_ENGINES
from aiodbclient.errors import InvalidArgumentError, UnsupportedOperationError
from aiodbclient.tenants import Role
from aiodbclient.tenants._naming import Names, check_tenant, names_of, record_name, tenant_of

MYSQL = [Engine.MYSQL, Engine.ADVANCED_MYSQL]
POSTGRESQL = [Engine.PG, Engine.ADVANCED_PG]
WITH_TENANTS = [*POSTGRESQL, *MYSQL]

ENGINES = st.sampled_from(WITH_TENANTS)
TENANTS = st.from_regex(r"[aB0_][aB0_.-]{0,69}", fullmatch=True) | st.text("ab", min_size=60, max_size=64)
PREFIXES = st.sampled_from(["", "a", "B0_"])


def test_every_engine_that_can_have_tenants_is_tested_here() -> None:
    assert {*WITH_TENANTS} == SQL_ENGINES < {*CAPABILITIES}


@pytest.mark.parametrize("engine", [*(engine for engine in Engine if engine not in WITH_TENANTS), "cockroach"])
def test_where_there_can_be_no_tenants_there_are_no_names(engine: str) -> None:
    with pytest.raises(UnsupportedOperationError, match="nothing was"):
        names_of("alpha", engine)


def everything(names: Names) -> set[str]:
    return {*names.everything, names.database}


@given(ENGINES, TENANTS, TENANTS, PREFIXES)
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
        assert max(map(len, names.everything)) <= 32
    else:
        assert max(map(len, names.everything)) <= 63
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
            Engine.MYSQL,
            LONG,
            (
                "my_a-tenant-w_5ea74375fd75ffe6_a",
                "my_a-tenant-w_5ea74375fd75ffe6_b",
                "my_a-tena_5ea74375fd75ffe6_owner",
                f"my_{LONG}",
            ),
        ),
    ],
)
def test_names_stay_what_they_are_over_upgrades(engine: Engine, tenant: str, names: tuple[str, ...]) -> None:
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


@given(TENANTS, st.sampled_from(Role))
def test_a_record_shows_its_tenant_and_role(tenant: str, role: Role) -> None:
    assert tenant_of(record_name(tenant, role)) == (tenant, role)
    assert (record_name(tenant, role) == tenant) == (role is Role.OWNER)


@pytest.mark.parametrize(
    "record", ["alpha", "alpha_0123456789abcdef_reader", "alpha_reader", "_53ce71e1b09c4582_reader"]
)
def test_any_other_record_is_an_owners(record: str) -> None:
    assert tenant_of(record) == (record, Role.OWNER)


@pytest.mark.parametrize("engine", WITH_TENANTS)
@pytest.mark.parametrize(
    "name",
    [
        *("doadmin", "DoAdmin", "doadmin_group", "_doadmin_managed", "_dodb", "_dodb_repl", "defaultdb"),
        *("postgres", "template1", "pg_alpha", "PG_ALPHA", "root", "admin"),
        *("mysql", "mysql.sys", "MySQL.Session", "MARIADB.SYS", "event_scheduler"),
    ],
)
def test_names_that_belong_to_the_cluster_are_refused(engine: Engine, name: str) -> None:
    for prefix in ("", name[:3]):
        with pytest.raises(InvalidArgumentError, match=f"'{name}' is .*: it belongs to the cluster; nothing was sent"):
            names_of(name.removeprefix(prefix), engine, prefix)
    assert names_of(f"x{name}", engine).logins[0] == f"x{name}"


@given(st.text("ab", min_size=1, max_size=64), st.sampled_from(Role), st.sampled_from(Role))
def test_the_logins_of_all_roles_are_known_on_mysql(tenant: str, one: Role, another: Role) -> None:
    first, second = names_of(tenant, Engine.MYSQL, role=one), names_of(tenant, Engine.MYSQL, role=another)
    assert first.all_logins == second.all_logins >= {*first.logins, *second.logins}
    assert len(first.all_logins) == 6
    assert (one is another) == bool({*first.logins} & {*second.logins})


@pytest.mark.parametrize("engine", WITH_TENANTS)
@pytest.mark.parametrize("which", ["a", "b", "t", "owner", "reader"])
def test_the_form_of_a_derived_name_is_no_tenants(engine: Engine, which: str) -> None:
    """Otherwise a tenant could have the name of another tenant's second login."""
    with pytest.raises(InvalidArgumentError, match=r"it has the form of a name that is derived .*; nothing was sent"):
        names_of(f"alpha_0123456789abcdef_{which}", engine)


@pytest.mark.parametrize(
    ("engine", "most"), [*((engine, 63) for engine in POSTGRESQL), *((engine, 64) for engine in MYSQL)]
)
def test_a_name_that_is_too_long_for_the_engine_is_refused(engine: Engine, most: int) -> None:
    assert names_of("a" * most, engine).database == "a" * most
    assert names_of("a" * (most - 1), engine, "a").database == "a" * most
    with pytest.raises(InvalidArgumentError, match=f"longer than the {most} characters of .*; nothing was sent"):
        names_of("a" * most, engine, "a")


@pytest.mark.parametrize("engine", MYSQL)
def test_a_login_of_mysql_is_the_name_itself_where_it_fits(engine: Engine) -> None:
    assert names_of("a" * 32, engine).logins[0] == "a" * 32
    assert names_of("a" * 33, engine).logins[0] != "a" * 33


# What a program, a shell, a spreadsheet or a URL would take for something else than a name.
HOSTILE = [
    "../x",
    "--all",
    "-f",
    "--execute=\\! touch x",
    "#x",
    " victim",
    "victim ",
    "a b",
    "a\n",
    "a/b",
    ".",
    "..",
    "é",
]


@pytest.mark.parametrize("name", [*HOSTILE, ".hidden", "", "a\0", "\ud800", "a;b", "a'b", 'a"b', "$x", "a*", 7, None])
def test_a_name_has_letters_digits_and_three_signs_alone(name: object) -> None:
    with pytest.raises(InvalidArgumentError, match="nothing was sent"):
        names_of(name, Engine.PG)  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["-", ".", "a b", "/", "\udfff", "é"])
def test_so_has_a_name_with_its_prefix(prefix: str) -> None:
    with pytest.raises(InvalidArgumentError, match="nothing was sent"):
        names_of("alpha", Engine.PG, prefix)


@pytest.mark.parametrize("name", ["a", "0", "_", "_a", "A.b-c_0", "eu-west.customer-7"])
def test_other_names_are_taken_as_they_are(name: str) -> None:
    assert check_tenant(name) == name
    assert names_of(name, Engine.PG).database == names_of(name, Engine.MYSQL).database == name
