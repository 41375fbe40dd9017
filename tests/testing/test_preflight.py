"""Before a deploy: what it would strand, and which shapes it breaks."""

import json
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from orchestra import Exact, OrchestrationRegistry
from orchestra.cli import main
from orchestra.errors import InvalidArgument
from orchestra.operations.preflight import PreflightFindingKind
from orchestra.testing import TestRuntime, check_migrations, check_shapes

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)


@dataclass
class One:
    url: str


@dataclass
class Grown:
    url: str
    title: str = ""


@dataclass
class Two:
    host: str
    port: int


@dataclass
class Deep:
    ones: list[One] = field(default_factory=list)


@dataclass
class DeepTwo:
    ones: list[Two] = field(default_factory=list)


async def one(ctx, state: One) -> None:
    await ctx.schedule_timer(DAY)
    ctx.continue_as_new(state)


async def one_otherwise(ctx, state: One) -> None:
    await ctx.wait_for_event("go", str)
    ctx.continue_as_new(state)


async def grown(ctx, state: Grown) -> None:
    await ctx.schedule_timer(DAY)
    ctx.continue_as_new(state)


async def two(ctx, state: Two) -> None:
    await ctx.schedule_timer(DAY)
    ctx.continue_as_new(state)


async def deep(ctx, state: Deep) -> None: ...


async def deep_two(ctx, state: DeepTwo) -> None: ...


def to_two(state: One) -> Two:
    host, _, port = state.url.partition(":")
    return Two(host, int(port))


def registry(*entries, migrations=(), name="watch"):
    builder = OrchestrationRegistry.builder()
    for version, function in entries:
        builder.register(name, function, version=version)
    for migration in migrations:
        builder.migrate(name, *migration)
    return builder.build()


ONE = registry(("1.0.0", one))


# --- preflight --------------------------------------------------------------------------------


async def flight(new, count=3, urls=lambda number: f"h:{number}", **options):
    """Return what a deploy of ``new`` would do to loops on 1.0.0."""
    async with TestRuntime(ONE) as env:
        for number in range(count):
            await env.client.start("watch", One(urls(number)), instance_id=f"w{number}")
        before = env.database.writes.total()
        report = await env.client.preflight(new, **options)
        assert env.database.writes.total() == before, "it changes nothing"
        return report


async def test_a_deploy_that_keeps_what_runs_is_fine():
    report = await flight(registry(("1.0.0", one), ("1.1.0", grown)))
    assert report.ok
    assert [(move.from_version, move.to_version, move.instances) for move in report.moves] == [
        ("1.0.0", "1.1.0", 3)
    ]
    assert report.findings == ()
    assert str(report).splitlines() == [
        "3 live instances: fine",
        "watch: 3 would move from 1.0.0 to 1.1.0",
    ]


async def test_a_version_that_runs_and_is_missing_is_found_once_with_its_count():
    report = await flight(registry(("2.0.0", two), migrations=[("2.0.0", to_two)]))
    assert not report.ok
    (finding,) = report.findings
    assert (finding.kind, finding.severity) == (PreflightFindingKind.MISSING_VERSION, "error")
    assert (finding.version, finding.instances) == ("1.0.0", 3)


async def test_a_state_that_does_not_migrate_is_found_with_the_field():
    report = await flight(registry(("1.0.0", one), ("2.0.0", two)))
    (finding,) = report.findings
    assert (finding.kind, finding.version, finding.field) == (
        PreflightFindingKind.MIGRATION,
        "2.0.0",
        ".host",
    )
    assert finding.instances == 3
    assert "add migrate('watch', '2.0.0', up)" in finding.message


async def test_a_migration_that_fails_for_some_names_the_first_of_them():
    report = await flight(
        registry(("1.0.0", one), ("2.0.0", two), migrations=[("2.0.0", to_two)]),
        urls=lambda number: "h:1" if number == 1 else "broken",
    )
    (finding,) = report.findings
    assert (finding.instances, finding.instance_id in {"w0", "w2"}) == (2, True)
    assert "invalid literal for int()" in finding.message


async def test_changed_code_under_a_version_that_runs_is_a_warning():
    async with TestRuntime(ONE) as env:
        await env.client.start("watch", One("a"))
        await env.run_until_idle()
        report = await env.client.preflight(registry(("1.0.0", one_otherwise)))
        (finding,) = report.findings
        assert (finding.kind, finding.severity) == (PreflightFindingKind.CHANGED_CODE, "warning")
        assert report.ok
        report = await env.client.preflight(registry(("1.0.0", one_otherwise)), replay=True)
        assert {finding.kind for finding in report.findings} == {
            PreflightFindingKind.CHANGED_CODE,
            PreflightFindingKind.REPLAY,
        }
        assert not report.ok


async def test_a_changed_shape_under_the_same_version_is_a_warning_with_the_remedy():
    report = await flight(registry(("1.0.0", grown)))
    kinds = {finding.kind: finding for finding in report.findings}
    assert "new version" in kinds[PreflightFindingKind.CHANGED_SHAPE].message
    assert report.ok


async def test_the_policy_of_the_store_and_pins_say_what_would_move():
    new = registry(("1.0.0", one), ("1.1.0", grown))
    async with TestRuntime(new) as env:
        await env.client.set_version_policy("watch", Exact("1.0.0"))
        for number in range(3):
            await env.client.start("watch", One("a"), instance_id=f"w{number}")
        await env.client.pin("w1", "1.1.0")
        report = await env.client.preflight(new)
        assert [(move.to_version, move.instances) for move in report.moves] == [("1.1.0", 1)]


async def test_one_name_may_be_judged_and_progress_is_told():
    async with TestRuntime(ONE) as env:
        for number in range(1203):
            await env.client.start("watch", One("a:1"), instance_id=f"w{number}")
        seen = []
        report = await env.client.preflight(ONE, progress=seen.append)
        assert (report.instances, seen) == (1203, [500, 1000, 1203])
        assert (await env.client.preflight(ONE, "other")).instances == 0


async def test_a_preflight_needs_a_built_registry():
    async with TestRuntime(ONE) as env:
        with pytest.raises(InvalidArgument, match="registry"):
            await env.client.preflight(OrchestrationRegistry.builder())


# --- shapes -----------------------------------------------------------------------------------


def baseline(tmp_path, known):
    from orchestra.shapes import baseline_of

    path = tmp_path / "shapes.json"
    path.write_bytes(baseline_of(known))
    return path


def test_code_that_keeps_its_shapes_passes(tmp_path):
    path = baseline(tmp_path, ONE)
    check_shapes(ONE, path)
    check_shapes(registry(("1.0.0", one), ("1.1.0", grown)), path)
    check_shapes(registry(("2.0.0", two), migrations=[("2.0.0", to_two)]), path)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (grown, r"watch 1\.0\.0: \.title is new, with a default since 1\.0\.0 was released"),
        (two, r"\.url is gone"),
        (deep, r"\.url is gone"),
    ],
)
def test_a_released_version_keeps_its_shape(tmp_path, function, message):
    path = baseline(tmp_path, ONE)
    with pytest.raises(AssertionError, match=message):
        check_shapes(registry(("1.0.0", function)), path)


def test_an_incompatible_new_version_needs_a_migration_whose_signature_is_told(tmp_path):
    path = baseline(tmp_path, ONE)
    with pytest.raises(AssertionError) as caught:
        check_shapes(registry(("1.0.0", one), ("2.0.0", two)), path)
    assert ".url is gone since 1.0.0, and no migration leads there" in str(caught.value)
    assert "def up(state: One) -> Two: ..." in str(caught.value)
    assert "builder.migrate('watch', '2.0.0', up)" in str(caught.value)


def test_a_change_deep_in_a_list_is_found(tmp_path):
    path = baseline(tmp_path, registry(("1.0.0", deep)))
    with pytest.raises(AssertionError, match=r"\.ones\[\]\.url is gone"):
        check_shapes(registry(("1.0.0", deep), ("2.0.0", deep_two)), path)


def test_states_from_production_are_migrated_to_each_higher_version():
    new = registry(("1.0.0", one), ("2.0.0", two), migrations=[("2.0.0", to_two)])
    assert (
        check_migrations(new, [("watch", "1.0.0", {"url": "a:1"}), ("watch", "2.0.0", Two("a", 1))])
        == 3
    )
    with pytest.raises(AssertionError, match=r"watch 1\.0\.0 to 2\.0\.0: the migration to 2\.0\.0"):
        check_migrations(new, [("watch", "1.0.0", {"url": "no port"})])


# --- the commands -----------------------------------------------------------------------------

APP = """
from dataclasses import dataclass
from datetime import timedelta
from orchestra import OrchestrationRegistry

@dataclass
class State:
    {field}

async def loop(ctx, state: State) -> None:
    await ctx.schedule_timer(timedelta(days=1))
    ctx.continue_as_new(state)

registry = OrchestrationRegistry.builder().register("loop", loop, version="{version}").build()
"""


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, field, version="1.0.0"):
        (tmp_path / f"{name}.py").write_text(APP.format(field=field, version=version))
        return f"{name}:registry"

    return write


def test_a_baseline_is_written_and_checked(app, tmp_path, capsys):
    assert main(["shapes", app("app_one", "url: str"), "--write", "shapes.json"]) == 0
    assert json.loads((tmp_path / "shapes.json").read_text())["names"]["loop"].keys() == {"1.0.0"}
    assert main(["shapes", "app_one:registry", "--check", "shapes.json"]) == 0
    assert main(["shapes", app("app_two", "uri: str"), "--check", "shapes.json"]) == 1
    assert ".url is gone since 1.0.0 was released" in capsys.readouterr().out
    assert (
        main(["shapes", app("app_three", "url: str = ''", "1.1.0"), "--write", "shapes.json"]) == 0
    )
    assert json.loads((tmp_path / "shapes.json").read_text())["names"]["loop"].keys() == {
        "1.0.0",
        "1.1.0",
    }


@pytest.mark.parametrize(
    "place", ["nothing", "nothing:registry", "json:loads", "json:nothing", ":x"]
)
def test_a_registry_that_is_none_is_refused(place, app, capsys):
    assert main(["shapes", place, "--check", "shapes.json"]) == 2
    assert capsys.readouterr().err.startswith("orchestra shapes: ")


def test_a_module_that_raises_as_it_is_imported_is_named(app, tmp_path, capsys):
    (tmp_path / "app_broken.py").write_text("raise LookupError('no settings')")
    assert main(["shapes", "app_broken:registry", "--check", "shapes.json"]) == 2
    assert "cannot be imported: LookupError: no settings" in capsys.readouterr().err


async def test_a_store_is_checked_before_a_deploy(app, tmp_path, capsys):
    from orchestra import Runtime, SqliteProvider
    from orchestra.cli.registries import load_registry

    old = load_registry(app("app_old", "url: str"))
    async with Runtime(SqliteProvider("app.db"), old) as runtime:
        await runtime.client.start("loop", {"url": "a"}, instance_id="loop-1")
    import anyio.to_thread

    def check(*arguments):
        return main(["check", *arguments, "--store", "app.db"])

    assert await anyio.to_thread.run_sync(check, "app_old:registry") == 0
    assert "1 live instances: fine" in capsys.readouterr().out
    assert await anyio.to_thread.run_sync(check, app("app_new", "uri: str", "2.0.0"), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert {one["kind"] for one in found["findings"]} >= {"migration"}
    assert await anyio.to_thread.run_sync(check, "nowhere:registry") == 2
