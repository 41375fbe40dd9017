"""README is a program too: its Python blocks run as they stand, and its commands are the ones that
are used.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_python_block_runs_as_it_stands(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        program = tmp_path / f"block_{number}.py"
        program.write_text(block, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, program], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "watch 1.1.0" in done.stdout
        assert "checks on 1.1.0" in done.stdout


def test_the_readme_names_files_that_exist() -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path
    commands = re.findall(r"python (examples/\S+)", README)
    assert {
        "examples/watch_upgrade",
        "examples/postgres_workers/worker.py",
        "examples/postgres_workers/web.py",
    } <= set(commands)
    for path in commands:
        assert (ROOT / path).exists(), path
