"""The HTTP API: what it answers, that its document says so, and who may use it."""

import json
import re
from datetime import UTC, datetime, timedelta

import anyio
import httpx
import jsonschema
import pytest
from fastapi import FastAPI

from orchestra import Cron, Every, Failure, OrchestrationRegistry, Schedule, Start
from orchestra.testing import TestRuntime
from orchestra.web import Principal, create_app
from tests.support.web import reach

API = "/api/v1"


async def watch(ctx, laps: int) -> None:
    await ctx.wait_for_event("go", str)
    ctx.continue_as_new(laps + 1)


async def fails(ctx, _input: int) -> None:
    raise Failure("no luck")


async def asks(ctx, _input: int) -> None:
    first = await ctx.wait_for_request("double", int, returns=int)
    first.reply(first.value * 2)
    second = await ctx.wait_for_request("double", int, returns=int)
    second.reject("enough")
    await ctx.wait_for_event("stop")


async def speaks(ctx, _input: int) -> None:
    for word in ("a", "b", "c"):
        ctx.publish("words/1", {"word": word})


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("watch", watch)
    .register("fails", fails)
    .register("asks", asks)
    .register("speaks", speaks)
    .build()
)


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Site:
    """A client of the API, which compares each answer with what the document promises."""

    def __init__(self, app, http):
        self.app, self.http = app, http
        self.document = app.openapi()
        self.paths = {
            re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + r"\Z"): operations
            for path, operations in self.document["paths"].items()
        }

    async def send(self, method, path, status=200, **options):
        prefix = "" if path in ("/live", "/ready") else API
        answer = await self.http.request(method, prefix + path, **options)
        assert answer.status_code == status, answer.text
        self._check(method, prefix + path, answer)
        return answer.json() if answer.content else None

    async def get(self, path, status=200, **options):
        return await self.send("GET", path, status, **options)

    async def post(self, path, body=None, status=200, **options):
        return await self.send("POST", path, status, json=body, **options)

    def _check(self, method, path, answer):
        operations = [
            known[method.lower()]
            for pattern, known in self.paths.items()
            if pattern.match(path.partition("?")[0]) and method.lower() in known
        ]
        responses = operations[-1]["responses"]
        response = responses.get(str(answer.status_code), responses["default"])
        content = response.get("content")
        if content is None:
            assert not answer.content
            return
        ((media_type, promised),) = content.items()
        assert answer.headers["content-type"] == media_type
        schema = {**promised["schema"], "components": self.document["components"]}
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(
            answer.json()
        )


@pytest.fixture
async def env():
    async with TestRuntime(REGISTRY, start=datetime(2026, 3, 1, tzinfo=UTC)) as env:
        yield env


@pytest.fixture
async def site(env):
    app = create_app(env.client, registry=REGISTRY)
    async with reach(app) as http:
        yield Site(app, http)


pytestmark = pytest.mark.anyio


# --- looking ----------------------------------------------------------------------------------


async def test_an_instance_is_started_found_and_looked_at(site, env):
    started = await site.post(
        "/instances",
        {"name": "watch", "input": 1, "instance_id": "a/b c", "labels": {"plan": "pro"}},
        201,
    )
    assert (started["instance_id"], started["input"]) == ("a/b c", 1)
    await env.run_until_idle()
    path = "/instances/a%2Fb%20c"
    info = await site.get(path)
    assert (info["status"], info["waiting_on"][0]["name"]) == ("running", "go")
    assert "input" not in info
    assert (await site.get(path, params={"include": ["input", "output"]}))["input"] == 1
    found = await site.post("/instances/search", {"selection": {"labels": {"plan": "pro"}}})
    assert [one["instance_id"] for one in found["items"]] == ["a/b c"]
    assert (await site.post("/instances/search", {"selection": {"name": "fails"}}))["items"] == []
    assert [event["kind"] for event in await site.get(f"{path}/history")] == [
        "execution_started",
        "event_awaited",
    ]
    await site.post(f"{path}/events", {"name": "go", "payload": "x"}, 202)
    await env.run_until_idle()
    laps = await site.get(f"{path}/executions")
    assert [(lap["execution_id"], lap["status"]) for lap in laps] == [
        (1, "continued_as_new"),
        (2, "running"),
    ]
    assert await site.get(f"{path}/executions", params={"after": 2}) == []


async def test_an_instance_is_watched_until_its_end(site, env):
    await site.post("/instances", {"name": "fails", "input": 1, "instance_id": "f"}, 201)
    await env.run_until_idle()
    answer = await site.http.get(f"{API}/instances/f/watch")
    assert answer.headers["content-type"].startswith("text/event-stream")
    (event,) = [line for line in answer.text.splitlines() if line]
    assert json.loads(event.removeprefix("data: "))["status"] == "failed"
    await site.get("/instances/nobody/watch", 404)


async def test_pages_follow_each_other(site):
    for number in range(5):
        body = {"name": "watch", "input": 1, "instance_id": f"w-{number}"}
        await site.post("/instances", body, 201)
    body = {"order_by": "id", "limit": 2}
    seen = []
    while True:
        page = await site.post("/instances/search", body)
        seen += [one["instance_id"] for one in page["items"]]
        if page["next_page"] is None:
            break
        body["page"] = page["next_page"]
    assert seen == [f"w-{number}" for number in range(5)]
    counts = await site.post("/instances/count", {"group_by": ["name"]})
    groups = [{"values": {"name": "watch"}, "count": 5}]
    assert counts == {"total": 5, "groups": groups, "searched": None}
    bounded = await site.post("/instances/count", {"selection": {"id_prefix": "w"}, "at_most": 3})
    assert bounded["total"] == 3


async def test_messages_are_listed_and_dropped(site):
    await site.post("/instances", {"name": "watch", "input": 1, "instance_id": "w"}, 201)
    for name in ("noise", "noise", "other"):
        await site.post("/instances/w/events", {"name": name, "payload": {"deep": [1]}}, 202)
    waiting = await site.get("/instances/w/messages")
    assert [one["name"] for one in waiting] == ["noise", "noise", "other"]
    dropped = await site.post("/instances/w/messages/drop", {"name": "noise", "reason": "noise"})
    assert dropped == {"count": 2}


async def test_a_request_is_answered_rejected_or_times_out(site, env):
    await site.post("/instances", {"name": "asks", "input": 1, "instance_id": "a"}, 201)
    waiting = {"selection": {"waiting_on": {"kind": "request", "name": "double"}}}
    await env.run_until_idle()
    found = (await site.post("/instances/search", waiting))["items"]
    assert [one["instance_id"] for one in found] == ["a"]
    waiting["selection"]["waiting_on"]["kind"] = "event"
    assert (await site.post("/instances/search", waiting))["items"] == []
    body = {"name": "double", "value": 4, "request_id": "r-1"}
    assert await site.post("/instances/a/requests", body) == {"value": 8}
    assert await site.post("/instances/a/requests", body) == {"value": 8}
    problem = await site.post("/instances/a/requests", {"name": "double", "value": 5}, 422)
    assert problem["title"] == "RequestRejected"
    late = {"name": "other", "timeout": 0, "request_id": "r-3"}
    problem = await site.post("/instances/a/requests", late, 504)
    assert (problem["title"], problem["request_id"]) == ("WaitTimeout", "r-3")


async def test_nodes_versions_and_health(site):
    (node,) = await site.get("/nodes")
    assert node["alive"] is True
    versions = await site.get("/versions", params={"name": "watch"})
    assert [(one["version"], one["is_target"]) for one in versions] == [("1.0.0", True)]
    assert (await site.get("/preflight"))["findings"] == []
    summary = await site.get("/summary")
    assert (summary["live"], summary["versions"]) == (0, await site.get("/versions"))
    assert await site.get("/live") == {"status": "live", "nodes": None}
    assert await site.get("/ready") == {"status": "ready", "nodes": 1}


# --- acting -----------------------------------------------------------------------------------


async def test_acts_on_one_instance_are_recorded_with_who_asked(site, env):
    await site.post("/instances", {"name": "watch", "input": 1, "instance_id": "w"}, 201)
    await env.run_until_idle()
    await site.post("/instances/w/hold", {"reason": "the feed is down"}, 204)
    info = await site.get("/instances/w")
    assert (info["status"], info["hold"]["detail"]) == ("held", "the feed is down")
    await site.post("/instances/w/release", None, 204)
    await site.post("/instances/w/pin", {"version": "1.0.0", "until": "2026-04-01T00:00:00Z"}, 204)
    await site.post("/instances/w/unpin", None, 204)
    assert await site.post("/instances/w/nudge") == {"asked": True}
    labels = await site.post("/instances/w/labels", {"labels": {"plan": "pro", "gone": None}})
    assert labels == {"plan": "pro"}
    rewound = await site.post("/instances/w/rewind", {"execution_id": 1})
    assert rewound["execution_id"] == 2
    await site.post("/instances/w/cancel", {"reason": "enough"}, 204)
    await site.post("/instances/w/terminate", None, 409)
    again = await site.post("/instances/w/rerun", {"instance_id": "w-2"}, 201)
    assert again["instance_id"] == "w-2"
    await site.send("DELETE", "/instances/w", 204, params={"reason": "gone"})
    done = await site.get("/operations", params={"subject": "w"})
    actions = [(one["action"], one["by"]) for one in reversed(done["items"])]
    assert actions[0] == ("hold", "localhost")
    assert [action for action, _ in actions][-1] == "delete"


async def test_a_bulk_act_is_a_dry_run_unless_it_says_otherwise(site):
    for number in range(3):
        body = {"name": "watch", "input": 1, "instance_id": f"w-{number}"}
        await site.post("/instances", body, 201)
    act = {"act": "hold", "selection": {"name": "watch"}, "reason": "r"}
    planned = await site.post("/bulk", act)
    assert (planned["dry_run"], planned["matched"], planned["changed"]) == (True, 3, 0)
    done = await site.post("/bulk", {**act, "dry_run": False})
    assert (done["changed"], done["failed"]) == (3, 0)
    failed = await site.post("/bulk", {**act, "act": "delete", "dry_run": False})
    assert failed["failed"] + failed["skipped"] == 3


async def test_ended_instances_are_purged(site, env):
    await site.post("/instances", {"name": "fails", "input": 1, "instance_id": "f"}, 201)
    await env.run_until_idle()
    await env.advance(timedelta(days=2))
    body = {"completed_before": "2026-03-02T00:00:00Z"}
    assert (await site.post("/purge", body))["instance_ids"] == ["f"]
    assert (await site.post("/purge", {**body, "dry_run": False}))["count"] == 1
    await site.get("/instances/f", 404)


async def test_a_policy_is_set_only_if_it_is_as_it_was_read(site):
    answer = await site.http.get(f"{API}/policies/watch")
    tag = answer.headers["etag"]
    body = {"policy": "exact:1.0.0", "reason": "calm"}
    changed = await site.send("PUT", "/policies/watch", json=body, headers={"If-Match": tag})
    assert changed["policy"] == "exact:1.0.0"
    late = {"policy": "latest"}
    problem = await site.send("PUT", "/policies/watch", 412, json=late, headers={"If-Match": tag})
    assert problem["title"] == "PolicyChangedMeanwhile"
    assert (await site.send("PUT", "/policies/watch", 422, json={"policy": "newest"}))["title"]
    history = await site.get("/policies/watch/history")
    assert history[0]["reason"] == "calm"


async def test_a_dry_run_says_what_an_act_would_do_and_does_nothing(site, env):
    await site.post("/instances", {"name": "watch", "input": 1, "instance_id": "w"}, 201)
    await site.post("/instances", {"name": "fails", "input": 1, "instance_id": "f"}, 201)
    await env.run_until_idle()
    dry = {"dry_run": True, "reason": "r"}
    bodies = {"pin": {"version": "1.0.0"}, "rewind": {"execution_id": 1}}
    open_acts = ("cancel", "terminate", "hold", "pin", "nudge", "rewind", "rerun")
    for act in open_acts:
        planned = await site.post(f"/instances/w/{act}", {**dry, **bodies.get(act, {})})
        assert (planned["act"], planned["would_change"], planned["dry_run"]) == (act, True, True)
    for act, why in {
        "release": "nothing holds it",
        "unpin": "it has no pin",
    }.items():
        planned = await site.post(f"/instances/w/{act}", dry)
        assert (planned["would_change"], planned["detail"]) == (False, why)
    for act in ("cancel", "terminate", "hold", "nudge"):
        assert (await site.post(f"/instances/f/{act}", dry))["would_change"] is False
    path, params = "/instances/{}", {"dry_run": True}
    planned = await site.send("DELETE", path.format("w"), 200, params=params)
    assert planned["detail"] == "it has not ended; terminate it first"
    planned = await site.send("DELETE", path.format("f"), 200, params=params)
    assert planned["would_change"] is True
    assert (await site.get("/operations"))["items"] == []
    for act, done in {
        "hold": "localhost holds it already",
        "pin": "it is pinned to 1.0.0 already",
        "nudge": "it was asked before",
        "cancel": "a cancel was requested before",
    }.items():
        body = bodies.get(act, {})
        await site.post(f"/instances/w/{act}", body, 200 if act == "nudge" else 204)
        assert (await site.post(f"/instances/w/{act}", {**dry, **body}))["detail"] == done
    await site.post("/instances/nobody/hold", dry, 404)


async def test_each_act_is_recorded_with_its_reason(site, env):
    await site.post("/instances", {"name": "watch", "input": 1, "instance_id": "w"}, 201)
    await env.run_until_idle()
    why = {"reason": "because"}
    await site.post("/instances/w/hold", why, 204)
    await site.post("/instances/w/release", why, 204)
    await site.post("/instances/w/pin", {"version": "1.0.0", **why}, 204)
    await site.post("/instances/w/unpin", why, 204)
    await site.post("/instances/w/nudge", why)
    await site.post("/instances/w/labels", {"labels": {"a": "b"}, **why})
    await site.post("/instances/w/rewind", {"execution_id": 1, **why})
    await site.post("/instances/w/rerun", {"instance_id": "w-2", **why}, 201)
    await site.post("/instances/w/cancel", why, 204)
    await env.run_until_idle()
    await site.send("DELETE", "/instances/w", 204, params=why)
    await site.post("/instances/w-2/terminate", why, 204)
    body = {"completed_before": "2027-01-01T00:00:00Z", "dry_run": False, **why}
    assert (await site.post("/purge", body))["count"] == 1
    done = (await site.get("/operations"))["items"]
    assert {(one["by"], one["details"]["reason"]) for one in done} == {("localhost", "because")}
    assert len(done) >= 12


async def test_a_misspelt_condition_selects_nothing_rather_than_everything(site):
    await site.post("/instances", {"name": "watch", "input": 1, "instance_id": "w"}, 201)
    wrong = {"selection": {"nmae": "other"}}
    for path, body in {
        "/instances/search": wrong,
        "/instances/count": wrong,
        "/bulk": {"act": "terminate", "dry_run": False, **wrong},
        "/instances/w/hold": {"raeson": "r"},
    }.items():
        assert (await site.post(path, body, 422))["title"] == "InvalidRequest"
    for selection in ('{"nmae": "x"}', '{"name": 1}', "[", '{"held": "nonsense"}'):
        problem = await site.get("/watch", 422, params={"selection": selection})
        assert problem["title"] in ("DecodeError", "InvalidArgument")


async def test_the_state_and_the_history_of_a_lap_come_on_demand(site, env):
    await site.post("/instances", {"name": "watch", "input": 1, "instance_id": "w"}, 201)
    await site.post("/instances/w/events", {"name": "go", "payload": "x"}, 202)
    await env.run_until_idle()
    plain = await site.get("/instances/w")
    assert not {"input", "output", "state", "history"} & set(plain)
    whole = await site.get("/instances/w", params={"include": "input,state,output,history"})
    assert (whole["input"], whole["state"], whole["output"]) == (2, 2, None)
    assert [one["kind"] for one in whole["history"]] == ["execution_started", "event_awaited"]
    assert (await site.get("/instances/w", params={"include": ["state"]}))["state"] == 2
    await site.get("/instances/w", 422, params={"include": "everything"})
    new = OrchestrationRegistry.builder().register("watch", watch)
    new.register("watch", watch, version="2.0.0").migrate("watch", "2.0.0", tenfold)
    await env.upgrade(new.build())
    await site.post("/instances/w/events", {"name": "go", "payload": "x"}, 202)
    await env.run_until_idle()
    whole = await site.get("/instances/w", params={"include": "input,state"})
    assert (whole["version"], whole["input"], whole["state"]) == ("2.0.0", 3, 30)


def tenfold(state: int) -> int:
    return state * 10


async def test_cursors_are_opaque_and_a_wrong_one_is_a_problem(site):
    for number in range(3):
        body = {"name": "watch", "input": 1, "instance_id": f"w-{number}"}
        await site.post("/instances", body, 201)
        await site.post(f"/instances/w-{number}/hold", None, 204)
    page = await site.post("/instances/search", {"limit": 1})
    assert "w-" not in page["next_page"]
    seen, cursor = [], None
    while True:
        params = {"limit": 1} | ({} if cursor is None else {"page": cursor})
        found = await site.get("/operations", params=params)
        seen += [one["subject"] for one in found["items"]]
        cursor = found["next_page"]
        if cursor is None:
            break
        assert re.fullmatch(r"[\w-]+", cursor)
    assert seen == ["w-2", "w-1", "w-0"]
    for wrong in ("!", "\u00e9", "AAAA", "x:y"):
        body = {"page": wrong}
        assert (await site.post("/instances/search", body, 422))["title"] == "InvalidArgument"
        await site.get("/operations", 422, params={"page": wrong})
        await site.get("/schedules", 422, params={"page": wrong})
    await site.post("/instances/search", {"limit": 100_000}, 422)


async def test_a_list_is_watched(site, env):
    await site.post("/instances", {"name": "watch", "input": 1, "instance_id": "w"}, 201)
    await env.run_until_idle()
    changes, asked = [], {"selection": json.dumps({"name": "watch", "held": False})}

    async def read():
        messages = []

        async def send(message):
            for line in message.get("body", b"").splitlines():
                if line.startswith(b"data: "):
                    messages.append(json.loads(line[6:]))
                    if messages[-1]["change"] == "entered":
                        await env.client.hold("w")
                    if messages[-1]["change"] == "left":
                        scope.cancel()

        query = httpx.QueryParams(asked)
        request = {
            "type": "http", "method": "GET", "path": f"{API}/watch", "headers": [(b"host", b"localhost")],
            "raw_path": f"{API}/watch".encode(), "query_string": str(query).encode(),
            "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http",
            "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"},
        }  # fmt: skip

        async def receive():
            await anyio.sleep_forever()

        with anyio.CancelScope() as scope:
            await site.app(request, receive, send)
        changes.extend(messages)

    with anyio.fail_after(30):
        await read()
    assert [(one["change"], one["instance_id"]) for one in changes] == [
        ("entered", "w"),
        ("left", "w"),
    ]
    assert changes[0]["info"]["status"] == "running"


# --- schedules and streams --------------------------------------------------------------------


async def test_schedules_are_looked_at_paused_and_triggered(site, env):
    spec = Cron("0 9 * * *", "Europe/Berlin") | Every(timedelta(hours=6))
    await env.client.schedules.create(Schedule("day/1", spec, Start("watch", 1)))
    path = "/schedules/day%2F1"
    answer = await site.http.get(API + path)
    tag, info = answer.headers["etag"], await site.get(path)
    assert (info["verdict"], info["schedule"]["action"]["name"]) == ("never_ran", "watch")
    assert len(await site.get(f"{path}/preview", params={"count": 3})) == 3
    paused = await site.post(f"{path}/pause", {"reason": "calm"}, headers={"If-Match": tag})
    assert paused["pause"]["by"] == "localhost"
    problem = await site.post(f"{path}/pause", {}, 412, headers={"If-Match": tag})
    assert problem["title"] == "ScheduleChangedMeanwhile"
    assert (await site.post(f"{path}/resume", {"catch_up": True}))["pause"] is None
    assert (await site.post(f"{path}/trigger", {}))["outcome"] == "fired"
    interval = {"start": "2026-02-27T00:00:00Z", "end": "2026-02-28T00:00:00Z"}
    assert len((await site.post(f"{path}/backfill", interval))["slots"]) == 6
    (listed,) = (await site.get("/schedules"))["items"]
    assert listed["counters"]["fired"] == 1
    await site.send("DELETE", path, 204)
    await site.get(path, 404)


async def test_schedules_are_defined_in_the_form_in_which_they_are_shown(site, env):
    await env.client.schedules.create(
        Schedule("model", Cron("0 9 * * *", "Europe/Berlin"), Start("watch", 1))
    )
    shown = (await site.get("/schedules/model"))["schedule"]
    body = {"id": "day/1", "spec": shown["spec"], "action": {"name": "watch", "input": 2}}
    body |= {"overlap": "buffer_one", "jitter": 60, "reason": "asked for"}
    made = await site.post("/schedules", body, 201)
    assert made["schedule"]["spec"] == shown["spec"]
    assert (made["schedule"]["jitter"], made["schedule"]["overlap"]) == (60.0, "buffer_one")
    assert (await site.post("/schedules", body, 409))["title"] == "ScheduleExists"
    path = "/schedules/day%2F1"
    tag = (await site.http.get(API + path)).headers["etag"]
    tick = {"instance_id": "w", "name": "tick", "kind": "event"}
    body = {"spec": {"kind": "every", "period": 3_600_000_000}, "action": tick}
    changed = await site.send("PUT", path, json=body, headers={"If-Match": tag})
    assert changed["schedule"]["action"]["instance_id"] == "w"
    problem = await site.send("PUT", path, 412, json=body, headers={"If-Match": tag})
    assert problem["title"] == "ScheduleChangedMeanwhile"
    await site.send("PUT", path, 200, json=body, headers={"If-Match": "*"})
    await site.send("PUT", path, 412, json=body, headers={"If-Match": "W/x"})
    await site.send("PUT", path, 422, json={**body, "id": "other"})
    await site.send("PUT", path, 422, json={**body, "spec": {"kind": "moon"}})
    await site.send("PUT", path, 422, json={**body, "catch_up_window": 1e300})
    await site.send("PUT", "/schedules/nobody", 404, json=body)
    await site.post("/schedules", body, 422)
    done = (await site.get("/operations", params={"subject": "day/1"}))["items"]
    assert done[-1]["details"]["reason"] == "asked for"


async def test_a_stream_is_read_as_events_behind_the_last_one_that_was_seen(site, env):
    await site.post("/instances", {"name": "speaks", "input": 1, "instance_id": "s"}, 201)
    await env.run_until_idle()
    (stream,) = await site.get("/instances/s/streams")
    assert (stream["name"], stream["last_offset"]) == ("words/1", 3)
    path = f"{API}/instances/s/streams/words%2F1"
    answer = await site.http.get(path, headers={"Last-Event-ID": "1"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    numbers = [line for line in answer.text.splitlines() if line.startswith("id: ")]
    assert numbers == ["id: 2", "id: 3"]
    assert '"word":"b"' in answer.text
    assert (await site.http.get(path, headers={"Last-Event-ID": "x"})).status_code == 422
    assert (await site.http.get(f"{API}/instances/nobody/streams/x")).status_code == 404


# --- errors -----------------------------------------------------------------------------------


async def test_errors_are_problems_with_the_name_of_the_typed_error(site):
    problem = await site.get("/instances/nobody", 404)
    assert (problem["title"], problem["instance_id"]) == ("InstanceNotFound", "nobody")
    body = {"name": "watch", "input": 1, "instance_id": "w"}
    await site.post("/instances", body, 201)
    assert (await site.post("/instances", body, 409))["title"] == "InstanceExists"
    unknown = await site.post("/instances", {"name": "nothing"}, 404)
    assert unknown["title"] == "UnknownOrchestration"
    for one in (problem, unknown):
        assert one["remedy"]
    misfit = await site.post("/instances/search", {"limit": "many"}, 422)
    assert "limit" in misfit["detail"]
    assert (await site.post("/instances/w/release", None, 409))["title"] == "InstanceNotHeld"
    answer = await site.http.get("/nowhere")
    assert answer.headers["content-type"] == "application/problem+json"


# --- who may ----------------------------------------------------------------------------------


async def test_without_auth_only_this_machine_is_answered(env):
    app = create_app(env.client)
    path = f"{API}/nodes"
    async with reach(app) as near, reach(app, host="192.0.2.7") as far:
        assert (await near.get(path)).status_code == 200
        assert (await far.get(path)).status_code == 403
        # A page of another site, through the operator's browser.
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            assert (await near.get(path, headers=headers)).status_code == 403
        assert (await far.get("/live")).status_code == 200


async def test_auth_names_the_operator_or_refuses(env):
    async def who(request):
        known = request.headers.get("authorization") == "secret"
        return Principal("ann", {"operate"}) if known else None

    await env.client.start("watch", 1, instance_id="w")
    async with reach(create_app(env.client, auth=who), host="192.0.2.7") as http:
        path = f"{API}/instances/w/hold"
        assert (await http.post(path)).status_code == 401
        known = {"Authorization": "secret"}
        assert (await http.post(path, headers=known)).status_code == 204
    (done,) = (await env.client.list_operations(subject="w")).items
    assert (done.action, done.by) == ("hold", "ann")


async def test_it_is_mounted_in_a_service(env):
    await env.client.start("watch", 1, instance_id="a/b")
    service = FastAPI()
    service.mount("/orchestra", create_app(env.client))
    async with reach(service) as http:
        answer = await http.get(f"/orchestra{API}/instances/a%2Fb")
        assert answer.json()["instance_id"] == "a/b"
        document = (await http.get("/orchestra/openapi.json")).json()
        assert document["openapi"].startswith("3.1")
