"""The archive through which root's sandbox copies PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# In a process without threads, since the archive forks. The child writes slowly, as on a busy machine.
COPY = """
import io, os, sys, time
from pathlib import Path
from aiodbclient.sandbox._keeper.identity import Archive

class Slow(io.FileIO):
    def write(self, data):
        time.sleep(0.02)
        return super().write(data)

os.fdopen = lambda fd, mode: Slow(fd, mode) if mode == "wb" else open(fd, mode)
programs, target = Path(sys.argv[1]), Path(sys.argv[2])
for n in range(20):
    (programs / f"program{n}").touch()
    copy = Archive(programs).unpack(target / f"{n}")
    assert len([*copy.iterdir()]) == n + 1
"""


def test_an_installation_of_any_size_is_copied(tmp_path: Path) -> None:
    """A tar archive is written in records of 20 blocks, so its end can lie in a record of its own."""
    programs = tmp_path / "wheel" / "pginstall" / "bin"
    programs.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", COPY, programs, tmp_path / "target"], check=True)
