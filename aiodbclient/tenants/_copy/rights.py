"""The rights in a dump of PostgreSQL, for the roles of another tenant. Pure.

A name in it is anything that a tenant chose, such as ``a;`` and a new line.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping

_QUOTED = r'"(?:[^"]|"")+"'
# A comment, a statement that gives rights, and what may hide the beginning of another one.
_STATEMENT = re.compile(
    rf"--.*|^((?:GRANT|REVOKE|ALTER DEFAULT PRIVILEGES) (?:[^\";]|{_QUOTED})*)|{_QUOTED}|'(?:[^']|'')*'", re.MULTILINE
)
# A role in such a statement, or another name.
_ROLE = re.compile(rf"( TO | FROM | FOR ROLE )({_QUOTED}|[a-z_][a-z0-9_$]*)|{_QUOTED}")


def of_others(text: str, roles: Mapping[str, str]) -> Generator[str]:
    """The statements of a dump that give rights, to the ``roles`` of another tenant."""

    def of_other(match: re.Match[str]) -> str:
        name = (match[2] or "").strip('"').replace('""', '"')
        return f'{match[1]}"{roles[name]}"' if name in roles else match[0]

    for match in _STATEMENT.finditer(text):
        if match[1]:
            yield _ROLE.sub(of_other, match[1])
