"""The command: what it prints, and what it ends with."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import anyio
import pytest

from orchestra import OrchestrationRegistry, Runtime, SqliteProvider
from orchestra.cli import main
from orchestra.clock import new_id
from orchestra.providers.postgres import PostgresProvider
from orchestra.telemetry import library_version
from orchestra.testing import replay_history
from tests.support.contract.shorthand import (
    a_hold,
    a_node,
    a_start,
    a_state,
    a_write,
    begin,
    one,
)


def run(*arguments, **options):
    command = [sys.executable, "-W", "error", "-m", "orchestra.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)


@pytest.fixture
def sick(provider):
    """A store with a held instance, whose reason tries to write on the terminal."""
    row = begin(provider, "watch-\x1b[31m1")
    hold = a_hold()
    hold = type(hold)(
        hold.kind, "first line\nsecond line " + "and more " * 60, hold.since, hold.by, hold.tried
    )
    one(provider, a_write(row, a_state(row, owner=None), hold=hold))
    return provider


def test_the_exit_code_says_how_bad_it_is(path, provider, edit, capfd):
    assert main(["doctor", "--store", str(path)]) == 0
    row = begin(provider)
    one(provider, a_write(row, a_state(row, owner=None), hold=a_hold()))
    assert main(["doctor", "--store", str(path)]) == 1
    provider.close()
    edit("DROP INDEX instance_claim")
    assert main(["doctor", "--store", str(path), "--quick"]) == 2
    assert main(["doctor", "--store", str(path) + ".nowhere"]) == 3


@pytest.mark.slow
def test_the_version_is_the_one_under_which_the_library_is_installed():
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"orchestra {library_version()}\n"


def test_an_empty_file_cannot_be_backed_up_and_is_not_called_damaged(path, capsys):
    path.touch()
    assert main(["backup", "--store", str(path), "--to", f"{path}.copy"]) == 3
    assert (
        "is an empty database, not yet a store; make sure that it is the right file"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["doctor"],
        ["surgeon"],
        ["doctor", "--store", "mysql://host/db"],
        ["doctor", "--store", "a.db", "--schema", "orchestra"],
        ["backup", "--store", "a.db", "--to", "b.db", "--schema", "orchestra"],
        ["doctor", "--store", "sqlite:///"],
        ["doctor", "--store", ""],
        ["doctor", "--store", "a\0b"],
        ["doctor", "--store", "a.db", "--verbose"],
        ["backup", "--store", "a.db"],
        ["backup", "--to", "b.db"],
        ["backup", "--store", "a.db", "--to", "sqlite:///"],
        ["grants", "--worker", "app"],
    ],
)
def test_misuse_is_told_from_a_sick_store(arguments, capsys):
    assert main(arguments) == 3
    out, err = capsys.readouterr()
    assert not out
    assert "orchestra: " in err


@pytest.mark.slow
def test_without_its_extra_the_command_says_what_to_install():
    program = (
        "import sys; sys.modules['click'] = None; from orchestra.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 3
    assert b"pip install 'orchestra-runtime[cli]'" in done.stderr


def test_help_names_the_exit_codes(capsys):
    assert main(["doctor", "--help"]) == 0
    assert "exit code" in capsys.readouterr().out


@pytest.mark.parametrize("store", [".", "/", "..", "x" * 5000])
def test_a_path_that_names_no_file_is_no_store(store, capfd):
    assert main(["doctor", "--store", store]) == 3


def test_a_store_may_be_named_by_a_url(path, provider, monkeypatch, capsys):
    monkeypatch.chdir(path.parent)
    assert main(["doctor", "--store", f"sqlite:///{path}"]) == 0
    assert main(["doctor", "--store", "sqlite:///app.db"]) == 0
    assert "store: app.db" in capsys.readouterr().out


def test_the_text_fits_a_terminal_and_moves_no_cursor(path, sick):
    done = run("doctor", "--store", path)
    assert done.returncode == 1
    lines = done.stdout.decode().splitlines()
    # Only a word that is longer than the line, such as a path, may stand out; there is none after
    # the first lines.
    assert max(map(len, lines[2:])) <= 80
    assert "\x1b" not in done.stdout.decode()
    assert r"watch-\x1b[31m1: state: first line\nsecond line" in " ".join(
        line.strip() for line in lines
    )
    assert any(line.startswith("warning  held       1 held of 1 open instance") for line in lines)
    assert done.stderr == b""


def test_the_json_holds_the_same_findings_in_full(path, sick):
    done = run("doctor", "--json", "--store", path)
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 1
    assert report["verdict"] == "warning"
    assert report["readable"] is True
    assert report["store"] == str(path)
    checks = {check["name"]: check for check in report["checks"]}
    assert set(checks["held"]) == {"name", "verdict", "text", "details", "remedy"}
    assert checks["held"]["details"][0].startswith(
        "watch-\x1b[31m1: state: first line\nsecond line and more"
    )
    assert len(checks["held"]["details"][0]) > 500


@pytest.mark.slow
def test_what_is_no_store_has_a_json_form_too(tmp_path):
    done = run("doctor", "--json", "--store", tmp_path / "nowhere.db")
    report = json.loads(done.stdout)
    assert (done.returncode, report["exit_code"], report["readable"], report["verdict"]) == (
        3,
        3,
        False,
        "failure",
    )


@pytest.mark.slow
def test_a_name_that_is_not_utf_8_is_shown_as_far_as_it_can_be(tmp_path):
    store = os.fsencode(tmp_path) + b"/\xff.db"
    command = [sys.executable, "-m", "orchestra.cli", "doctor", "--store", store]
    plain = subprocess.run(command, capture_output=True, check=False, timeout=20)
    assert plain.returncode == 3
    assert rb"\udcff.db" in plain.stdout
    assert json.loads(
        subprocess.run([*command, "--json"], capture_output=True, check=False, timeout=20).stdout
    )


def test_a_terminal_that_knows_only_ascii_is_no_obstacle(path, provider):
    provider.store.join(a_node("knoten-ä"))
    one(provider, a_start("i"))
    done = run("doctor", "--store", path, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert rb"knoten-\xe4" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_error(path, provider):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "orchestra.cli", "doctor", "--store", path]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False, timeout=20)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_installed_command_is_this_one():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"orchestra": "orchestra.cli:main"}


@pytest.mark.slow
def test_a_backup_is_made_and_says_what_it_holds(path, provider, tmp_path):
    begin(provider)
    copy = tmp_path / "copy.db"
    done = run("backup", "--store", path, "--to", f"sqlite:///{copy}")
    assert (done.returncode, done.stderr) == (0, b"")
    size = f"{copy.stat().st_size:,}"
    assert (
        done.stdout.decode() == f"{copy}: {size} bytes, checked; instances: 1, of which open: 1\n"
    )
    assert main(["doctor", "--store", str(copy)]) == 0, (
        "nothing of the original's nodes is left in it"
    )


def test_a_backup_that_cannot_be_made_says_why_and_ends_with_a_code(
    path, provider, tmp_path, capsys, edit
):
    copy = tmp_path / "copy.db"
    assert main(["backup", "--store", str(path), "--to", str(path)]) == 3
    assert "overwrites nothing" in capsys.readouterr().err
    assert main(["backup", "--store", str(tmp_path / "nowhere.db"), "--to", str(copy)]) == 3
    assert "no such file" in capsys.readouterr().err
    provider.close()
    edit("UPDATE meta SET value = '99' WHERE key IN ('schema', 'lowest_reader')")
    assert main(["backup", "--store", str(path), "--to", str(copy)]) == 3
    assert "reads level 99" in capsys.readouterr().err
    edit("DROP TABLE meta")
    assert main(["backup", "--store", str(path), "--to", str(copy)]) == 2
    assert not copy.exists()


def test_grants_are_printed_as_a_script_for_psql(capsys):
    assert (
        main(
            [
                "grants",
                "--schema",
                "a;b",
                "--owner",
                'o"1',
                "--worker",
                "w1",
                "--worker",
                "w2",
                "--reader",
                "r",
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "BEGIN;",
        'CREATE SCHEMA IF NOT EXISTS "a;b" AUTHORIZATION "o""1";',
        'GRANT USAGE ON SCHEMA "a;b" TO "w1";',
    ]
    assert 'GRANT SELECT ON ALL TABLES IN SCHEMA "a;b" TO "r";' in lines
    assert lines[-1] == "COMMIT;"
    assert main(["grants", "--owner", "app", "--reader", "public"]) == 3
    assert "'public' is not the name of a role" in capsys.readouterr().err


# --- histories --------------------------------------------------------------------------------


@pytest.fixture
def looped(path):
    """A store with an instance in its third lap."""

    async def loop(ctx, number: int) -> None:
        await ctx.wait_for_event("go", str)
        ctx.continue_as_new(number + 1)

    registry = OrchestrationRegistry.builder().register("loop", loop).build()

    async def run_laps():
        async with Runtime(SqliteProvider(path, durability="relaxed"), registry) as runtime:
            handle = await runtime.client.start("loop", 1, instance_id="loop-1")
            for number in (1, 2):
                await handle.raise_event("go", "on")
                while (await handle.info()).execution_id == number:
                    await anyio.sleep(0.005)

    anyio.run(run_laps)
    return registry


def test_a_history_is_shown_a_line_an_event(path, looped, capsys):
    assert main(["history", "loop-1", "--store", str(path), "--execution", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == [
        "execution_started",
        "event_awaited",
        "event_received",
        "continued_as_new",
    ]


def test_an_exported_history_replays(path, looped, tmp_path, capfdbinary):
    assert main(["history", "loop-1", "--store", str(path), "--export"]) == 0
    exported = capfdbinary.readouterr().out
    assert replay_history(looped, exported).executions == 3
    assert main(["history", "loop-1", "--store", str(path), "--export", "--execution", "2"]) == 0
    assert replay_history(looped, capfdbinary.readouterr().out).executions == 1


def test_an_instance_or_a_store_that_is_not_there_is_told_apart(path, provider, capsys):
    assert main(["history", "nobody", "--store", str(path)]) == 2
    assert "there is no instance 'nobody'" in capsys.readouterr().err
    assert main(["history", "nobody", "--store", f"{path}.nowhere"]) == 3
    assert "no such file" in capsys.readouterr().err
    assert not Path(f"{path}.nowhere").exists()


@pytest.mark.slow
def test_a_history_on_a_server_is_exported(dsn, capfdbinary):
    schema = f"test_{new_id()}"

    async def once(ctx, number: int) -> int:
        return number

    registry = OrchestrationRegistry.builder().register("once", once).build()

    async def run_once():
        async with Runtime(PostgresProvider(dsn, schema), registry) as runtime:
            await (await runtime.client.start("once", 1, instance_id="o")).result()

    anyio.run(run_once)
    assert main(["history", "o", "--store", dsn, "--schema", schema, "--export"]) == 0
    assert replay_history(registry, capfdbinary.readouterr().out).executions == 1
