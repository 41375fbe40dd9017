"""Commands about instances, on a store that no runtime works on."""

import io
import json
import re
import sys
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from click.testing import CliRunner

from orchestra import Failure, Latest, OrchestrationRegistry, Runtime, SqliteProvider
from orchestra.cli import main
from orchestra.cli.program import root


async def watch(ctx, laps: int) -> None:
    await ctx.wait_for_event("go", str)
    ctx.continue_as_new(laps + 1)


async def watch_2(ctx, laps: int) -> None:
    await ctx.wait_for_event("go", str)
    ctx.continue_as_new(laps + 1)


async def fails(ctx, _input: int) -> None:
    raise Failure("no luck")


def registry(*, newer=False):
    builder = OrchestrationRegistry.builder().register("watch", watch).register("fails", fails)
    if newer:
        builder.register("watch", watch_2, version="2.0.0")
    return builder.set_version_policy("watch", Latest()).build()


@pytest.fixture
def store(path):
    """A loop in its third lap, which took an upgrade; one in its first; and one that failed."""

    async def fill():
        async with Runtime(SqliteProvider(path, durability="relaxed"), registry()) as runtime:
            loop = await runtime.client.start(
                "watch", 0, instance_id="watch-1", labels={"plan": "pro"}
            )
            await runtime.client.start("watch", 0, instance_id="watch-2")
            failed = await runtime.client.start("fails", 0, instance_id="fails-1")
            await failed.wait(timedelta(seconds=10))
            await loop.raise_event("go", "on")
            while (await loop.info()).execution_id == 1:
                await anyio.sleep(0.005)
        newer = registry(newer=True)
        async with Runtime(SqliteProvider(path, durability="relaxed"), newer) as runtime:
            loop = runtime.client.handle("watch-1")
            await loop.raise_event("go", "on")
            while (await loop.info()).execution_id == 2:
                await anyio.sleep(0.005)

    anyio.run(fill)
    return path


@pytest.fixture
def run(store, capfdbinary):
    """Run a command on the store. Return its exit code, and what it wrote to stdout and stderr."""

    def run_command(*arguments):
        code = main([*arguments, "--store", str(store)])
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return run_command


def ids(text):
    return [line.split()[0] for line in text.splitlines()[1:]]


# --- looking ----------------------------------------------------------------------------------


def test_instances_are_listed_in_a_table_and_selected_by_options(run):
    code, out, err = run("ls")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == [
        "ID", "NAME", "VERSION", "STATUS", "LAP", "WAITS", "FOR", "CHANGED",
    ]  # fmt: skip
    assert sorted(ids(out)) == ["fails-1", "watch-1", "watch-2"]
    assert ids(run("ls", "--status", "failed")[1]) == ["fails-1"]
    assert ids(run("ls", "--label", "plan=pro")[1]) == ["watch-1"]
    assert sorted(ids(run("ls", "--waiting-on", "event:go")[1])) == ["watch-1", "watch-2"]
    assert ids(run("ls", "--waiting-on", "request:go")[1]) == []
    assert sorted(ids(run("ls", "--created-after", "1h")[1])) == ["fails-1", "watch-1", "watch-2"]
    code, out, err = run("ls", "--created-before", "1h")
    assert (code, out, err) == (0, "", "no instance\n")


def test_how_long_ago_is_told_by_the_clock_of_the_store(run, monkeypatch):
    async def later(_client):
        return datetime.now(UTC) + timedelta(days=2)

    monkeypatch.setattr("orchestra.client.Client.now", later)
    assert ids(run("ls", "--created-after", "47h")[1]) == []
    assert len(ids(run("ls", "--created-before", "47h")[1])) == 3
    assert "would delete 1 instances" in run("purge", "--ended-before", "47h")[1]
    assert "would delete 0 instances" in run("purge", "--ended-before", "49h")[1]


async def sleeps(ctx, _input: int) -> None:
    await ctx.schedule_timer(timedelta(days=400))


def test_a_timer_is_shown_with_its_due_time(path, capfdbinary):
    async def fill():
        naps = OrchestrationRegistry.builder().register("sleeps", sleeps).build()
        async with Runtime(SqliteProvider(path, durability="relaxed"), naps) as runtime:
            await runtime.client.start("sleeps", 0, instance_id="nap")
            async for info in runtime.client.watch("nap"):
                if info.waiting_on:
                    return info.waiting_on[0].until

    until = anyio.run(fill)
    assert main(["show", "nap", "--store", str(path)]) == 0
    (line,) = [
        line for line in capfdbinary.readouterr().out.decode().splitlines() if "waits for" in line
    ]
    assert re.fullmatch(rf"\s*waits for\s+timer, for \S.*, until {until:%Y-%m-%d}.*", line), line


def test_a_program_gets_an_array_or_a_line_for_each(run):
    listed = json.loads(run("ls", "--order-by", "id", "-o", "json")[1])
    assert [one["instance_id"] for one in listed] == ["fails-1", "watch-1", "watch-2"]
    assert listed[1]["labels"] == {"plan": "pro"}
    assert listed[1]["created_at"].endswith("Z")
    lines = run("ls", "--order-by", "id", "-o", "jsonl")[1].splitlines()
    assert [json.loads(line) for line in lines] == listed
    assert run("ls", "--status", "completed", "-o", "json")[1] == "[]\n"


def test_a_page_says_where_the_next_one_begins(run):
    _, out, err = run("ls", "--limit", "2", "--order-by", "id")
    assert ids(out) == ["fails-1", "watch-1"]
    page = err.removeprefix("more: --page ").strip()
    _, out, err = run("ls", "--limit", "2", "--order-by", "id", "--page", page)
    assert (ids(out), err) == (["watch-2"], "")


def test_a_search_that_ends_at_its_limit_says_so_and_goes_on(run):
    search = ("ls", "--order-by", "id", "--not-pinned", "--search-limit", "2")
    _, out, err = run(*search)
    assert ids(out) == ["fails-1", "watch-1"]
    assert err.startswith("searched 2 instances; go on: --page ")
    _, out, err = run(*search, "--page", err.split()[-1])
    assert (ids(out), err) == (["watch-2"], "")
    _, out, err = run("ls", "--held", "crashing", "--not-pinned", "--search-limit", "1")
    assert (out, err) == ("", "no instance\n")
    _, out, err = run("ls", "--id-prefix", "w", "--order-by", "newest", "--search-limit", "1")
    first, second = err.splitlines()
    assert (out, first) == ("", "no instance among 1")
    assert second.startswith("searched 1 instances; go on: --page ")


def test_instances_are_counted_by_groups(run):
    assert run("count")[1].split() == ["COUNT", "3"]
    counted = run("count", "--by", "name", "--by", "status")[1].splitlines()
    assert [line.split() for line in counted[1:]] == [
        ["watch", "held", "2"],
        ["fails", "failed", "1"],
        ["total", "3"],
    ]
    assert json.loads(run("count", "--name", "watch", "-o", "json")[1])["total"] == 2


def test_an_instance_is_shown_with_its_laps(run):
    code, out, err = run("show", "watch-1")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["instance", "watch-1"]
    assert any(line.startswith("waits for") and "event go" in line for line in lines)
    ribbon = lines.index(next(line for line in lines if line.startswith("laps 1 to 3")))
    assert len(lines[ribbon + 1]) == 3
    assert lines[ribbon + 2].rstrip() == "  ^"
    assert lines[ribbon + 3].split() == ["█", "1.0.0", "█", "2.0.0", "^", "upgrade"]
    shown = json.loads(run("show", "watch-1", "-o", "json")[1])
    assert shown["version"] == "2.0.0"
    assert [lap["version"] for lap in shown["executions"]] == ["1.0.0", "1.0.0", "2.0.0"]


def test_the_beginning_of_an_id_will_do_if_it_is_the_only_one(run):
    assert run("show", "fail", "-o", "json")[0] == 0
    code, out, err = run("show", "watch")
    assert (code, out) == (3, "")
    assert "several ids begin with 'watch'" in err
    assert "'watch-1'" in err
    code, out, err = run("show", "nobody")
    assert (code, out) == (2, "")
    assert "there is no instance 'nobody'" in err


def test_the_changes_of_an_instance_are_told_until_its_end(run):
    assert run("terminate", "watch-2")[0] == 0
    code, out, _ = run("watch", "watch-2")
    assert (code, len(out.splitlines())) == (0, 1)
    assert "terminated  watch-2  1.0.0  lap 1" in out
    infos = [json.loads(line) for line in run("watch", "watch-2", "-o", "jsonl")[1].splitlines()]
    assert [info["status"] for info in infos] == ["terminated"]
    assert run("watch")[0] == 3
    assert run("watch", "nobody")[0] == 2


def test_a_history_is_json_for_programs(run):
    events = json.loads(run("history", "watch-2", "--json")[1])
    assert [event["kind"] for event in events] == ["execution_started", "event_awaited"]


# --- sending ----------------------------------------------------------------------------------


def test_an_instance_is_started_and_gets_events(run):
    code, out, err = run("start", "watch", "7", "--id", "new", "--label", "plan=trial")
    assert (code, out, err) == (0, "new\n", "")
    info = json.loads(run("show", "new", "-o", "json")[1])
    assert (info["input"], info["labels"], info["status"]) == (7, {"plan": "trial"}, "held")
    code, out, err = run("start", "watch", "7", "--id", "new")
    assert (code, out) == (2, "")
    assert "'new'" in err
    assert run("event", "new", "go", '{"by": "hand"}', "--message-id", "m1")[0] == 0
    assert run("event", "new", "noise", "a plain word")[0] == 0
    waiting = json.loads(run("messages", "new", "-o", "json")[1])
    assert [(one["name"], one["payload"]) for one in waiting] == [
        ("go", {"by": "hand"}),
        ("noise", "a plain word"),
    ]
    assert run("messages", "new", "--drop", "--name", "noise")[1] == "dropped 1 messages\n"
    assert [line.split()[:2] for line in run("messages", "new")[1].splitlines()[1:]] == [
        ["1", "go"]
    ]


def test_a_request_without_an_answer_in_time_says_how_to_ask_again(run):
    code, out, err = run("request", "watch-1", "double", "4", "--timeout", "1s")
    assert (code, out) == (2, "")
    again = err.split("--request-id ")[1].strip()
    (open_request,) = json.loads(run("messages", "watch-1", "-o", "json")[1])
    assert (open_request["kind"], open_request["message_id"]) == ("request", again)


def test_what_begins_like_json_must_be_json(run):
    code, _, err = run("event", "watch-1", "go", '{"by": ')
    assert code == 3
    assert "begins like JSON" in err


# --- acting -----------------------------------------------------------------------------------


def test_an_act_on_ids_is_done_at_once_and_recorded_with_its_author(run, monkeypatch):
    monkeypatch.setenv("ORCHESTRA_OPERATOR", "ann")
    code, out, _ = run("hold", "watch-1", "watch-2", "--reason", "the feed is down")
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["watch-1", "done"],
        ["watch-2", "done"],
    ]
    assert sorted(ids(run("ls", "--held", "operator")[1])) == ["watch-1", "watch-2"]
    assert sorted(ids(run("ls", "--held")[1])) == ["watch-1", "watch-2"]
    assert run("release", "watch-1")[0] == 0
    done = json.loads(run("operations", "--subject", "watch-1", "-o", "json")[1])
    assert [(one["action"], one["by"]) for one in done] == [("release", "ann"), ("hold", "ann")]
    assert done[1]["details"]["reason"] == "the feed is down"
    assert "watch-2" in run("operations")[1]


def test_a_failed_act_names_the_instance_and_ends_with_a_code(run):
    code, out, _ = run("cancel", "fails-1", "watch-2")
    assert code == 2
    failed, done = out.splitlines()[1:]
    assert failed.split()[:2] == ["fails-1", "failed"]
    assert "AlreadyCompleted" in failed
    assert done.split() == ["watch-2", "done"]


def test_an_id_that_is_misspelt_stops_the_act_before_it_begins(run):
    assert run("terminate", "watch-1", "nobody")[0] == 2
    assert json.loads(run("show", "watch-1", "-o", "json")[1])["status"] == "held"


def test_a_bulk_act_shows_what_it_would_do_and_needs_a_yes(run):
    code, out, err = run("cancel", "--name", "watch")
    assert code == 1
    assert out.splitlines()[0] == "cancel would act on 2 instances"
    assert "add --yes" in err
    assert json.loads(run("show", "watch-1", "-o", "json")[1])["cancel_requested"] is False
    code, out, err = run("cancel", "--name", "watch", "--yes", "-o", "json")
    report = json.loads(out)
    assert (code, report["changed"], report["failed"], err) == (0, 2, 0, "")
    assert json.loads(run("show", "watch-1", "-o", "json")[1])["cancel_requested"] is True


@pytest.mark.parametrize("arguments", [(), ("watch-1", "--name", "watch"), ("--yes",)])
def test_an_act_needs_ids_or_conditions_and_not_both(run, arguments):
    code, _, err = run("terminate", *arguments)
    assert code == 3
    assert "conditions" in err


def test_all_instances_are_meant_only_if_that_is_said(run):
    assert run("terminate", "--all", "--yes")[0] == 0
    assert run("ls", "--status", "held")[1] == ""


def test_pins_rewinds_nudges_and_reruns(run):
    assert run("pin", "watch-1", "--to", "1.0.0", "--until", "2030-01-01", "--reason", "r")[0] == 0
    assert "pin" in run("show", "watch-1")[1]
    assert run("unpin", "watch-1")[0] == 0
    code, out, _ = run("rewind", "watch-1", "--execution", "1")
    assert code == 0
    assert "lap 4 on 1.0.0, 2 events unread again" in out
    assert run("rewind", "watch-1")[0] == 3
    code, out, _ = run("rerun", "fails-1", "--new-id", "again")
    assert (code, out.split()[-1]) == (0, "again")
    assert run("nudge", "watch-2")[0] == 0
    assert "it was asked before" in run("nudge", "watch-2")[1]
    assert run("pin", "--name", "watch", "--to", "1.0.0", "--yes")[0] == 0
    assert run("pin", "--name", "watch", "--to", "1.0.0", "--until", "1h", "--yes")[0] == 3


def test_ended_instances_are_deleted_and_purged(run):
    assert run("delete", "watch-1")[0] == 2
    code, out, _ = run("purge", "--ended-before", "2999-01-01")
    assert (code, out.splitlines()) == (1, ["would delete 1 instances", "  fails-1"])
    assert run("purge", "--ended-before", "2999-01-01", "--yes")[0] == 0
    assert run("ls", "--status", "failed")[1] == ""


# --- deploying --------------------------------------------------------------------------------


def test_a_policy_is_shown_set_and_has_a_history(run):
    assert "latest" in run("policy", "watch")[1]
    code, out, _ = run("policy", "watch", "--exact", "1.0.0", "--allow-missing", "--reason", "back")
    assert (code, out.splitlines()[1].split()[:2]) == (0, ["watch", "exact:1.0.0"])
    assert run("policy", "watch", "--latest", "--expected-revision", "0")[0] == 2
    former = json.loads(run("policy", "watch", "--history", "-o", "json")[1])
    assert [one["policy"] for one in former] == ["exact:1.0.0", "latest"]
    assert run("policy", "watch", "--latest", "--exact", "1.0.0")[0] == 3


def test_nodes_are_listed_and_a_store_without_any_says_so(run):
    assert run("nodes") == (0, "", "no node works on this store\n")


# --- around the commands ----------------------------------------------------------------------


def test_the_store_may_come_from_the_environment(store, monkeypatch, capfd):
    monkeypatch.setenv("ORCHESTRA_STORE", str(store))
    assert main(["ls"]) == 0
    assert "watch-1" in capfd.readouterr().out


def test_a_password_is_never_shown(capfd):
    assert main(["ls", "--store", "postgresql://u:secret@127.0.0.1:1/db"]) == 3
    assert main(["ls", "--store", "mysql://u:secret@h/db"]) == 3
    assert main(["backup", "--store", "a.db", "--to", "postgresql://u:secret@h/db"]) == 3
    assert "secret" not in "".join(capfd.readouterr())


def test_a_value_of_a_user_moves_no_cursor(run):
    assert run("start", "watch", "1", "--id", "a\x1b[31mb\nc")[0] == 0
    for command in (("ls",), ("show", "a\x1b[31mb\nc")):
        out = run(*command)[1]
        assert "\x1b" not in out
        assert r"a\x1b[31mb\nc" in out


@pytest.mark.parametrize("duration", ["x", "5", "5y", "-1h", ""])
def test_a_duration_that_is_none_is_refused(run, duration):
    code, _, err = run("ls", "--longer-than", duration)
    assert code == 3
    assert "no duration" in err


# --- schedules and streams --------------------------------------------------------------------


def test_a_schedule_is_created_shown_paused_triggered_and_deleted(run):
    made = ["schedules", "create", "daily", "--daily", "09:00", "--zone", "Europe/Berlin"]
    code, out, _ = run(*made, "--event", "watch-1", "go", "--value", '"now"')
    assert code == 0
    assert "daily: never_ran, event go for watch-1" in out
    assert run(*made, "--event", "watch-1", "go")[0] == 2
    assert run(*made)[0] == 3
    assert run("schedules", "create", "x", "--start", "watch")[0] == 3
    (listed,) = json.loads(run("schedules", "ls", "-o", "json")[1])
    assert listed["schedule"]["spec"]["zone"] == "Europe/Berlin"
    assert len(run("schedules", "preview", "daily", "--count", "3")[1].splitlines()) == 3
    assert "paused" in run("schedules", "pause", "daily", "--reason", "calm")[1]
    assert run("schedules", "ls")[1].splitlines()[1].split()[1] == "paused"
    assert run("schedules", "resume", "daily")[0] == 0
    assert run("schedules", "trigger", "daily")[1].startswith("fired")
    waiting = json.loads(run("messages", "watch-1", "-o", "json")[1])
    assert [one["payload"] for one in waiting] == ["now"]
    assert "fired 1" in run("schedules", "show", "daily")[1]
    assert run("schedules", "delete", "daily")[0] == 0
    assert run("schedules", "ls") == (0, "", "no schedule\n")
    assert run("schedules", "show", "daily")[0] == 2


def test_a_stream_is_listed_and_read(path, capfdbinary):
    async def speaks(ctx, _input: int) -> None:
        for word in ("a", "b", "c"):
            ctx.publish("words", {"word": word})

    async def fill():
        registry = OrchestrationRegistry.builder().register("speaks", speaks).build()
        async with Runtime(SqliteProvider(path, durability="relaxed"), registry) as runtime:
            await (await runtime.client.start("speaks", 0, instance_id="s")).wait()

    anyio.run(fill)
    assert main(["streams", "ls", "s", "--store", str(path)]) == 0
    assert capfdbinary.readouterr().out.splitlines()[1].split()[:3] == [b"words", b"1", b"3"]
    read = ["streams", "read", "s", "words", "--after", "1", "--follow", "--store", str(path)]
    assert main([*read, "-o", "jsonl"]) == 0
    lines = capfdbinary.readouterr().out.splitlines()
    assert [json.loads(line)["value"]["word"] for line in lines] == ["b", "c"]
    assert main(read) == 0
    assert b"2  " in capfdbinary.readouterr().out


def test_labels_are_set_and_removed(run):
    assert run("label", "watch-1", "tier=gold", "plan-", "--reason", "r")[:2] == (0, "tier=gold\n")
    assert run("label", "watch-1", "tier-", "-o", "json")[1] == "{}\n"
    assert run("label", "watch-1", "tier")[0] == 3
    assert run("label", "watch-1", "=x")[0] == 3
    done = json.loads(run("operations", "--action", "set labels", "-o", "json")[1])
    assert done[-1]["details"]["reason"] == "r"


def test_a_start_may_bring_events(run):
    _, out, _ = run(
        "start", "watch", "0", "--id", "new", "--allow-unregistered",
        "--event", "go", '"on"', "--event", "other", '{"a": 1}',
    )  # fmt: skip
    assert out == "new\n"
    waiting = json.loads(run("messages", "new", "-o", "json")[1])
    assert [(one["name"], one["payload"]) for one in waiting] == [("go", "on"), ("other", {"a": 1})]


def test_a_release_and_a_rerun_are_recorded_with_who_and_why(run, monkeypatch):
    monkeypatch.setenv("ORCHESTRA_OPERATOR", "ann")
    run("hold", "watch-2")
    assert run("release", "watch-2", "--reason", "the feed is back")[0] == 0
    assert run("purge", "--ended-before", "0s", "--reason", "old", "--yes")[0] == 0
    done = json.loads(run("operations", "-o", "json")[1])
    found = {(one["action"], one["by"], one["details"].get("reason", "")) for one in done}
    assert {("release", "ann", "the feed is back"), ("purge", "ann", "old")} <= found


def test_a_schedule_is_replaced(run):
    run("schedules", "create", "day", "--daily", "09:00", "--event", "watch-1", "go")
    _, out, _ = run(
        "schedules", "update", "day", "--every", "15m", "--event", "watch-1", "tick",
        "--expected-revision", "1", "--start-at", "2030-01-01", "--pause-after-failures", "3",
        "-o", "json",
    )  # fmt: skip
    changed = json.loads(out)
    assert changed["schedule"]["action"]["name"] == "tick"
    assert changed["schedule"]["start_at"].startswith("2030-01-01")
    again = ("schedules", "update", "day", "--every", "1h", "--event", "w", "t")
    code, _, err = run(*again, "--expected-revision", "1")
    assert (code, "another revision" in err or "revision" in err) == (2, True)
    assert run("schedules", "update", "nobody", "--every", "1h", "--event", "w", "t")[0] == 2


def test_a_shell_completes_ids(store, monkeypatch):
    def complete(words, count):
        environment = {
            "_ORCHESTRA_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(count),
            "ORCHESTRA_STORE": str(store),
        }
        done = CliRunner().invoke(root, prog_name="orchestra", env=environment)
        return [line.split(",")[1] for line in done.output.splitlines() if line]

    assert complete("orchestra show wat", 2) == ["watch-1", "watch-2"]
    assert complete("orchestra hold watch-1 f", 3) == ["fails-1"]
    assert complete("orchestra sho", 1) == ["show"]
    assert complete(f"orchestra show --store {store}.nowhere w", 4) == []


def test_on_a_terminal_a_watch_draws_the_picture_anew(store, monkeypatch):
    class Screen(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    for arguments in (["fails-1"], ["fails-1", "--lines"]):
        screen = Screen()
        monkeypatch.setattr(sys, "stdout", screen)
        assert main(["watch", *arguments, "--store", str(store)]) == 0
        monkeypatch.undo()
        drawn = screen.getvalue()
        assert ("lap 1" in drawn, "failed" in drawn) == (True, True)
        assert ("version" in drawn) == ("--lines" not in arguments)
