"""The names of a tenant's database, logins and owner role are unique, and within the engine's length limit."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given, reject
from hypothesis import strategies as st

from aiodbclient import Engine
from aiodbclient.engines import CAPABILITIES, SQL_ENGINES
from aiodbclient.errors import InvalidArgumentError, UnsupportedOperationError
from aiodbclient.tenants._naming import Names, check_tenant, guard_tenants, names_of
from aiodbclient.tenants.errors import GrantError

MYSQL = [Engine.MYSQL, Engine.ADVANCED_MYSQL]
POSTGRESQL = [Engine.PG, Engine.ADVANCED_PG]
WITH_TENANTS = [*POSTGRESQL, *MYSQL]

ENGINES = st.sampled_from(WITH_TENANTS)
TENANTS = st.from_regex(r"[aB0_][aB0_.-]{0,69}", fullmatch=True) | st.text("ab", min_size=60, max_size=64)
PREFIXES = st.sampled_from(["", "a", "B0_"])


def test_all_tenant_engines_are_covered() -> None:
    assert {*WITH_TENANTS} == SQL_ENGINES < {*CAPABILITIES}


@pytest.mark.parametrize("engine", [*(engine for engine in Engine if engine not in WITH_TENANTS), "cockroach"])
def test_no_tenants_on_unsupported_engines(engine: str) -> None:
    with pytest.raises(UnsupportedOperationError, match="nothing was"):
        guard_tenants(engine)


def possible_names(tenant: str, engine: Engine, prefix: str = "") -> Names:
    """The names of a tenant. An example whose tenant can have none is left out."""
    try:
        return names_of(tenant, engine, prefix)
    except InvalidArgumentError:
        reject()


def everything(names: Names) -> set[str]:
    return {names.database, names.owner, *names.groups, *names.next_logins([])}


@given(ENGINES, TENANTS, TENANTS, PREFIXES)
@example(Engine.MYSQL, "a" * 40 + "0", "a" * 40 + "B", "")  # they differ in what a login's name has no room for
def test_no_tenant_has_a_name_of_another(engine: Engine, one: str, another: str, prefix: str) -> None:
    assume(one != another)
    first, second = possible_names(one, engine, prefix), possible_names(another, engine, prefix)
    assert not everything(first) & everything(second)
    assert not any(first.is_ours(name) for name in everything(second))
    assert first == names_of(one, engine, prefix)


@given(ENGINES, TENANTS)
def test_every_name_fits_the_engine(engine: Engine, tenant: str) -> None:
    names = possible_names(tenant, engine)
    made = everything(names) - {names.database}
    assert len(made) == 4
    assert max(map(len, made)) <= (32 if engine in MYSQL else 63)
    assert all(map(names.is_ours, made))
    assert not names.is_ours(names.database)


@given(TENANTS, st.lists(st.integers(1, 0xFFFE), max_size=5))
def test_login_number_above_earlier_ones(tenant: str, numbers: list[int]) -> None:
    names = possible_names(tenant, Engine.PG)
    earlier = [f"{names.stem}{number:04x}beef" for number in numbers]
    [login] = names.next_logins([*earlier, names.database, names.owner])
    assert names.number(login) == max(numbers, default=0) + 1
    assert names.is_login(login)
    assert [login] != names.next_logins(earlier)  # two stores that know the tenant choose different names
    assert names.number(names.database) == 0


def test_after_65535_logins_a_tenant_gets_no_other() -> None:
    names = names_of("alpha", Engine.PG)
    with pytest.raises(GrantError, match="has had 65,535 logins"):
        names.next_logins([f"{names.stem}ffff0000"])


LONG = "a-tenant-whose-name-is-longer-than-a-login-of-mysql"


@pytest.mark.parametrize(
    ("engine", "tenant", "stem"),
    [(Engine.PG, "alpha", "my_alpha_54210d8521a9_"), (Engine.MYSQL, LONG, "my_a-tenan_49debb74e0e6_")],
)
def test_names_stay_what_they_are_over_upgrades(engine: Engine, tenant: str, stem: str) -> None:
    """Otherwise logins with other names would belong to no tenant."""
    named = names_of(tenant, engine, "my_")
    assert (named.stem, named.owner, named.groups) == (stem, f"{stem}owner", (f"{stem}writer", f"{stem}reader"))
    assert (named.tenant, named.database) == (tenant, f"my_{tenant}")


@pytest.mark.parametrize("engine", WITH_TENANTS)
@pytest.mark.parametrize(
    "name",
    [
        *("doadmin", "DoAdmin", "doadmin_group", "_doadmin_managed", "_dodb", "_dodb_repl", "defaultdb"),
        *("public", "none", "postgres", "template1", "pg_alpha", "PG_ALPHA", "root", "admin"),
        *("mysql", "mysql.sys", "MySQL.Session", "MARIADB.SYS", "event_scheduler"),
    ],
)
def test_reserved_names_are_refused(engine: Engine, name: str) -> None:
    for prefix in ("", name[:3]):
        with pytest.raises(InvalidArgumentError, match=f"'{name}' is .*: it is reserved; nothing was sent"):
            names_of(name.removeprefix(prefix), engine, prefix)
    assert names_of(f"x{name}", engine).database == f"x{name}"


@pytest.mark.parametrize("engine", WITH_TENANTS)
@pytest.mark.parametrize("ending", ["0001beef", "owner", "writer", "reader"])
def test_the_form_of_a_login_is_no_tenants(engine: Engine, ending: str) -> None:
    """Otherwise a tenant could have the name of another tenant's login."""
    with pytest.raises(InvalidArgumentError, match="it has the form of a tenant's login; nothing was sent"):
        names_of(f"alpha_0123456789ab_{ending}", engine)


@pytest.mark.parametrize(
    ("engine", "most"), [*((engine, 63) for engine in POSTGRESQL), *((engine, 64) for engine in MYSQL)]
)
def test_name_too_long_for_engine(engine: Engine, most: int) -> None:
    assert names_of("a" * most, engine).database == "a" * most
    assert names_of("a" * (most - 1), engine, "a").database == "a" * most
    with pytest.raises(InvalidArgumentError, match=f"longer than the {most} characters of .*; nothing was sent"):
        names_of("a" * most, engine, "a")


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
def test_allowed_characters_of_names(name: object) -> None:
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
