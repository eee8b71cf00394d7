"""The programs of a copy: how much room they need, and what they report."""

from __future__ import annotations

from asyncio.subprocess import Process, create_subprocess_exec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

from aiodbclient.errors import ConfigurationError
from aiodbclient.tenants._copy import programs
from aiodbclient.tenants._copy.programs import check_free


def test_a_folder_without_room_is_refused(tmp_path: Path) -> None:
    check_free(tmp_path, 1)
    with pytest.raises(ConfigurationError, match="has too little free room"):
        check_free(tmp_path, 2**60)


async def test_what_a_program_copied_before_anybody_looked_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ended(*command: Any, **options: Any) -> Process:
        process = await create_subprocess_exec(*command, **options)
        await process.wait()
        return process

    monkeypatch.setattr(programs, "create_subprocess_exec", ended)
    copied = list[int]()
    with TemporaryFile() as file:
        await programs.run(["echo", "1234567"], {}, stdout=file, copied=copied.append)
    assert sum(copied) == 8
