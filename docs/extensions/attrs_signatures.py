"""An extension of griffe, which reads the package for the site: gives attrs classes their signatures.

griffe does not run the code that it reads, and so sees no ``__init__`` of a class that attrs makes one for.
"""

from __future__ import annotations

import ast
import enum
import inspect
from importlib import import_module
from typing import Any

import attrs
import griffe


class AttrsSignatures(griffe.Extension):
    """Adds the ``__init__`` that attrs has made."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        made = getattr(import_module(cls.module.path), cls.name, None)
        if not attrs.has(made) or "__init__" in cls.members:
            return
        fields = {field.alias: field for field in attrs.fields(made)}
        parameters = [
            griffe.Parameter(
                "self", kind=griffe.ParameterKind.positional_or_keyword
            )
        ]
        for parameter in inspect.signature(made).parameters.values():
            annotation = (
                None  # attrs takes that of a converter, which may have none
            )
            if isinstance(parameter.annotation, str):
                annotation = griffe.safe_get_annotation(
                    ast.parse(parameter.annotation, mode="eval").body,
                    parent=cls,
                )
            kind = griffe.ParameterKind(parameter.kind.description)
            default = _shown(fields[parameter.name].default)
            parameters.append(
                griffe.Parameter(
                    parameter.name,
                    annotation=annotation,
                    kind=kind,
                    default=default,
                )
            )
        init = griffe.Function(
            "__init__",
            parent=cls,
            parameters=griffe.Parameters(*parameters),
            returns="None",
        )
        cls.set_member("__init__", init)


def _shown(default: Any) -> str | None:
    """A default as the signature shows it; None if there is none."""
    if default is attrs.NOTHING:
        return None
    if isinstance(default, attrs.Factory):
        of = getattr(default.factory, "func", default.factory)  # of a partial
        return f"{of.__name__}()"
    if isinstance(default, enum.Enum):
        return f"{type(default).__name__}.{default.name}"
    return (
        f"{default.__module__}.{default.__name__}"
        if inspect.isroutine(default)
        else repr(default)
    )
