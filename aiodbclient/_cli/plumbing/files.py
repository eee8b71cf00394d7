"""Read the names of tenants, or users, from the command line, from a file or from the standard input."""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import EnumType
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

from ...errors import InvalidArgumentError
from .asking import interruptible
from .printing import FEW, some

if TYPE_CHECKING:
    from ... import NewUser

_MOST_BYTES = 32 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_YAML_SUFFIXES = (".yaml", ".yml", ".json")
_YAML_BEGINS = re.compile(r"\s*([\[{-]|users:)")  # no name begins like this
# What a column of names may be called by mistake. A tenant of such a name needs the line `name` before it.
_HEADINGS = {"names", "tenant", "tenants", "user", "users", "username", "login", "database", "customer", "id"}
_LISTS = {str(list), str(Sequence)}


def read_names(arguments: list[str] | None, file: Path | None) -> list[str]:
    """Return the names that were given, or those in ``file``, and refuse a name that comes twice."""
    if file is None:
        names = _checked_arguments(arguments)
    elif arguments:
        raise InvalidArgumentError("give names or --from, not both")
    else:
        names = _names_in(_called(file), read_text(file))
    _refuse_twice(names)
    return names


def listed(names: Sequence[str]) -> list[str]:
    """The names as the arguments of a printed command: if there are many, by a file."""
    return [*names] if len(names) <= FEW else ["--from", written(names)]


def written(names: Sequence[str]) -> str:
    """Write the names to a new file for ``--from``, and return its path.

    It stays: the command that names it is pasted when the operator is ready. The names are no secret.
    """
    with NamedTemporaryFile("w", prefix="aiodbclient-names-", suffix=".csv", delete=False) as file:
        file.write("\n".join(["name", *names, ""]))
    return file.name


def read_users(arguments: list[str] | None, file: Path | None) -> list[NewUser]:
    """Return the users that were named, or those in ``file`` with their settings, and refuse one that comes twice."""
    from ... import NewUser  # slow to import, and not needed for help

    if file is None or arguments:
        return [NewUser(name) for name in read_names(arguments, file)]
    where, text = _called(file), read_text(file)
    if file.suffix in _YAML_SUFFIXES or _YAML_BEGINS.match(text):
        users = _users_in(where, text)
    else:
        users = [NewUser(name) for name in _names_in(where, text)]
    _refuse_twice([user.name for user in users])
    return users


def read_text(file: Path) -> str:
    """Read a file in UTF-8, with or without a byte order mark."""
    try:
        with interruptible():
            if str(file) == "-":
                if sys.stdin is None:
                    raise InvalidArgumentError("--from -: the standard input is closed")
                data = sys.stdin.buffer.read(_MOST_BYTES + 1)
            else:
                with file.open("rb") as opened:
                    data = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidArgumentError(f"{_called(file)} cannot be read: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise InvalidArgumentError(f"{_called(file)} is larger than {_MOST_BYTES // 1024**2} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidArgumentError(f"{_called(file)}, line {line}: not UTF-8") from None


def _called(file: Path) -> str:
    return "the standard input" if str(file) == "-" else str(file)


def _checked_arguments(arguments: list[str] | None) -> list[str]:
    if not arguments:
        raise InvalidArgumentError("give names, or a file: --from names.csv")
    if "-" in arguments:
        raise InvalidArgumentError("'-' is not a name: to read names from the standard input, use --from -")
    if "" in arguments:
        raise InvalidArgumentError("a name is empty: is a variable of your script not set?")
    return arguments


def _names_in(where: str, text: str) -> list[str]:
    names, problems = list[str](), list[str]()
    for line, name in _rows(where, text):
        if _NAME.fullmatch(name):
            names.append(name)
        else:  # it may be a secret: it is not printed
            problems.append(str(line))
    if problems:
        lines = f"line{'s' * (len(problems) > 1)} {some(problems)}"
        raise InvalidArgumentError(
            f"{where}: not a name in {lines}. A file has a name on each line, or is CSV with the column `name`"
        )
    return names


def _rows(where: str, text: str) -> Iterator[tuple[int, str]]:
    """The number and the name of each line, except comments, which begin with #."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    if not lines:
        raise InvalidArgumentError(f"{where} is empty: a file without names has the line `name`")
    reader = csv.DictReader((line for _, line in lines), skipinitialspace=True, strict=True)
    try:
        columns = [column.strip().lower() for column in reader.fieldnames or ()]
        if columns.count("name") > 1:
            raise InvalidArgumentError(f"{where} has the column `name` twice")
        reader.fieldnames = columns
        if "name" not in columns:
            if columns[0] in _HEADINGS:
                raise InvalidArgumentError(f"{where}: the first line is `{columns[0]}`, and must be `name` for a CSV")
            yield from ((number, line.strip()) for number, line in lines)
            return
        for row in reader:
            yield lines[reader.line_num - 1][0], (row["name"] or "").strip()
    except csv.Error as error:
        raise InvalidArgumentError(f"{where} is not CSV: {error}") from None


def _users_in(where: str, text: str) -> list[NewUser]:
    import yaml
    from cattrs import ClassValidationError, IterableValidationError, transform_error

    from ... import NewUser

    try:
        with interruptible():
            value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        raise InvalidArgumentError(f"{where}{line}: not YAML or JSON") from None
    if isinstance(value, dict) and [*value] == ["users"]:
        value = value["users"]
    if not isinstance(value, list):
        raise InvalidArgumentError(f"{where} is not a list of users, alone or under `users:`")
    listed = [{"name": each} if isinstance(each, str) else each for each in value]
    try:
        users: list[NewUser] = _converter().structure(listed, list[NewUser])
    except (ClassValidationError, IterableValidationError) as error:
        raise InvalidArgumentError(f"{where}: {some(transform_error(error, path='users'), '; ')}") from None
    return users


def _converter() -> Any:
    """Return a converter that refuses unknown members and wrong types."""
    from attrs import has
    from cattrs import Converter
    from cattrs.cols import list_structure_factory
    from cattrs.gen import make_dict_structure_fn

    converter = Converter(forbid_extra_keys=True)

    def read_as(value: Any, kind: type[Any]) -> Any:
        if not isinstance(value, kind):
            raise TypeError
        return value

    def enum_of(kind: Any) -> Any:
        """Return the enum in ``Enum | str``."""
        return next((each for each in get_args(kind) if isinstance(each, EnumType)), None)

    def members_hook(kind: Any) -> Any:
        structure = make_dict_structure_fn(kind, converter)
        return lambda value, kind: structure(read_as(value, dict), kind)

    def list_hook(kind: Any) -> Any:
        structure = list_structure_factory(kind, converter)
        return lambda value, kind: structure(read_as(value, list), kind)

    converter.register_structure_hook_factory(has, members_hook)
    converter.register_structure_hook(str, read_as)
    converter.register_structure_hook(bool, read_as)
    converter.register_structure_hook_func(
        lambda kind: isinstance(kind, UnionType) and enum_of(kind) is not None, lambda value, kind: enum_of(kind)(value)
    )
    converter.register_structure_hook_factory(lambda kind: str(get_origin(kind)) in _LISTS, list_hook)
    return converter


def _refuse_twice(names: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidArgumentError(f"given twice: {some(twice)}")
