"""The programs of a copy: how much room they need, and what they report."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiodbclient.errors import ConfigurationError
from aiodbclient.tenants._copy import check_free


def test_a_folder_without_room_is_refused(tmp_path: Path) -> None:
    check_free(tmp_path, 1)
    with pytest.raises(ConfigurationError, match="has too little free room"):
        check_free(tmp_path, 2**60)
