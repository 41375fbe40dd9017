"""Installs the peers: a virtual environment and a server of their own, outside of the checkout.

Both are kept, in a directory named after what is pinned, and serve the next run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PINS: Final = {
    "duroxide": ("duroxide==0.2.2",),
    "dbos": ("dbos==3.4.0", "psycopg[binary]==3.3.9"),
    "absurd-sdk": ("absurd-sdk==0.5.1", "absurdctl==0.5.1", "psycopg[binary]==3.3.9"),
    "restate-sdk": ("restate-sdk[serde]==1.3.0", "hypercorn==0.18.0", "httpx[http2]==0.28.1"),
}
"""What each package of the catalogue needs."""
SERVER: Final = "@restatedev/restate-server@1.7.12"


@dataclass
class Environment:
    """What is installed.

    Args:
        python: the interpreter that has the peers.
        server: Restate's server.
        missing: for each package that is not there, why.
    """

    python: Path
    server: Path | None = None
    missing: dict[str, str] = field(default_factory=dict[str, str])


def prepare(directory: Path | None, packages: list[str]) -> Environment:
    """Install what is not there yet."""
    wanted = repr((PINS, SERVER, sys.version))
    home = (
        directory
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "orchestra-bench"
        / hashlib.sha256(wanted.encode()).hexdigest()[:12]
    )
    home.mkdir(parents=True, exist_ok=True)
    python = home / "venv" / "bin" / "python"
    environment = Environment(python)
    if packages and not python.exists():
        _run([sys.executable, "-m", "venv", str(home / "venv")])
    for package in packages:
        done = home / f"{package}.installed"
        if not done.exists():
            problem = _run([str(python), "-m", "pip", "install", "--quiet", *PINS[package]])
            if problem:
                environment.missing[package] = problem
                continue
            done.touch()
    if "restate-sdk" in packages and "restate-sdk" not in environment.missing:
        environment.server, problem = _server(home)
        if problem:
            environment.missing["restate-sdk"] = problem
    return environment


def _server(home: Path) -> tuple[Path | None, str]:
    server = _binary(home)
    if server is not None:
        return server, ""
    npm = shutil.which("npm")
    if npm is None:
        return None, "npm, which installs Restate's server, is not on the path"
    problem = _run([npm, "install", "--no-audit", "--no-fund", "--prefix", str(home), SERVER])
    server = None if problem else _binary(home)
    return server, "" if server else problem or f"{SERVER} has no binary for this machine"


def _binary(home: Path) -> Path | None:
    """Return the server itself: the command that npm installs only starts it."""
    found = home.glob("node_modules/@restatedev/restate-server-*/bin/restate-server")
    return next(found, None)


def _run(command: list[str]) -> str:
    """Run a command; return what it complained about, if it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    return f"{' '.join(command[:4])} ... failed: {(done.stderr or done.stdout).strip()[-300:]}"
