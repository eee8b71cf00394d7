"""The names in a CSV file."""

from __future__ import annotations

import io
import os
import signal
import threading
from pathlib import Path

import pytest

from aiodbclient import errors
from aiodbclient._cli.names import check_name, check_tenants, locate_names
from aiodbclient._cli.users_file import read_users


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"alpha\nbeta\n", ["alpha", "beta"]),
        (b"name\nalpha\n", ["alpha"]),
        (b"plan, Name \ngold,alpha\n", ["alpha"]),
        (b"\xef\xbb\xbfname\r\nalpha\r\n", ["alpha"]),
        (b'name\n"a.b"\n" c "\n', ["a.b", "c"]),
        (b"name\nalpha\n\n \n", ["alpha"]),
        (b"alpha\nname\n", ["alpha", "name"]),
        (b"name\nX\n", ["X"]),
        (b'# ours, "the\nname\n# big ones\nalpha\n', ["alpha"]),
    ],
)
def test_names_are_read(tmp_path: Path, text: bytes, names: list[str]) -> None:
    (tmp_path / "names.csv").write_bytes(text)

    assert list(locate_names(None, tmp_path / "names.csv")) == names


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "is empty: a file without names has the line `name`"),
        (b"name\nalpha\n\nbeta\n", "line 3: blank"),
        (b"# ours\nname\nalpha\n# more\n\nbeta\n", "line 5: blank"),
        (b"# ours\nTenant Name\nalpha\n", "line 2: 'Tenant Name' looks like the title of a column"),
        (b"tenant\nalpha\n", "line 1: 'tenant' looks like the title of a column"),
        (b"_Tenant_\nalpha\n", "line 1: '_Tenant_' looks like the title of a column"),
        (b"name,plan\n,\nbeta,gold\n", "line 2: blank"),
        (b"name,plan\nalpha,gold\n,gold\n", "line 3: no name in column 1"),
        (b"plan,name\ngold,\n", "line 2: no name in column 2"),
        (b"name,plan\nalpha,gold\nbeta\n", "line 3: the number of columns is 1, and 2 in the header"),
        (b"plan,name\ngold\n", "line 2: the number of columns is 1, and 2 in the header"),
        (b"name\nalpha,gold\n", "line 2: the number of columns is 2, and 1 in the header"),
        (b"name\nalpha\n\nalpha\n", "line 3: blank; .*, line 4: 'alpha' is there twice"),
        (b"name\n" + 10 * b"\n" + b"alpha\n", r"line 11: blank\. Nothing was changed"),
        (b"name\n" + 11 * b"\n" + b"alpha\n", r"line 11: blank; and 1 more\. Nothing was changed"),
        (b"name\n" + 30 * b"\n" + b"alpha\n", r"line 11: blank; and 20 more\. Nothing was changed"),
        (b"name\nalpha\nbeta\nalpha\n", "line 4: 'alpha' is there twice, first in .*line 2"),
        (b"name;plan\nalpha;gold\n", "line 1: columns are separated by commas"),
        (b"plan,name\ngold,alpha;x\n", "line 2: columns are separated by commas"),
        (b"alpha\tgold\nbeta\tgold\n", "line 1: columns are separated by commas"),
        (b"tenant,plan\nacme,gold\n", "line 1: 2 columns, and the first line calls none"),
        (b"alpha,gold\nname,silver\n", "line 1: 2 columns"),
        (b"alpha\nbeta,gold\n", "line 2: 2 columns"),
        (b'name\n"alpha\nbeta\n', "not CSV"),
        (b"users:\n- name: alpha\n", "line 1: this is no tenant's name"),
        (b"name\n-\n", "line 2: this is no tenant's name"),
        ("name\nä\n".encode(), "line 2: this is no tenant's name"),
        (b"name\nalpha\n\xff\n", "line 3: not UTF-8"),
    ],
)
def test_the_error_of_a_wrong_file_names_the_line(tmp_path: Path, text: bytes, complaint: str) -> None:
    (tmp_path / "names.csv").write_bytes(text)

    with pytest.raises(errors.InvalidArgumentError, match=rf"names\.csv.*{complaint}"):
        locate_names(None, tmp_path / "names.csv")


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="No such file"):
        locate_names(None, tmp_path / "names.csv")


@pytest.mark.parametrize("endless", ["/dev/zero", "/dev/full"])
def test_a_file_that_never_ends_is_refused(endless: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=f"{endless} is larger than 32 MiB"):
        locate_names(None, Path(endless))
    with pytest.raises(errors.InvalidArgumentError, match=f"{endless} is larger than 4 MiB"):
        read_users(Path(endless))


def test_a_standard_input_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/zero").open() as endless:
        monkeypatch.setattr("sys.stdin", endless)
        with pytest.raises(errors.InvalidArgumentError, match="the standard input is larger than 32 MiB"):
            locate_names(None, Path("-"))


def test_reading_can_be_stopped(tmp_path: Path) -> None:
    """The event loop stands still while a pipe is read, so its own handlers of signals do not run."""
    before = signal.getsignal(signal.SIGINT)
    os.mkfifo(tmp_path / "names.csv")
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()

    with pytest.raises(KeyboardInterrupt):
        locate_names(None, tmp_path / "names.csv")  # nobody writes
    timer.join()
    assert signal.getsignal(signal.SIGINT) is before


def test_all_names_that_cannot_be_tenants_are_listed(tmp_path: Path) -> None:
    names = {"pg_a": "names.csv, line 2", "alpha": "names.csv, line 3", "postgres": "names.csv, line 4"}
    with pytest.raises(errors.InvalidArgumentError) as refused:
        check_tenants(names, "pg", "")
    assert str(refused.value) == (
        "names.csv, line 2: 'pg_a' is invalid as a tenant's name: it belongs to the cluster; names.csv, line 4: "
        "'postgres' is invalid as a tenant's name: it belongs to the cluster. Nothing was changed"
    )
    check_tenants(names, "pg", "app_")


def test_names_come_from_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"name\nalpha\nbeta\n")))
    assert list(locate_names(None, Path("-"))) == ["alpha", "beta"]

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"name\n\nbeta\n")))
    with pytest.raises(errors.InvalidArgumentError, match=r"^the standard input, line 2: blank"):
        locate_names(None, Path("-"))


def test_names_are_given_one_way(tmp_path: Path) -> None:
    no_names: list[str] = []
    for none in (None, no_names):
        with pytest.raises(errors.InvalidArgumentError, match="which tenants"):
            locate_names(none, None)
    with pytest.raises(errors.InvalidArgumentError, match="names or --from, not both"):
        locate_names(["alpha"], tmp_path / "names.csv")


def test_arguments_are_names_too(tmp_path: Path) -> None:
    assert list(locate_names(["b", "a", "-c"], None)) == ["b", "a", "-c"]
    for file in (None, tmp_path / "names.csv"):
        with pytest.raises(errors.InvalidArgumentError, match="use --from -"):
            locate_names(["a", "-"], file)
    with pytest.raises(errors.InvalidArgumentError, match="argument 3: 'b' is there twice, first in argument 1"):
        locate_names(["b", "a", "b"], None)
    with pytest.raises(errors.InvalidArgumentError, match="argument 2 is empty"):
        locate_names(["a", ""], None)


def test_a_dash_is_no_name_of_something_new() -> None:
    check_name("a-b")
    with pytest.raises(errors.InvalidArgumentError, match=r"'-' is not a name.*; nothing was sent"):
        check_name("-")
