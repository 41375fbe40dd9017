"""Every page of the guide is a program or a test module: its Python blocks, joined, run as they
stand, and print what the page says. Blocks of other systems are marked by their names, and are
compiled.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from orchestra import Runtime
from orchestra.cli.program import root

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "ops" / "guide" / "pages"
NAMES = sorted(path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.md"))

FOREIGN = {"Temporal", "DBOS", "Celery", "APScheduler"}
"""The systems whose code is not run."""
PATIENCE = 400
"""Seconds that a busy machine may take for what an idle one does in ten."""
PRINTS = 'title="prints"'
SHOWN = {"bash", "console", "diff", "js", "rust", "sql", "text", "yaml"}
"""What is no Python. Other tests run the commands and statements among it."""


@dataclass(frozen=True)
class Block:
    language: str
    options: str
    code: str

    @property
    def title(self) -> str:
        found = re.search(r'title="([^"]*)"', self.options)
        return found[1] if found else ""


def blocks_of(name: str) -> Iterator[Block]:
    text = (PAGES / name).read_text(encoding="utf-8")
    fenced = r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```$"
    for found in re.finditer(fenced, text, re.MULTILINE | re.DOTALL):
        yield Block(found[2], found[3], textwrap.dedent(found[4]))


def program_of(name: str) -> str:
    """Return the page's own Python blocks, as one program."""
    own = [each.code for each in blocks_of(name) if each.language == "python" and not each.title]
    return "\n\n".join(own)


def is_tests(program: str) -> bool:
    return re.search(r"^(async )?def test_", program, re.MULTILINE) is not None


STREAMED = """
import anyio, httpx

async def look() -> None:
    async with lifespan(service):
        transport = httpx.ASGITransport(service)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            await http.post("/chats/c-1", params={"question": "tea"})
            whole = (await http.get("/chats/c-1/tokens")).text
            print(whole.count("data:"))
            rest = await http.get("/chats/c-1/tokens", headers={"Last-Event-ID": "3"})
            print(rest.text.split())

anyio.run(look)
"""

SIGNED_IN = """
import anyio, httpx

async def look() -> None:
    async with lifespan(service):
        transport = httpx.ASGITransport(service, client=("10.0.0.9", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            refused = await http.get("/orchestra/")
            print(refused.status_code, refused.headers["www-authenticate"])
            print((await http.get("/orchestra/", auth=("ann", "wrong"))).status_code)
            shown = await http.get("/orchestra/start?name=watch", auth=("ann", "correct horse"))
            print(shown.status_code, 'name="field.value"' in shown.text)
            headers = [(b"x-auth-request-email", b"eve")]
            request = Request({"type": "http", "client": ("10.0.0.2", 1), "headers": headers})
            print(*sorted((await by_header(request)).granted))

anyio.run(look)
"""

SIGNALLED = """
import os

async def stop() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(main)
        while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            await anyio.lowlevel.checkpoint()
        os.kill(os.getpid(), signal.SIGTERM)

anyio.run(stop)
"""

AFTER = {
    "how-to/deploy.md": SIGNALLED,
    "how-to/dashboard.md": SIGNED_IN,
    "how-to/stream-to-a-browser.md": STREAMED,
    "reference/http.md": "print(service.routes[-1].path)\n",
}
"""What a test does with a page's program."""

BESIDE_A_STORE = """
import tempfile
from datetime import timedelta
from pathlib import Path

import anyio

from orchestra import Exact, OrchestrationRegistry, Retention, Runtime, SqliteProvider


async def watch(ctx, state):
    await ctx.wait_for_event("stop")


async def main(path):
    provider = SqliteProvider(path)
    first = OrchestrationRegistry.builder().register("watch", watch).build()
    async with Runtime(SqliteProvider(path), first) as runtime:
        client = runtime.client
        await client.start("watch", 1, instance_id="watch-1")
{blocks}
    print("done")


anyio.run(main, Path(tempfile.mkdtemp()) / "app.db")
"""

AROUND = {"how-to/operating.md": BESIDE_A_STORE}
"""The program in which a page's blocks stand."""

EXPECTED = {
    "how-to/deploy.md": "stopped\n",
    "how-to/dashboard.md": '401 Basic realm="orchestra"\n401\n200 True\nview\n',
    "how-to/operating.md": r"(.*\n)+done\n",
    "how-to/orchestrations.md": """\
no reminder is sent
told
o-1 paid by Grace
True
o-2 delivered
not delivered: ValueError
report of shift 1
1.0.0
['completed']
pending
2
sold out
3
3
1 Let me see: None
2 It 1
3 depends 1
4 on 1
5 tea. 1
tea.
[5]
7
4
""",
    "how-to/payloads.md": (
        r"\{'user': 'ann', 'token': '\*{10}'\}\nFalse\nTrue True\nunreadable \(.*2026-03.*\n"
        r"2026-03 0 1 False\n2026-04 1 0 True\n0\n"
    ),
    "how-to/schedules.md": """\
2026-12-24T08:00:00+00:00
2026-12-28T08:00:00+00:00
2026-12-29T08:00:00+00:00
2026-03-29 01:00:00+00:00
2026-10-25 00:30:00+00:00
True
healthy 5 digest/2026-03-06T08:00:00Z 2026-03-09 08:00:00+00:00
5 slots would run
""",
    "how-to/stream-to-a-browser.md": "4\n['id:', '4', 'data:', '\"tea.\"']\n",
    "reference/http.md": "/orchestra\n",
}
"""What programs print besides what their pages say: text, or a pattern."""


BOTH_BACKENDS = """
import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param
"""


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE)
def test_the_python_blocks_of_each_page_make_a_program_that_prints_what_the_page_says(
    tmp_path: Path,
) -> None:
    programs = {name: program_of(name) for name in NAMES}
    written: dict[str, Path] = {}
    for name, program in programs.items():
        if program and not is_tests(program):
            written[name] = tmp_path / f"{name.replace('/', '_')}.py"
            blocks = textwrap.indent(program, " " * 8)
            whole = AROUND[name].format(blocks=blocks) if name in AROUND else program
            written[name].write_text(whole + AFTER.get(name, ""), encoding="utf-8")
    command = [sys.executable, Path(__file__).with_name("programs.py"), *written.values()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    wrong: dict[str, dict[str, str]] = {}
    for name, path in written.items():
        outcome = outcomes[str(path)]
        if outcome["failure"] in ("needs flask", "needs django"):  # they come with the extra `dev`
            continue
        said = "".join(each.code for each in blocks_of(name) if PRINTS in each.options)
        expected = said + EXPECTED.get(name, "")
        is_as_said = outcome["printed"] == expected or re.fullmatch(expected, outcome["printed"])
        if outcome["failure"] or not is_as_said:
            wrong[name] = outcome
    assert not wrong, "\n".join(
        f"{name}:\n{outcome['printed']}{outcome['failure']}" for name, outcome in wrong.items()
    )


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE)
def test_the_python_blocks_of_pages_with_tests_are_modules_that_pass(tmp_path: Path) -> None:
    expected = 0
    for name in NAMES:
        program = program_of(name)
        if is_tests(program):
            module = tmp_path / f"test_{name.replace('/', '_').replace('-', '_')[:-3]}.py"
            module.write_text(program, encoding="utf-8")
            expected += 2 * len(re.findall(r"^async def test_", program, re.MULTILINE))
            expected += len(re.findall(r"^def test_", program, re.MULTILINE))
    (tmp_path / "conftest.py").write_text(BOTH_BACKENDS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, tmp_path],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "DIGEST_KEY": "42" * 32},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{expected} passed" in done.stdout


def test_the_commands_that_pages_give_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRA_STORE", "app.db")
    given = 0
    for name in NAMES:
        for block in blocks_of(name):
            if block.language in ("bash", "console"):
                for line in re.findall(r"(?:^|&& |\$ )orchestra (.*)", block.code, re.MULTILINE):
                    understand(shlex.split(line.partition(" | ")[0], comments=True))
                    given += 1
    assert given > 10


def understand(arguments: list[str]) -> None:
    """Parse a command as the program does, and run nothing."""
    command: click.Command = root
    context = click.Context(command)
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None
        command = found
        context = click.Context(command, context, info_name=name)
    command.parse_args(context, list(arguments))


def test_each_block_is_run_or_says_whose_it_is() -> None:
    for name in NAMES:
        for block in blocks_of(name):
            if block.language == "python":
                assert block.title in FOREIGN | {""} or name == "start.md", (name, block.title)
                compile(
                    block.code, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                )  # also what is not run
            else:
                assert block.language in SHOWN, (name, block.language, block.code[:60])


# --- ten minutes ---


def start_page() -> tuple[str, str]:
    """Return the program of the page, and the program with the changes that the page makes."""
    blocks = list(blocks_of("start.md"))
    (program,) = (each.code for each in blocks if each.title == "shop.py")
    (function,) = (each.code for each in blocks if each.title == "shop.py, above the registry")
    (change,) = (each.code for each in blocks if each.language == "diff")
    before = "".join(line[1:] + "\n" for line in change.splitlines() if line[0] == " ")
    after = "".join(line[1:] + "\n" for line in change.splitlines())
    assert program.count(before) == 1
    changed = program.replace("registry = (", f"{function}\n\nregistry = (", 1)
    return program, changed.replace(before, after)


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE)
def test_the_loop_of_the_first_page_survives_a_kill_and_takes_the_new_version(
    tmp_path: Path,
) -> None:
    program = tmp_path / "shop.py"
    first, second = start_page()
    program.write_text(first, encoding="utf-8")
    before = lines_until(tmp_path, r"#2\] counted items=6 checks=1")
    after = lines_until(tmp_path, r"counted items=6 checks=4")
    assert all(" watch 1.0.0 [watch-1 #" in line for line in before + after)
    assert "checks=0" not in "".join(after)
    program.write_text(second, encoding="utf-8")
    changed = lines_until(tmp_path, r"watch 1\.1\.0 \[watch-1 #\d+\] .* is_empty=False")
    checks = [int(found) for line in changed for found in re.findall(r"checks=(\d+)", line)]
    assert checks == sorted(checks)
    assert checks[0] >= 4
    command = [sys.executable, "-m", "orchestra.cli", "ls", "--store", "shop.db"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert re.search(r"^watch-1 +watch +1\.1\.0 ", listed.stdout, re.MULTILINE), listed.stdout


def lines_until(folder: Path, pattern: str) -> list[str]:
    """Run the program until its log has such a line, then kill it with SIGKILL."""
    command = [sys.executable, "shop.py"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if re.search(pattern, line):
                return [each for each in lines if "counted" in each]
        raise AssertionError("".join(lines))
    finally:
        process.kill()
        process.communicate(timeout=30)


# --- the reference ---


def names_in_the_reference() -> list[str]:
    text = "".join(path.read_text(encoding="utf-8") for path in (PAGES / "reference").glob("*.md"))
    return re.findall(r"^::: (\S+)$", text, re.MULTILINE)


def test_the_reference_has_each_public_name_once() -> None:
    import orchestra
    import orchestra.errors
    import orchestra.sync
    import orchestra.testing
    import orchestra.web

    told = names_in_the_reference()
    assert len(told) == len(set(told))
    public = {f"orchestra.{name}" for name in orchestra.__all__}
    public -= {f"orchestra.{name}" for name in orchestra.errors.__all__}
    public.add("orchestra.errors")
    for module in (orchestra.sync, orchestra.testing, orchestra.web):
        public |= {f"{module.__name__}.{name}" for name in module.__all__}
    public.discard("orchestra.sync")
    assert public <= set(told), sorted(public - set(told))


def test_the_table_of_settings_has_each_setting_of_a_runtime() -> None:
    text = (PAGES / "reference" / "settings.md").read_text(encoding="utf-8")
    first_columns = "".join(re.findall(r"^\|([^|]*)\|", text, re.MULTILINE))
    told = set(re.findall(r"`(\w+)`", first_columns))
    parameters = inspect.signature(Runtime).parameters.values()
    settings = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    assert told == settings - {"clock"}  # which is for tests
