"""A program that was written for the previous release works with this one.

``public_api_1_0.txt`` is that release's ``public_api.txt``, and ``tests/typing/of_1_0`` has its typing tests, which
``make check`` runs on this code. A removal or another signature stands in ``BROKEN``, and in the changelog.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pytest

from .test_public_api import snapshot

PREVIOUS = Path(__file__).with_name("public_api_1_0.txt").read_text()
CHANGELOG = (Path(__file__).parents[1] / "CHANGELOG.md").read_text()

# The public names that broke, and the words by which the changelog says so.
BROKEN = {
    "aiodbclient.sandbox.Fault": "`Fault` has `options` instead of an attribute for each",
    "aiodbclient.sandbox.Faults": "`Faults()` takes no arguments",
}


def members(text: str) -> Iterator[tuple[str, str]]:
    """Each public name with its whole path, and its parameters or value."""
    module = cls = ""
    for line in filter(str.strip, text.splitlines()):
        match = re.fullmatch(r"(?P<in># |    )?(?P<kind>(?:class |async )*)(?P<name>[\w.]+)(?P<rest>.*)", line)
        assert match is not None, line
        if match["in"] == "# ":
            module, cls = match["name"], ""
            continue
        if match["in"] is None:
            cls = match["name"]
            yield f"{module}.{cls}", match["kind"] + match["rest"]
        else:
            yield f"{module}.{cls}.{match['name']}", match["kind"] + match["rest"]


def parameters(rest: str) -> list[str]:
    found = re.search(r"\((.*)\)$", rest)
    return [] if found is None or not found[1] else found[1].split(", ")


def breaks(before: str, now: str) -> bool:
    """Whether a call or an access that was right ``before`` may fail ``now``."""
    if before == now:
        return False
    if re.sub(r"\(.*", "", before) != re.sub(r"\(.*", "", now):
        return True
    old, new = parameters(before), parameters(now)
    by_position = old.index("*") if "*" in old else len(old)
    for earlier, later in zip_longest(old[:by_position], new[: len(old[:by_position])]):
        if later is None or later.removesuffix("=...") != earlier.removesuffix("=..."):
            return True
    required = {each for each in new if each not in old and not each.endswith("=...") and not each.startswith("*")}
    missing = {each.removesuffix("=...") for each in old} - {each.removesuffix("=...") for each in new} - {"*", "/"}
    return bool(required or missing)


def broken(before: str, now: str) -> set[str]:
    there = dict(members(now))
    return {name for name, rest in members(before) if name not in there or breaks(rest, there[name])}


def test_what_was_public_still_works() -> None:
    assert {name for name in broken(PREVIOUS, snapshot()) if not name.startswith("aiodbclient.sandbox.Fault.")} == set(
        BROKEN
    )
    assert [name for name, words in BROKEN.items() if words not in CHANGELOG] == []


@pytest.mark.parametrize(
    ("before", "now", "breaking"),
    [
        ("f(a)", "f(a, b=...)", False),
        ("f(a)", "f(a=...)", False),
        ("f(a, *, c)", "f(a, *, c, d=...)", False),
        ("f(a)", "f(b)", True),
        ("f(a)", "f(a, b)", True),
        ("f(a=...)", "f(a)", True),
        ("f(a, b)", "f(b, a)", True),
        ("f(a, *, c=...)", "f(a)", True),
        ("f(a)", "async f(a)", True),
        ("A = 'a'", "A = 'b'", True),
        ("f(a)", "", True),
    ],
)
def test_what_breaks_a_program(before: str, now: str, breaking: bool) -> None:
    module = "# module\nclass C\n    "
    assert bool(broken(module + before, module + now)) is breaking
