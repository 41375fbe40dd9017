"""The site: it builds without a warning, each of its links leads somewhere, and it loads nothing
from elsewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]

LOADED = {
    ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data"), ("form", "action")
}  # fmt: skip
"""What a browser asks for by itself, besides ``link``."""
LOADED_BY_LINK = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "manifest"}


class Page(HTMLParser):
    """The links, anchors and loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and LOADED_BY_LINK & set(given.get("rel", "").split()):
            self.loaded.append(given["href"])
        self.loaded += [given[name] for of, name in LOADED if of == tag and name in given]


def faults_of(site: Path) -> Iterator[str]:
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for url in page.loaded:
            parts = urlsplit(url)
            if parts.scheme not in ("", "data") or parts.netloc:
                yield f"{name} loads {url}"
        if name == "404.html":
            continue  # its links begin at the site's root
        for url in page.links:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                yield f"{name} links to {url}"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{name} links to {url}: no such anchor"
    for style in site.rglob("*.css"):
        for url in re.findall(r"""(?:url\(|@import )["']?(//|https?:)""", style.read_text("utf-8")):
            yield f"{style.name} loads {url}"


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_the_site_builds_and_its_links_lead_somewhere_and_it_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    config = ROOT / "ops" / "guide" / "mkdocs.yml"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", tmp_path]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 35
    assert not list(faults_of(tmp_path))
    reference = (tmp_path / "reference" / "runtime.html").read_text(encoding="utf-8")
    assert ":class:" not in reference
