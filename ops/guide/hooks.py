"""What MkDocs does besides: documents that stand elsewhere become pages, and links that leave the
pages lead to the repository. So each page reads well here, in the site, and on a code host.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/orchestra-runtime/orchestra/blob/main"
ELSEWHERE = {
    "changelog.md": "ops/CHANGELOG.md",
    "internals/reliability.md": "ops/RELIABILITY.md",
    "internals/simulation.md": "ops/simulation/README.md",
    "internals/crash-campaigns.md": "ops/crash/README.md",
    "internals/planted-bugs.md": "ops/planted_bugs/README.md",
    "internals/figures.md": "ops/bench/README.md",
}
"""Pages, and the documents that they are."""

LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents and pictures that stand elsewhere."""
    for page, document in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / document)))
    for picture in sorted((ROOT / "ops" / "look" / "pictures").glob("*.webp")):
        name = f"pictures/{picture.name}"
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Lead each link to the page that its document is, or else to the repository."""
    pages = {
        os.path.realpath(file.abs_src_path): file.src_uri for file in files if file.abs_src_path
    }
    here = posixpath.dirname(page.file.src_uri)
    source = Path(str(page.file.abs_src_path)).parent

    def lead(link: re.Match[str]) -> str:
        before, path, heading = link[1], link[2], link[3] or ""
        target = os.path.realpath(source / path)
        if target in pages:
            return before + posixpath.relpath(pages[target], here or ".") + heading
        if Path(target).exists() and Path(target).is_relative_to(ROOT):
            return f"{before}{REPOSITORY}/{Path(target).relative_to(ROOT).as_posix()}{heading}"
        return link[0]  # MkDocs warns of it, and a strict build fails

    return LINK.sub(lead, markdown)
