"""The names in a file, or on the command line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from aiodbclient import errors
from aiodbclient._cli.plumbing.files import read_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"alpha\nbeta\n", ["alpha", "beta"]),
        (b"name\nalpha\n", ["alpha"]),
        (b"plan, name\ngold,alpha\n", ["alpha"]),
        (b"\xef\xbb\xbfname\r\nalpha\r\n", ["alpha"]),
        (b'name\n"a.b"\n c \n', ["a.b", "c"]),
        (b"name\nalpha\n\n \nbeta", ["alpha", "beta"]),
        (b'# ours, "the\nname\n# big ones\nalpha\n', ["alpha"]),
        (b"name\n", []),
        (b"Name,plan\nalpha,gold\n", ["alpha"]),
    ],
)
def test_read_names_of_file(tmp_path: Path, text: bytes, names: list[str]) -> None:
    """A CSV with the column ``name``, or a name on each line; comments and blank lines are skipped."""
    (tmp_path / "names.csv").write_bytes(text)
    assert read_names(None, tmp_path / "names.csv") == names


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "is empty: a file without names has the line `name`"),
        (b"name,plan\nalpha,gold\n,gold\n", "not a name in line 3"),
        (b"# ours\nplan,name\ngold\n", "not a name in line 3"),
        (b"name\nalpha\n\nalpha\n", "given twice: alpha"),
        (b"tenant,plan\nacme,gold\n", "the first line is `tenant`, and must be `name` for a CSV"),
        (b"acme,gold\nglobex,gold\n", "not a name in lines 1, 2. A file has a name on each line, or is"),
        (b"name,name\nalpha,beta\n", "has the column `name` twice"),
        (b'name\n"alpha\nbeta\n', "not CSV"),
        (b"users:\n- name: alpha\n", "not a name in line"),
        (b"name\n-\n", "not a name in line 2"),
        (b"export DIGITALOCEAN_TOKEN=hunter2\n", "not a name in line"),
        (b"name\nalpha\n\xff\n", "line 3: not UTF-8"),
    ],
)
def test_wrong_names_file_names_line(tmp_path: Path, text: bytes, complaint: str) -> None:
    """The error says which line is wrong, and not what is in it: it may be a secret."""
    (tmp_path / "names.csv").write_bytes(text)
    with pytest.raises(errors.InvalidArgumentError, match=complaint) as refused:
        read_names(None, tmp_path / "names.csv")
    assert "hunter2" not in str(refused.value)


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=r"names\.csv cannot be read: No such file"):
        read_names(None, tmp_path / "names.csv")
    with pytest.raises(errors.InvalidArgumentError, match="/dev/zero is larger than 32 MiB"):
        read_names(None, Path("/dev/zero"))


def test_read_names_of_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"name\nalpha\nbeta\n")))
    assert read_names(None, Path("-")) == ["alpha", "beta"]


def test_names_are_given_one_way(tmp_path: Path) -> None:
    """Names or a file, each name once, and none that is empty."""
    assert read_names(["b", "a", "-c"], None) == ["b", "a", "-c"]
    for given, file, complaint in (
        (None, None, "give names, or a file"),
        (["a"], tmp_path / "names.csv", "names or --from, not both"),
        (["a", "-"], None, "use --from -"),
        (["b", "a", "b"], None, "given twice: b"),
        (["a", ""], None, "a name is empty"),
    ):
        with pytest.raises(errors.InvalidArgumentError, match=complaint):
            read_names(given, file)
