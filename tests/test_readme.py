"""README and the guides are programs too: their Python blocks run, and their links and commands
lead to files that exist.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
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


@pytest.mark.slow
def test_the_python_blocks_of_the_guide_make_one_program(tmp_path: Path) -> None:
    blocks = blocks_of((ROOT / "ops" / "guide.md").read_text(encoding="utf-8"))
    output = output_of(tmp_path / "guide.py", "\n".join(blocks))
    assert output.splitlines() == [
        "no reminder is sent",
        "told",
        "o-1 paid by Grace",
        "True",
        "o-2 delivered",
        "not delivered: ValueError",
        "report of shift 1",
        "1.0.0",
        "['completed']",
        "pending",
        "2",
        "sold out",
        "3",
        "3",
        "1 Let me see: None",
        "2 It 1",
        "3 depends 1",
        "4 on 1",
        "5 tea. 1",
        "tea.",
        "[5]",
        "7",
        "4",
    ]


@pytest.mark.slow
def test_the_python_blocks_of_the_page_about_schedules_make_one_program(tmp_path: Path) -> None:
    blocks = blocks_of((ROOT / "ops" / "schedules.md").read_text(encoding="utf-8"))
    output = output_of(tmp_path / "schedules.py", "\n".join(blocks))
    assert output.splitlines() == [
        "2026-12-24T08:00:00+00:00",
        "2026-12-28T08:00:00+00:00",
        "2026-12-29T08:00:00+00:00",
        "2026-03-29 01:00:00+00:00",
        "2026-10-25 00:30:00+00:00",
        "True",
        "healthy 5 digest/2026-03-06T08:00:00Z 2026-03-09 08:00:00+00:00",
        "5 slots would run",
    ]


@pytest.mark.slow
def test_the_python_blocks_of_the_page_about_payloads_make_one_program(tmp_path: Path) -> None:
    blocks = blocks_of((ROOT / "ops" / "payloads.md").read_text(encoding="utf-8"))
    output = output_of(tmp_path / "payloads.py", "\n".join(blocks))
    masked, is_plain, held, unreadable, *rest = output.splitlines()
    assert masked == "{'user': 'ann', 'token': '**********'}"
    assert is_plain == "False"
    assert held == "True True"
    assert unreadable.startswith("unreadable (")
    assert "2026-03" in unreadable
    assert rest == ["2026-03 0 1 False", "2026-04 1 0 True", "0"]


OPERATING = """
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


@pytest.mark.slow
def test_the_python_blocks_of_the_guide_to_the_http_api_run(tmp_path: Path) -> None:
    blocks = blocks_of((ROOT / "ops" / "http.md").read_text(encoding="utf-8"))
    blocks.append("print(service.routes[-1].path)")
    assert output_of(tmp_path / "service.py", "\n".join(blocks)) == "/orchestra\n"


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
            request = Request({"type": "http", "client": ("10.0.0.2", 1), "headers": [(b"x-auth-request-email", b"eve")]})
            print(*sorted((await by_header(request)).granted))

anyio.run(look)
"""


@pytest.mark.slow
def test_the_python_blocks_of_the_guide_to_the_dashboard_make_a_service(tmp_path: Path) -> None:
    blocks = blocks_of((ROOT / "ops" / "dashboard.md").read_text(encoding="utf-8"))
    output = output_of(tmp_path / "service.py", "\n".join([*blocks, SIGNED_IN]))
    assert output.splitlines() == [
        '401 Basic realm="orchestra"',
        "401",
        "200 True",
        "view",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["testing.md", "versioning.md"])
def test_the_python_blocks_of_a_guide_on_virtual_time_make_one_test_module(
    guide: str, tmp_path: Path
) -> None:
    blocks = blocks_of((ROOT / "ops" / guide).read_text(encoding="utf-8"))
    module = tmp_path / "test_month.py"
    module.write_text("\n\n".join(blocks), encoding="utf-8")
    (tmp_path / "conftest.py").write_text(
        "import pytest\n\n\n"
        "@pytest.fixture(params=['asyncio', 'trio'])\n"
        "def anyio_backend(request):\n"
        "    return request.param\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, module], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = module.read_text()
    twice = len(re.findall(r"^async def test_", text, re.MULTILINE))
    once = len(re.findall(r"^def test_", text, re.MULTILINE))
    assert f"{2 * twice + once} passed" in done.stdout


@pytest.mark.slow
def test_the_python_blocks_of_the_operating_guide_run_beside_a_store(tmp_path: Path) -> None:
    blocks = blocks_of((ROOT / "ops" / "operating.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 5
    source = OPERATING.format(blocks=textwrap.indent("\n".join(blocks), " " * 8))
    assert output_of(tmp_path / "operating.py", source).splitlines()[-1] == "done"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_links_only_to_files_and_headings_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path, heading in re.findall(r"\]\((?!http)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        target = (page.parent / path) if path else page
        assert target.exists(), path
        if heading:
            assert heading in anchors_of(target), f"{path}#{heading}"


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readmes_commands_exist() -> None:
    commands = re.findall(r"python (examples/\S+)", README)
    assert {
        "examples/watch_upgrade",
        "examples/postgres_workers/worker.py",
        "examples/postgres_workers/web.py",
    } <= set(commands)
    for path in commands:
        assert (ROOT / path).exists(), path
