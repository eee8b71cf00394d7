"""The extensions and settings that ``Tenants`` gives to each database."""

from __future__ import annotations

from typing import Any

import pytest

from aiodbclient import Engine
from aiodbclient.errors import InvalidArgumentError
from aiodbclient.tenants import Credential, Problem, ProblemKind, TenantAction
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._options import DatabaseOptions
from aiodbclient.tenants.errors import GrantError

from ..conftest import Place, only, present
from ..managed import Managed
from ..moves import Two
from ..programs import admin_of, ask

EXTENSIONS = (
    "SELECT extname::text, pg_get_userbyid(extowner)::text FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1"
)
OPTIONS: dict[str, Any] = {
    "extensions": {"citext": "kinds", "pg_trgm": "public"},
    "settings": {"statement_timeout": "31s", "search_path": '"$user", public, kinds', "timezone": "UTC"},
}


async def values_of(credential: Credential) -> list[str]:
    return [(await ask(credential, f"SHOW {name}"))[0][0] for name in OPTIONS["settings"]]


def owner_of(credential: Credential) -> str:
    return names_of(credential.database, Engine.PG).owner


async def test_database_has_options_before_first_login(place: Place) -> None:
    """The administrator makes the extensions, since nobody has been in the database."""
    seen = list[Any]()

    async def setup(credential: Credential) -> None:
        seen.append(await ask(credential, EXTENSIONS))
        seen.append(await ask(credential, "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'kinds'"))
        await ask(credential, "CREATE TABLE t (name citext)")  # by the search path

    tenants = place.tenants(setup=setup, **OPTIONS)
    credential = await tenants.ensure("alpha")

    admin = await admin_of(place.cluster)
    assert seen == [[("citext", admin.username), ("pg_trgm", admin.username)], [(owner_of(credential),)]]
    assert await values_of(credential) == ["31s", '"$user", public, kinds', "UTC"]
    assert (await only(tenants.check())).problems == ()
    assert (await only(tenants.rotate(["alpha"]))).error is None
    assert await values_of(present(await tenants.get("alpha"))) == ["31s", '"$user", public, kinds', "UTC"]
    assert (await only(tenants.repair(["alpha"]))).action is TenantAction.KEPT


async def test_extensions_by_name(place: Place) -> None:
    """In their own schema, or in public."""
    credential = await place.tenants(extensions=["tcn", "cube"]).ensure("alpha")
    schemas = "SELECT extname, nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace ORDER BY 1"
    assert await ask(credential, schemas) == [("cube", "public"), ("plpgsql", "pg_catalog"), ("tcn", "public")]


async def test_repair_restores_options(place: Place) -> None:
    """As the tenant: what it has in its database must not run as the administrator."""
    credential = await place.tenants().ensure("alpha")  # without options
    admin, tenants = await admin_of(place.cluster), place.tenants(**OPTIONS)
    await ask(admin, f"ALTER DATABASE {credential.database} SET statement_timeout = '1h'")

    missing = [Problem(ProblemKind.SETTING_DIFFERS, name) for name in ("search_path", "statement_timeout", "timezone")]
    missing += [Problem(ProblemKind.EXTENSION_MISSING, name) for name in ("citext", "pg_trgm")]
    assert [*(await only(tenants.check(["alpha"]))).problems] == missing
    repaired = await only(tenants.repair(["alpha"]))
    assert (repaired.action, [*repaired.problems]) == (TenantAction.REPAIRED, missing)

    assert (await only(tenants.check(["alpha"]))).problems == ()
    assert await ask(credential, EXTENSIONS) == [(name, owner_of(credential)) for name in ("citext", "pg_trgm")]
    assert await values_of(credential) == ["31s", '"$user", public, kinds', "UTC"]
    assert (await only(place.tenants().check(["alpha"]))).problems == ()  # of others nothing is known


async def test_untrusted_extension_reported(place: Place) -> None:
    """``repair`` repairs all else, and does not make it: the tenant may have left code in the schema."""
    credential = await place.tenants().ensure("alpha")
    tenants = place.tenants(extensions=["pageinspect", "citext"], settings={"work_mem": "5MB"})
    outcome = await only(tenants.repair(["alpha"]))
    assert isinstance(outcome.error, GrantError)
    assert "lacks the extension 'pageinspect', which is not trusted" in str(outcome.error)
    assert (await only(tenants.check(["alpha"]))).problems == (Problem(ProblemKind.EXTENSION_MISSING, "pageinspect"),)
    assert await ask(credential, EXTENSIONS) == [("citext", owner_of(credential))]


async def test_setup_that_failed_runs_nothing_as_administrator(place: Place) -> None:
    """The next ``ensure`` makes an extension that it dropped as the owner role, since it may have left code."""

    async def setup(credential: Credential) -> None:
        await ask(credential, "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE t (x int)")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await place.tenants(setup=setup, extensions=["citext"]).ensure("alpha")
    credential = await place.tenants(extensions=["citext"]).ensure("alpha")
    assert await ask(credential, EXTENSIONS) == [("citext", owner_of(credential))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extensions": ["no_such"]}, 'extension "no_such" is not available'),
        ({"extensions": ["pageinspect"]}, 'permission denied to create extension "pageinspect"'),
        ({"settings": {"work_mem": "lots"}}, 'invalid value for parameter "work_mem": "lots"'),
        ({"settings": {"no_such": "1"}}, 'unrecognized configuration parameter "no_such"'),
        ({"settings": {"app.x": "1"}}, 'permission denied to set parameter "app.x"'),
        ({"settings": {"log_statement": "none"}}, 'permission denied to set parameter "log_statement"'),
    ],
)
async def test_refused_option_fails_tenant(place: Place, options: dict[str, Any], message: str) -> None:
    """The error names it. Without the option, the next call finishes the tenant."""
    with pytest.raises(GrantError, match=message):
        await place.tenants(**options).ensure("alpha")
    assert await place.tenants().get("alpha") is None
    await place.tenants().ensure("alpha")
    assert (await only(place.tenants().check(["alpha"]))).problems == ()


async def test_next_call_sets_other_settings(place: Place) -> None:
    """A creation that failed after the database was opened has set those of the first call."""
    with pytest.raises(GrantError, match='extension "no_such" is not available'):
        await place.tenants(extensions=["no_such"]).ensure("alpha")
    with pytest.raises(GrantError, match='unrecognized configuration parameter "no_such"'):
        await place.tenants(settings={"no_such": "1"}).ensure("alpha")
    credential = await place.tenants(settings={"work_mem": "5MB"}).ensure("alpha")
    assert await ask(credential, "SHOW work_mem") == [("5MB",)]


HOSTILE = ["'; DROP ROLE nobody; --", "\\'", "%s %(x)s {}", 'a"b', "two\nlines", "$$x$$", "", "é", "a=b"]


@pytest.mark.parametrize("value", HOSTILE)
async def test_value_of_setting_is_text(place: Place, value: str) -> None:
    path = f'"{value.replace(chr(34), "")}x", public'
    tenants = place.tenants(settings={"Application_Name": value, "search_path": path})
    credential = await tenants.ensure("alpha")
    of_database = (
        "SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname = "
    )
    assert await ask(credential, "SHOW search_path") == [(path,)]
    assert await ask(credential, f"{of_database} current_database()") == [
        ([f"application_name={value}", f"search_path={path}"],)
    ]
    assert (await only(tenants.check(["alpha"]))).problems == ()


async def test_search_path_runs_nothing_as_administrator(place: Place) -> None:
    """A list of names is set in the administrator's session first, where a function of another schema must not run."""
    admin, schema = await admin_of(place.cluster), place.prefix
    await ask(
        admin,
        f"CREATE SCHEMA {schema}",
        f"CREATE TABLE {schema}.ran (who name)",
        f"CREATE FUNCTION {schema}.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS "
        f"$$INSERT INTO {schema}.ran VALUES (current_user) RETURNING who$$",
    )
    path = f"{schema}, pg_catalog"
    await ask(admin, f"SET search_path = {path}", "SELECT set_config('a.b', 'c', true)")
    control = await ask(admin, f"SELECT count(*) FROM {schema}.ran")
    credential = await place.tenants(settings={"search_path": path, "temp_tablespaces": ""}).ensure("alpha")
    assert control == [(1,)] == await ask(admin, f"SELECT count(*) FROM {schema}.ran")
    await ask(admin, f"DROP SCHEMA {schema} CASCADE")
    assert await ask(credential, "SHOW search_path") == [(path,)]


@pytest.mark.parametrize(
    "options",
    [
        {"template": 5},
        {"template": "a b"},
        {"template": ""},
        {"template": {}},
        {"template": {"another cluster": "golden"}},
        {"extensions": "citext"},
        {"extensions": 5},
        {"extensions": [""]},
        {"extensions": ["citext; DROP"]},
        {"extensions": ["-x"]},
        {"extensions": ["a--b"]},
        {"extensions": ["../x"]},
        {"extensions": ["x" * 64]},
        {"extensions": [b"citext"]},
        {"extensions": {"citext": 'x"'}},
        {"extensions": {"citext": ""}},
        {"settings": [("work_mem", "1MB")]},
        {"settings": {"": "1"}},
        {"settings": {"a b": "1"}},
        {"settings": {"a.": "1"}},
        {"settings": {"work_mem": 5}},
        {"settings": {"work_mem": "1\0"}},
        {"settings": {"app.x": "\ud800"}},
        *({"settings": {name: "x"}} for name in ("role", "ROLE", "session_authorization")),
        *({"settings": {f"{which}_preload_libraries": "x"}} for which in ("session", "local")),
    ],
)
async def test_invalid_options_refused(place: Place, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"extension|setting|template|tenant's name"):
        place.tenants(**options)
    assert place.sent() == []


@pytest.mark.parametrize(
    "options", [{"template": "golden"}, {"extensions": ["citext"]}, {"settings": {"work_mem": "1MB"}}]
)
async def test_mysql_has_no_options(place: Place, my_place: Place, options: dict[str, Any]) -> None:
    """Also if the engine is known only when the cluster was read."""
    [name] = options
    with pytest.raises(InvalidArgumentError, match=f"{name}= needs PostgreSQL"):
        await my_place.tenants(**options).ensure("alpha")
    assert await my_place.tenants().get("alpha") is None
    my_place.tenants(extensions=(), settings={})


async def test_move_keeps_options(two: Two) -> None:
    """With the values that the database has, and the extensions that it has."""
    tenants = two.tenants(**OPTIONS)
    alpha = await tenants.ensure("alpha")
    await ask(await admin_of(two.old), f"ALTER DATABASE {alpha.database} SET statement_timeout = '32s'")
    await ask(alpha, "CREATE TABLE t (name citext)", "INSERT INTO t VALUES ('A')")
    moved = await only(tenants.move(["alpha"]))
    assert moved.error is None
    assert await values_of(moved.credential) == ["32s", '"$user", public, kinds', "UTC"]
    assert await ask(moved.credential, "SELECT name FROM t WHERE name = 'a'") == [("A",)]
    kept = [Problem(ProblemKind.SETTING_DIFFERS, "statement_timeout")]
    assert [*(await only(tenants.check(["alpha"]))).problems] == kept


async def test_options_on_each_version(managed: Managed) -> None:
    server = managed.postgres(
        options=DatabaseOptions.checked([], None, {"citext": "kinds"}, {"search_path": "kinds, public"})
    )
    tenant = await managed.tenant("options", server, logins=0)
    await tenant.steps.restore_extensions(is_new=True)
    await tenant.add()
    assert await tenant.problems() == frozenset()
    assert managed.run(tenant, "SELECT 'A'::citext = 'a'") == [(True,)]
    assert managed.api(EXTENSIONS, tenant.database) == [("citext", "doadmin")]

    managed.as_admin(f"ALTER DATABASE {tenant.database} RESET search_path")
    managed.run(tenant, "DROP SCHEMA kinds CASCADE")
    assert {str(each) for each in await tenant.problems()} == {
        "setting_differs: search_path",
        "extension_missing: citext",
    }
    await tenant.repair()
    await tenant.steps.restore_extensions(is_new=False)
    assert await tenant.problems() == frozenset()
    assert managed.api(EXTENSIONS, tenant.database) == [("citext", tenant.owner)]
