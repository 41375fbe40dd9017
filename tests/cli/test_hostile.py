"""Hostile texts in each place that takes one, in each table and each line of JSON (I15)."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout

import anyio
import pytest

from orchestra import OrchestrationRegistry, Runtime, SqliteProvider, activity
from orchestra.cli import main
from tests.support import hostile


@pytest.fixture(params=list(hostile.TEXTS))
def text(request):
    return hostile.TEXTS[request.param]


@pytest.fixture
def store(path, text):
    async def fill():
        registry = hostile.registry(OrchestrationRegistry.builder(), text)
        fails = activity(name=text)(hostile.failing_activity)
        provider = SqliteProvider(path, durability="relaxed")
        async with Runtime(provider, registry, activities=[fails]) as runtime:
            client = runtime.client
            for one in await hostile.fill(client, text):
                while True:
                    info = await client.get_instance_info(one)
                    if info.hold or info.waiting_on or info.status.is_final:
                        break
                    await anyio.sleep(0.005)
            await hostile.act(client, text)

    anyio.run(fill)
    return path


class Terminal(io.TextIOWrapper):
    """A terminal that records what it gets."""

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="utf-8", newline="")

    def isatty(self):
        return False

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode()


def run(store, *arguments):
    out, err = Terminal(), Terminal()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*arguments, "--store", str(store)])
    return code, out.text(), err.text()


def check(written, where):
    harmful = (set(written) - {"\n"}) & hostile.CONTROLS
    assert not harmful, (where, harmful, written)


def commands(text):
    one = ["--", text] if text.startswith("-") else [text]
    yield from (["ls"], ["ls", "--name", text], ["ls", "--held"], ["count", "--by", "name"])
    yield ["count", "--by", f"label:{text}"]
    yield from (["show", *one], ["show", f"bad {text}"], ["show", f"busy {text}"])
    yield from (["history", *one], ["history", f"bad {text}"], ["history", f"busy {text}"])
    yield from (["messages", *one], ["streams", "ls", *one], ["streams", "read", *one, text])
    yield from (["schedules", "ls"], ["schedules", "show", *one], ["schedules", "preview", *one])
    yield from (["versions"], ["policy", *one], ["nodes"], ["operations"], ["doctor"])
    yield from (["event", *one, text, json.dumps(text)], ["label", *one, "a=b"])
    yield from (["release", *one, "--reason", text], ["hold", "--name", text])
    yield from (["hold", "--name", text, "--reason", text, "--yes"], ["delete", *one])
    yield from (["watch", f"nobody {text}"], ["show", f"nobody {text}"], ["rewind", text])
    yield from (["ls", "--held", text], ["ls", "--page", text], ["start", text, "--version", text])
    yield from (["schedules", "show", f"nobody {text}"], ["check", text], [text])


def test_no_command_writes_what_a_terminal_obeys(store, text):
    found = 0
    for arguments in commands(text):
        for form in ("table", "json", "jsonl"):
            options = ["-o", form] if arguments[0] not in ("check", text) else []
            before, _, rest = arguments, None, []
            if "--" in arguments:
                at = arguments.index("--")
                before, rest = arguments[:at], arguments[at:]
            code, out, err = run(store, *before, *options, *rest)
            assert code in (0, 1, 2, 3), arguments
            check(out, arguments)
            check(err, arguments)
            found += hostile.MARKER in out
            if form == "jsonl" and code == 0:
                for line in out.splitlines():
                    json.loads(line)
    assert found > 40
