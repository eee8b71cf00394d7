"""Each class describes its fields, members and properties."""

from __future__ import annotations

import ast
import enum
import inspect
import textwrap
from itertools import pairwise
from types import ModuleType

import attrs
import pytest

import aiodbclient
from aiodbclient import bulk, errors, rate_limiter, sandbox, tenants

griffe = pytest.importorskip("griffe")

PUBLIC: dict[ModuleType, list[str]] = {
    module: [name for name in module.__all__ if name not in ("__version__", "errors")]
    for module in (aiodbclient, tenants, sandbox)
} | {
    bulk: [name for name in vars(bulk) if name[0].isalpha()],
    rate_limiter: [name for name in rate_limiter.__all__ if name != "RateLimiter"],  # at the top too
    **{
        module: [name for name, member in vars(module).items() if getattr(member, "__module__", "") == module.__name__]
        for module in (errors, tenants.errors)
    },
}
CLASSES = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module, names in PUBLIC.items()
    for name in names
    if inspect.isclass(getattr(module, name))
}


def described(cls: type) -> set[str]:
    """The fields and members that ``cls`` and its bases document: in their docstring, or in a string below each."""
    found = set[str]()
    for base in cls.__mro__[:-1]:
        if base.__module__.startswith("aiodbclient"):
            found |= described_below(base)
        for section in griffe.Docstring(inspect.getdoc(base) or "").parse("google", warnings=False):
            if section.kind.value in ("attributes", "parameters"):
                found |= {item.name for item in section.value if item.description}
    return found


def described_below(cls: type) -> set[str]:
    """The fields and members of a class with a string below them."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found = set[str]()
    for node, below in pairwise(tree.body):
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            if isinstance(node, ast.AnnAssign):
                found.add(ast.unparse(node.target))
            elif isinstance(node, ast.Assign):
                found |= {ast.unparse(target) for target in node.targets}
    return found


@pytest.mark.parametrize("path", CLASSES)
def test_each_field_and_member_is_described(path: str) -> None:
    cls = CLASSES[path]
    names = {field.name for field in attrs.fields(cls)} if attrs.has(cls) else set(getattr(cls, "_fields", ()))
    if issubclass(cls, enum.Enum):
        names = set(cls.__members__)
    names |= {name for name, member in vars(cls).items() if isinstance(member, property) and not member.__doc__}
    assert {name for name in names if not name.startswith("_")} <= described(cls)
