"""The docstring of a class describes each of its fields, members and properties."""

from __future__ import annotations

import enum
import inspect
from types import ModuleType

import attrs
import pytest

import aiodbclient
from aiodbclient import errors, sandbox, tenants

griffe = pytest.importorskip("griffe")

PUBLIC: dict[ModuleType, list[str]] = {
    module: [name for name in module.__all__ if name not in ("__version__", "errors")]
    for module in (aiodbclient, tenants, sandbox)
} | {
    module: [name for name, member in vars(module).items() if inspect.isclass(member)]
    for module in (errors, tenants.errors)
}
CLASSES = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module, names in PUBLIC.items()
    for name in names
    if inspect.isclass(getattr(module, name))
}


def described(cls: type) -> set[str]:
    """The fields and members that the docstrings of ``cls`` and its bases document."""
    found = set[str]()
    for base in cls.__mro__[:-1]:
        for section in griffe.Docstring(inspect.getdoc(base) or "").parse("google", warnings=False):
            if section.kind.value in ("attributes", "parameters"):
                found |= {item.name for item in section.value if item.description}
    return found


@pytest.mark.parametrize("path", CLASSES)
def test_each_field_and_member_is_described(path: str) -> None:
    cls = CLASSES[path]
    names = {field.name for field in attrs.fields(cls)} if attrs.has(cls) else set(getattr(cls, "_fields", ()))
    if issubclass(cls, enum.Enum):
        names = set(cls.__members__)
    names |= {name for name, member in vars(cls).items() if isinstance(member, property) and not member.__doc__}
    inherited = {"ok"}  # documented where it is first defined, at Outcome
    assert {name for name in names if not name.startswith("_")} - inherited <= described(cls)
