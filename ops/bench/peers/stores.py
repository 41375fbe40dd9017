"""A fresh store for each try, all of them on one file system."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ops.bench.peers.catalogue import Store
from orchestra.testing.postgres import postgres_server

PATIENCE = 60.0


@dataclass(frozen=True)
class Fresh:
    """A store, as a string; and its server's process, whose processor time counts."""

    url: str
    roots: tuple[int, ...] = ()


class Stores:
    """Makes them. A PostgreSQL server starts with the first try that needs it, and serves all."""

    def __init__(self, directory: Path, server: Path | None) -> None:
        self._directory = directory
        self._server = server
        self._stack = ExitStack()
        self._dsn = ""
        self._root = 0
        self._count = 0

    def close(self) -> None:
        """Stop the PostgreSQL server."""
        self._stack.close()

    @contextmanager
    def fresh(self, kind: Store) -> Generator[Fresh]:
        """Give a store for the body."""
        self._count += 1
        if kind == "postgres":
            with self._database(f"try_{self._count}") as fresh:
                yield fresh
            return
        with tempfile.TemporaryDirectory(dir=self._directory) as folder:
            if kind == "sqlite":
                yield Fresh(str(Path(folder) / "bench.db"))
                return
            with self._restate(Path(folder)) as fresh:
                yield fresh

    @contextmanager
    def _database(self, name: str) -> Generator[Fresh]:
        if not self._dsn:
            self._dsn = self._stack.enter_context(postgres_server(self._directory)).dsn
            self._root = _postmaster(self._dsn)
        self._execute(f"CREATE DATABASE {name}")
        self._execute("CHECKPOINT")
        try:
            roots = (self._root,) if self._root else ()
            yield Fresh(_url({**conninfo_to_dict(self._dsn), "dbname": name}), roots)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def _restate(self, folder: Path) -> Generator[Fresh]:
        assert self._server is not None
        names = ("ingress", "admin", "service", "node")
        ports = dict(zip(names, _free_ports(len(names)), strict=True))
        environment = {
            **os.environ,
            "RESTATE_BIND_IP": "127.0.0.1",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BIND_PORT": str(ports["node"]),
            "RESTATE_INGRESS__BIND_PORT": str(ports["ingress"]),
            "RESTATE_ADMIN__BIND_PORT": str(ports["admin"]),
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LOG_FILTER": "error",
        }
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [self._server, "--no-logo", "--base-dir", str(folder), "--node-name", "bench"],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _await_health(f"http://127.0.0.1:{ports['admin']}/health", process, folder / "log")
            yield Fresh(json.dumps(ports), (process.pid,))
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _postmaster(dsn: str) -> int:
    """Return the server's process, or nothing if it is not on this machine."""
    try:
        with psycopg.connect(dsn) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        assert row is not None
        return int((Path(row[0]) / "postmaster.pid").read_text(encoding="utf-8").split()[0])
    except (OSError, psycopg.Error, ValueError):
        return 0


def _url(parts: dict[str, object]) -> str:
    """Return the form of a connection string that every driver reads."""
    user = quote(str(parts.get("user") or "postgres"))
    password = f":{quote(str(parts['password']))}" if parts.get("password") else ""
    host = str(parts.get("host") or "localhost")
    where = (
        f"localhost/{parts['dbname']}?host={quote(host, safe='')}"
        if host.startswith("/")
        else f"{host}:{parts.get('port') or 5432}/{parts['dbname']}"
    )
    return f"postgresql://{user}{password}@{where}"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        ports: list[int] = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            ports.append(one.getsockname()[1])
        return ports


def _await_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
    raise RuntimeError(f"Restate's server does not answer: {log.read_text()[-500:]}")
