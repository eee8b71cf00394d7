"""Replace a link that stands alone by what it leads to: a snippet or an example in a box, a page of the root whole.

The box is open if the text of the link is bold. In the repository, the same line is a link that one can follow.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

_LINK = re.compile(
    r"^\[(.+)\]\(((?:\.\./)+(?:(?:snippets|examples|tests/tenants)/\w+\.(?:md|py)|[A-Z]+\.md))\)$",
    re.MULTILINE,
)


def on_page_markdown(
    markdown: str, *, page: Any, config: Any, **_: Any
) -> str:
    """A hook of MkDocs."""
    folder = Path(config.docs_dir, page.file.src_uri).parent
    return _LINK.sub(
        lambda link: _text(link[1], folder / link[2]), markdown
    )


def _text(title: str, path: Path) -> str:
    text = path.read_text()
    if path.parent.name not in ("snippets", "examples", "tenants"):
        return text
    if path.suffix == ".py":
        text = f"```python\n{text}```\n"
    box = "???+" if title.startswith("**") else "???"
    return f'{box} example "{title.strip("*")}"\n\n{textwrap.indent(text, "    ")}'
