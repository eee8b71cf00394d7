"""The public API matches public_api.txt, so no name or argument changes by accident.

After an intended change: run ``.venv/bin/python -m tests.test_public_api``, and review the difference.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import aiodbclient
from aiodbclient import bulk, errors, rate_limiter, sandbox, tenants

SNAPSHOT = Path(__file__).with_name("public_api.txt")
MODULES = (aiodbclient, bulk, errors, rate_limiter, tenants, tenants.errors, sandbox)


def public_names(module: ModuleType) -> list[str]:
    own = [name for name, each in vars(module).items() if getattr(each, "__module__", "") == module.__name__]
    own = [name for name in vars(bulk) if name[0].isalpha()] if module is bulk else own
    return sorted(name for name in getattr(module, "__all__", own) if not name.startswith("_") and name != "errors")


def described(name: str, member: object) -> Iterator[str]:
    """One line for ``member``, and one for each public member of a class."""
    if not inspect.isclass(member):
        yield f"{name}{parameters(member)}" if callable(member) else name
        return
    if issubclass(member, enum.Enum):
        yield f"class {name}"
        yield from (f"    {each.name} = {each.value!r}" for each in member)
    else:
        yield f"class {name}{parameters(member)}"
    inherited = {each for base in member.__mro__[1:] if base.__module__ == "builtins" for each in vars(base)}
    for attribute in sorted(dir(member)):
        if attribute.startswith("_") or attribute in inherited or hasattr(enum.Enum, attribute):
            continue
        value = inspect.getattr_static(member, attribute)
        value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isfunction(value):
            how = "async " if inspect.iscoroutinefunction(value) else ""
            yield f"    {how}{attribute}{parameters(value)}"
        elif not (inspect.isclass(value) or isinstance(value, enum.Enum)):
            yield f"    {attribute}"


def parameters(member: object) -> str:
    """The names and kinds of the parameters, and whether each has a default."""
    assert callable(member)
    try:
        signature = inspect.signature(member)
    except ValueError:
        return ""
    plain = [
        each.replace(annotation=inspect.Parameter.empty, default=... if each.default is not each.empty else each.empty)
        for each in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return text.replace("=Ellipsis", "=...")


def snapshot() -> str:
    lines: list[str] = []
    for module in MODULES:
        lines.append(f"# {module.__name__}")
        for name in public_names(module):
            lines += described(name, getattr(module, name))
        lines.append("")
    return "\n".join(lines)


def test_the_public_api_is_as_it_was() -> None:
    assert snapshot() == SNAPSHOT.read_text()


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot())
