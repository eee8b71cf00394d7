"""An extension of griffe: what a Raises section names is looked up in ``aiodbclient.errors`` and
``aiodbclient.tenants.errors``, so the site links it.

griffe looks a name up in the module of the docstring, which seldom imports the exceptions that it only lets pass.
"""

from __future__ import annotations

from typing import Any

import griffe


class RaisesLinks(griffe.Extension):
    """Gives each exception of a Raises section the path of its class."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        if "errors" in pkg.members:
            self._link(pkg, (pkg["errors"], pkg["tenants.errors"]))

    def _link(self, obj: Any, errors: Any) -> None:
        for section in obj.docstring.parsed if obj.docstring else []:
            if section.kind is griffe.DocstringSectionKind.raises:
                for item in section.value:
                    for module in errors:
                        if str(item.annotation) in module.members:
                            item.annotation = griffe.ExprName(str(item.annotation), parent=module)
        for member in obj.members.values():
            if not member.is_alias:
                self._link(member, errors)
