"""Each link of the built site leads to a page and an anchor that are there, and nothing is loaded from elsewhere."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

SITE = Path(__file__).parents[2] / "site"
BASE = "/aiodbclient/"  # the path of the site on its server
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NAMED_ONLY = {"canonical", "prev", "next", "alternate", "edit"}  # relations of a link that loads nothing


class Page(HTMLParser):
    """A page of the site: its anchors, its links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors = {"", "__top"}
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := values.get(key))}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"] or "")
        if tag in LOADED and values.get(LOADED[tag]) and values.get("rel") not in NAMED_ONLY:
            self.loads.append(values[LOADED[tag]] or "")


@cache
def page(path: Path) -> Page:
    return Page(path.read_text())


def dead(site: Path, path: Path) -> list[str]:
    """The links of a page, and what it loads, that lead nowhere in the site."""
    here = BASE + path.relative_to(site).as_posix()
    found = []
    for link in [*page(path).links, *page(path).loads]:
        target = urlsplit(urljoin(here, link))
        if target.scheme or target.netloc:
            continue
        file = site / unquote(target.path).removeprefix(BASE)
        if file.is_dir():
            file /= "index.html"
        missing = not target.path.startswith(BASE) or not file.is_file()
        if missing or (file.suffix == ".html" and unquote(target.fragment) not in page(file).anchors):
            found.append(link)
    return found


@pytest.fixture
def paths() -> list[Path]:
    assert (SITE / "index.html").exists(), "build the site first: make docs"
    return sorted(SITE.rglob("*.html"))


def test_links_lead_to_pages_and_anchors(paths: list[Path]) -> None:
    assert sum(len(page(path).links) for path in paths) > 1000
    assert {path.name: links for path in paths if (links := dead(SITE, path))} == {}


def test_nothing_is_loaded_from_elsewhere(paths: list[Path]) -> None:
    assert {load for path in paths for load in page(path).loads if urlsplit(load).netloc} == set()


def test_dead_link_and_anchor_are_seen(tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text('<p id="here">')
    links = ["other.html#here", "other.html", "#top", "gone.html", "other.html#gone", "../outside.html"]
    (tmp_path / "page.html").write_text('<h1 id="top"></h1>' + "".join(f'<a href="{link}">.</a>' for link in links))

    assert dead(tmp_path, tmp_path / "page.html") == ["gone.html", "other.html#gone", "../outside.html"]
