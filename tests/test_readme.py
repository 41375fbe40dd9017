"""README is a program too, and all links and commands of documents lead to files that exist.
`tests/guide` runs the pages of the guide.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "ops").rglob("*.md")),
    ROOT / ".github/CONTRIBUTING.md",
]


def blocks_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def output_of(program: Path, source: str) -> str:
    program.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_python_block_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    blocks = blocks_of(README)
    assert blocks
    for number, block in enumerate(blocks):
        output = output_of(tmp_path / f"block_{number}.py", block)
        assert "watch 1.1.0" in output
        assert "checks on 1.1.0" in output


def test_pages_link_only_to_files_and_headings_that_exist() -> None:
    faults = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for path, heading in re.findall(r"\]\((?!http)([^)#\s]*)(?:#([^)\s]+))?\)", text):
            target = (page.parent / path) if path else page
            if not target.exists() or (heading and heading not in anchors_of(target)):
                faults.append(f"{page.relative_to(ROOT)} links to {path}#{heading}")
    assert not faults


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_programs_that_pages_start_exist() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for path in re.findall(r"python ((?:examples|ops)/\w[\w./-]*)", text):
        assert (ROOT / path).exists(), path
