"""The built site is complete, names no private code, and has no page wider than its screen. ``make docs`` runs this."""

from __future__ import annotations

import builtins
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from inspect import isclass, isfunction, ismodule
from pathlib import Path
from queue import Queue
from types import ModuleType
from typing import Any

import attrs
import pytest

import aiodbclient
from aiodbclient import bulk, errors, rate_limiter, sandbox, tenants
from tests.requirements import no_server

PUBLIC: dict[ModuleType, list[str]] = {
    module: [name for name in module.__all__ if name != "__version__" and not ismodule(getattr(module, name))]
    for module in (aiodbclient, tenants, sandbox)
} | {
    bulk: [name for name in vars(bulk) if name[0].isalpha()],
    rate_limiter: [name for name in rate_limiter.__all__ if name != "RateLimiter"],  # at the top too
    **{
        module: [name for name, member in vars(module).items() if getattr(member, "__module__", "") == module.__name__]
        for module in (errors, tenants.errors)
    },
}
CLASSES = {each for module, names in PUBLIC.items() for name in names if isclass(each := getattr(module, name))}
SITE = Path(__file__).parents[2] / "site"
SCREENS = {"wide": 1920, "laptop": 1280, "phone": 390}  # pixels
CHROMIUM = shutil.which("chromium")

# Loads each page at each width in a frame, and posts how much wider it is.
MEASURE = """<!doctype html><body><script>
async function measure() {
  const measured = {};
  for (const width of WIDTHS) for (const page of PAGES) {
    const frame = document.createElement("iframe");
    frame.width = width; frame.height = 900; frame.src = page;
    document.body.append(frame);
    await new Promise(done => frame.onload = done);
    const wider = frame.contentDocument.documentElement.scrollWidth - width;
    if (wider > 0) measured[page + " at " + width] = wider;
    frame.remove();
  }
  await fetch("/measured", {method: "POST", body: JSON.stringify(measured)});
}
measure();
</script>"""


# Measures the contrast of each text with its background, in both schemes (WCAG 2.2, "contrast ratio").
CONTRAST = """<!doctype html><body><script>
const numbers = colour => (colour.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const over = (above, below) => {
  const alpha = above.length > 3 ? above[3] : 1;
  return [0, 1, 2].map(i => above[i] * alpha + below[i] * (1 - alpha));
};
const luminance = colour => {
  const [r, g, b] = colour.map(v => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
function background(element, view) {
  const layers = [];
  for (let each = element; each; each = each.parentElement) {
    const colour = numbers(view.getComputedStyle(each).backgroundColor);
    layers.push(colour);
    if (colour.length < 4 || colour[3] === 1) break;
  }
  return layers.reverse().reduce((below, above) => over(above, below), [255, 255, 255]);
}
async function measure() {
  const measured = {};
  for (const page of PAGES) {
    const frame = document.createElement("iframe");
    frame.width = 1280; frame.height = 900; frame.src = page;
    document.body.append(frame);
    await new Promise(done => frame.onload = done);
    const inside = frame.contentDocument, view = frame.contentWindow;
    inside.head.insertAdjacentHTML("beforeend", "<style>* {transition: none !important}</style>");
    for (const scheme of ["default", "slate"]) {
      inside.body.setAttribute("data-md-color-scheme", scheme);
      const walker = inside.createTreeWalker(inside.body, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
        if (["SCRIPT", "STYLE", "NOSCRIPT"].includes(element.tagName)) continue;
        const style = view.getComputedStyle(element);
        if (style.visibility === "hidden" || style.opacity === "0") continue;
        const below = background(element, view), colour = over(numbers(style.color), below);
        const [light, dark] = [luminance(colour), luminance(below)].sort((a, b) => b - a);
        const ratio = (light + 0.05) / (dark + 0.05);
        const text = walker.currentNode.data.trim().slice(0, 30);
        const name = `${scheme} ${element.tagName}.${element.className}: ${text}`;
        if (ratio < 4.5) measured[`${page} ${name}`] = ratio;
      }
    }
    frame.remove();
  }
  await fetch("/measured", {method: "POST", body: JSON.stringify(measured)});
}
measure();
</script>"""


# Types each text into the search, and lists where its results lead.
SEARCH = """<!doctype html><body><script>
async function measure() {
  const measured = {};
  for (const text of TEXTS) {
    const frame = document.createElement("iframe");
    frame.src = "index.html?q=" + encodeURIComponent(text);
    document.body.append(frame);
    await new Promise(done => frame.onload = done);
    const result = frame.contentDocument.querySelector("[data-md-component=search-result]");
    while (!/matching/.test(result.querySelector(".md-search-result__meta").textContent))
      await new Promise(done => setTimeout(done, 20));
    measured[text] = [...result.querySelectorAll("a[href]")].map(link => link.pathname + link.hash);
    frame.remove();
  }
  await fetch("/measured", {method: "POST", body: JSON.stringify(measured)});
}
measure();
</script>"""

# Lists the buttons of a page that lie over code, on a phone.
OVER_CODE = """<!doctype html><body><script>
async function measure() {
  const measured = {};
  for (const page of PAGES) {
    const frame = document.createElement("iframe");
    frame.width = 390; frame.height = 900; frame.src = page;
    document.body.append(frame);
    await new Promise(done => frame.onload = done);
    const buttons = [...frame.contentDocument.querySelectorAll("pre .md-code__nav, pre .md-clipboard")];
    measured[page] = buttons.filter(button => button.getClientRects().length).length;
    measured["code of " + page] = frame.contentDocument.querySelectorAll("pre").length;
    frame.remove();
  }
  await fetch("/measured", {method: "POST", body: JSON.stringify(measured)});
}
measure();
</script>"""


# The section of the troubleshooting page that the search shows first.
LEADS_TO = {
    "Connection refused": "connection-refused",
    "[Errno 111] Connection refused": "connection-refused",
    "Name or service not known": "name-or-service-not-known",
    "aiodbclient: there is no API token": "there-is-no-api-token",
    "connection timeout expired": "connection-timeout-expired",
    "412 Precondition Failed": "412-the-cluster-is-not-online",
    "no cluster is called": "no-cluster-is-called",
    "has no usable credential on record": "has-no-usable-credential-on-record",
    'FATAL:  password authentication failed for user "alpha"': "password-authentication-failed-for-user",
    '"password authentication failed for user"': "password-authentication-failed-for-user",
    "Access denied for user 'alpha'@'10.0.0.1' (using password: YES)": "access-denied-for-user",
    "max_user_connections": "has-exceeded-the-max_user_connections-resource",
    "User 'alpha' has exceeded the 'max_user_connections' resource": "has-exceeded-the-max_user_connections-resource",
    "terminating connection due to administrator command": "terminating-connection-due-to-administrator-command",
    "FATAL:  sorry, too many clients already": "sorry-too-many-clients-already",
    "the rate limit has no slot": "the-rate-limit-has-no-slot",
    "with another prefix": "with-another-prefix",
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed": "certificate-verify-failed",
    "--no slot": "the-rate-limit-has-no-slot",
}


class Served(SimpleHTTPRequestHandler):
    """Serve the site and a page that measures it. Yields the URL and the measurements."""

    measure: str
    measured: Queue[dict[str, Any]]

    def do_GET(self) -> None:
        if self.path == "/measure.html":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(self.measure.encode())
        else:
            super().do_GET()

    def do_POST(self) -> None:
        self.measured.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Path:
    assert (SITE / "index.html").exists(), "build the site first: make docs"
    return SITE


@contextmanager
def served(site: Path, measure: str) -> Generator[tuple[str, Queue[dict[str, Any]]]]:
    measured: Queue[dict[str, Any]] = Queue()
    handler = type("Here", (Served,), {"measure": measure, "measured": measured})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield (f"http://127.0.0.1:{server.server_port}/measure.html", measured)
        finally:
            server.shutdown()


def pages(site: Path) -> list[str]:
    return sorted(page.relative_to(site).as_posix() for page in site.rglob("*.html"))


def text_of(site: Path, page: str) -> str:
    html = (site / page).read_text()
    return re.sub(r"<[^>]+>", "", html[html.index("<article") : html.index("</article>")])


def test_reference_has_every_public_name(site: Path) -> None:
    reference = [(site / page).read_text() for page in pages(site) if page.startswith("reference/")]
    anchors = {anchor for html in reference for anchor in re.findall(r' id="([^"]+)"', html)}
    measured = {code for html in reference for code in re.findall(r"<code>(\w+)</code>", html)}
    for module, names in PUBLIC.items():
        for name in names:
            value = getattr(module, name)
            if isclass(value) or isfunction(value):
                assert f"{module.__name__}.{name}" in anchors, name
            else:  # an alias, such as UserOutcome: it is in a table
                assert name in measured, name
    assert not {anchor for anchor in anchors if "._" in anchor}


def test_raises_section_links_to_exceptions(site: Path) -> None:
    linked, plain = set[str](), set[str]()
    for page in pages(site):
        for section in re.findall(r"Raises:</span></p>(.*?)</ul>", (site / page).read_text(), re.DOTALL):
            for item in re.findall(r'<li class="doc-section-item.*?<code>(.*?)</code>', section, re.DOTALL):
                name = re.sub(r"<[^>]+>", "", item).strip()
                is_linked = re.search(rf'href="errors.html#aiodbclient.(tenants.)?errors.{name}"', item)
                (linked if is_linked else plain).add(name)
    assert {"InvalidArgumentError", "NotFoundError", "StoreError"} <= linked
    assert {name for name in plain if not hasattr(builtins, name)} == set()


def test_alias_in_signature_is_explained(site: Path) -> None:
    for page in pages(site):
        if page.startswith("reference/"):
            html = (site / page).read_text()
            aliases = set(re.findall(r'title="aiodbclient\.[\w.]*\._[\w.]+">([A-Z][a-z]+\w*)<', html))
            explained = set(re.findall(r"<code>(\w+)</code>", html))
            assert {name for name in aliases if not name.endswith(("T", "T_co"))} <= explained, page


def test_a_field_and_a_member_have_an_anchor(site: Path) -> None:
    models = (site / "reference" / "models.html").read_text()
    fields = ("User.name", "ClusterInfo.storage_size_mib", "KafkaPermission.PRODUCECONSUME")
    for name in ("Engine.OPENSEARCH", *(f"aiodbclient.{field}" for field in fields)):
        assert models.count(f'id="{name}"') == 1, name
    measured = " ".join(text_of(site, "reference/models.html").split())
    assert "Engine.PG = &#39;pg&#39; " in measured or "Engine.PG = 'pg' " in measured, "a member without its value"
    assert "may_have_applied = " not in text_of(site, "reference/errors.html")


def test_a_class_that_attrs_completes_shows_its_signature(site: Path) -> None:
    measured = " ".join(" ".join(text_of(site, page).split()) for page in pages(site) if page.startswith("reference/"))
    made_by_us = {"Fault", "Plan"}
    completed = {cls.__name__ for cls in CLASSES if attrs.has(cls) and "__init__" in vars(cls)}
    assert {"User", "Window", "RequestEvent", "Credential"} <= completed
    for name in completed - made_by_us:
        assert re.search(rf"\b{name}\( ?(\w|\*)", measured), name
    assert not re.search(r"\bFault\(|lt;built-in", measured)
    assert "tags: list[str] = list()" in measured


def test_the_reference_shows_no_private_code(site: Path) -> None:
    for page in pages(site):
        if page.startswith("reference/"):
            assert re.findall(r"\b_[a-z]\w+\(|\baiodbclient\._\w+", text_of(site, page)) == [], page


def test_anchor_of_reference_is_unique(site: Path) -> None:
    for page in pages(site):
        if page.startswith("reference/"):
            anchors = re.findall(r'<(?:h[1-6]|li|tr)[^>]* id="([^"]+)"', (site / page).read_text())
            assert sorted(anchors) == sorted(set(anchors)), page


def test_search_finds_what_people_look_for(site: Path) -> None:
    entries = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    for word in ("sslmode", "max_wait", "may_have_applied", "429", "DIGITALOCEAN_API_URL"):
        assert [entry["location"] for entry in entries if word in entry["title"] + entry["text"]], word


def chromium(profile: Path, *options: str) -> list[str]:
    if CHROMIUM is None:
        no_server("chromium", "there is no chromium: apt-get install chromium")
    quiet = ["--disable-background-networking", "--no-first-run", "--disable-component-update", "--disable-sync"]
    return [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={profile}", *options]


def test_the_start_page_leads_to_every_guide(site: Path) -> None:
    links = re.findall(r'href="([^"#]+)', (site / "index.html").read_text().split("<article")[1])
    guides = {page for page in pages(site) if page.startswith(("how-to/", "why/"))}
    assert guides - set(links) == set()


def test_pages_follow_light_or_dark_mode(site: Path, tmp_path: Path) -> None:
    with served(site, "") as (url, _):
        for preferred, scheme in (("1", "default"), ("0", "slate"), ("1", "default")):  # 0: dark
            options = [f"--blink-settings=preferredColorScheme={preferred}", "--virtual-time-budget=4000", "--dump-dom"]
            command = chromium(tmp_path, *options, url.replace("measure.html", "index.html"))
            html = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
            assert re.findall(r'<body[^>]* data-md-color-scheme="(\w+)"', html) == [scheme]


def measured_in_chromium(site: Path, profile: Path, script: str) -> dict[str, Any]:
    """What the page ``script`` measured of the site in Chromium."""
    with (
        served(site, script) as (url, measured),
        subprocess.Popen(
            chromium(profile, "--remote-debugging-port=0", url),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as browser,
    ):
        try:
            return measured.get(timeout=90)
        finally:
            os.killpg(browser.pid, signal.SIGKILL)


def test_no_page_is_wider_than_its_screen(site: Path, tmp_path: Path) -> None:
    script = MEASURE.replace("WIDTHS", json.dumps(list(SCREENS.values()))).replace("PAGES", json.dumps(pages(site)))
    assert measured_in_chromium(site, tmp_path, script) == {}


def test_text_has_contrast_of_four_and_a_half(site: Path, tmp_path: Path) -> None:
    of_each_kind = ["index.html", "how-to/tenants.html", "reference/tenants.html", "reference/command.html"]
    script = CONTRAST.replace("PAGES", json.dumps(of_each_kind))
    assert measured_in_chromium(site, tmp_path, script) == {}


def test_a_faint_text_is_seen(tmp_path: Path) -> None:
    (tmp_path / "faint.html").write_text('<body><p style="color: #999">faint</p><p style="color: #555">clear</p>')
    faint = measured_in_chromium(tmp_path, tmp_path / "profile", CONTRAST.replace("PAGES", '["faint.html"]'))
    assert {name.rpartition(": ")[2] for name in faint} == {"faint"}


def test_no_button_hides_text_on_a_phone(site: Path, tmp_path: Path) -> None:
    over = measured_in_chromium(site, tmp_path, OVER_CODE.replace("PAGES", '["tutorial.html"]'))
    assert over["code of tutorial.html"] > 5
    assert over["tutorial.html"] == 0


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Where the search leads for each message, as people paste it."""
    script = SEARCH.replace("TEXTS", json.dumps(list(LEADS_TO)))
    return measured_in_chromium(SITE, tmp_path_factory.mktemp("profile"), script)


@pytest.mark.parametrize("message", LEADS_TO)
def test_a_message_leads_to_its_advice(found: dict[str, list[str]], message: str) -> None:
    section = next(link for link in found[message] if "#" in link)
    page, _, anchor = section.partition("#")
    assert page == "/how-to/troubleshooting.html"
    assert LEADS_TO[message] in anchor  # a heading can have several messages


def test_copied_terminal_has_no_prompt_or_output(site: Path) -> None:
    style = (site / "stylesheets" / "extra.css").read_text()
    assert re.search(r"\[data-md-copying\] \.gp,\s*\[data-md-copying\] \.go \{\s*display: none", style)
    terminal = (site / "how-to" / "operate.html").read_text()
    assert '<span class="gp">$ </span>' in terminal
    assert '<span class="go">' in terminal
