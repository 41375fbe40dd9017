"""What each page of the dashboard says about a store with held, overdue, rewound, migrated, failed
and waiting instances, and what its forms do.
"""

from datetime import timedelta
from urllib.parse import quote

import pytest

from orchestra import Every, Runtime, Schedule, SqliteProvider, Start
from orchestra.web import create_app
from tests.support.dashboard import Watch1, furnish, read, registry, table
from tests.support.web import reach, submit

pytestmark = pytest.mark.anyio


def of(page, prefix):
    """Return the ids that a page links to."""
    return [link.removeprefix(prefix) for link in page.links if link.startswith(prefix)]


class TestOverview:
    async def test_it_counts_versions_holds_boundaries_and_nodes(self, env, http):
        await furnish(env)
        await env.advance(timedelta(hours=3))
        page = await read(http, "/")
        text = str(page)
        for words in ("5 live", "2 held", "3 overdue", "1 failed in 24 h", "1 node alive"):
            assert words in text
        assert page.picture("bars").startswith("live instances: watch: 3 on 2.0.0; ")
        assert "operator 1" in text
        assert "error 1" in text
        assert "ann hold paused calm" in text
        summary = await table(http, "/", "summary")
        assert summary["held_by_kind"] == {"operator": 1, "error": 1}
        assert summary["boundaries"]["overdue"] == 3

    async def test_rates_come_with_the_second_look(self, env, http):
        await furnish(env)
        assert "Rates appear once" in str(await read(http, "/"))
        await env.client.start("breaks", "failure", instance_id="another")
        await env.advance(timedelta(minutes=1))
        text = str(await read(http, "/"))
        assert "started a minute 1.0" in text
        assert "ended a minute 1.0" in text

    async def test_an_empty_store_is_explained(self, env, http):
        text = str(await read(http, "/"))
        assert "Nothing is live." in text
        assert "Nothing is held." in text
        assert "No lap is open." in text


class TestInstances:
    async def test_the_url_is_the_filter_and_lists_have_pages(self, env, http):
        for number in range(51):
            await env.client.start(
                "watch", Watch1("u"), instance_id=f"w-{number:02}", labels={"plan": "pro"}
            )
        await env.client.start("breaks", "failure", instance_id="f")
        await env.run_until_idle()
        page = await read(http, "/instances?label=plan%3Dpro&order_by=id")
        assert of(page, "/instances/")[0] == "w-00"
        assert len(of(page, "/instances/")) == 50
        (following,) = [link for link in page.links if "page=" in link and "json" not in link]
        rest = await read(http, f"/instances{following}")
        assert of(rest, "/instances/") == ["w-50"]
        failed = await read(http, "/instances?status=failed")
        assert of(failed, "/instances/") == ["f"]
        assert [
            one["instance_id"] for one in await table(http, "/instances?status=failed", "instances")
        ] == ["f"]
        for wrong in (
            "held=nonsense",
            "label=plan",
            "overdue=maybe",
            "waiting_longer=long",
            "created_after=2026-03-01",
            "order_by=luck",
        ):
            assert "InvalidArgument" in str(await read(http, f"/instances?{wrong}", 422))

    async def test_conditions_about_waits_and_moments(self, env, http):
        await furnish(env)
        await env.advance(timedelta(hours=1))

        async def found(query):
            return of(await read(http, f"/instances?{query}"), "/instances/")

        assert await found("waiting_on=child:watch") == ["parent"]
        assert await found("waiting_on=child:watch&waiting_longer=2h") == []
        assert await found("waiting_longer=30min&name=ships") == ["parent"]
        assert await found("held=error") == ["error"]
        assert await found("held=any&order_by=id") == ["error", "paused"]
        assert await found("drifting=1&status=live") == []
        assert await found("target_version=2.0.0&id_prefix=pau") == ["paused"]
        assert await found("created_before=2026-03-01T00:00Z") == []

    async def test_tabs_count_what_the_store_keeps_and_the_rest_on_demand(self, env, http):
        await furnish(env)
        text = str(await read(http, "/instances"))
        for tab in ("all 6", "live 5", "held 2", "failed 1", "completed 0"):
            assert tab in text
        filtered = str(await read(http, "/instances?name=breaks"))
        assert "all live pending" in filtered
        counts = (await http.get("/counts?name=breaks&format=json")).json()["counts"]
        assert (counts["all"], counts["held"], counts["failed"], counts["running"]) == (2, 1, 1, 0)
        await read(http, "/counts?held=nonsense", 422)

    async def test_a_search_that_has_ended_says_so_and_goes_on(self, tmp_path, monkeypatch):
        monkeypatch.setattr("orchestra.web.dashboard.instances.SEARCHED", 2)
        store = SqliteProvider(tmp_path / "a.db")
        async with Runtime(store, registry()) as runtime, reach(create_app(runtime.client)) as http:
            for number in range(3):
                await runtime.client.start("watch", Watch1("u"), instance_id=f"w-{number}")
            page = await read(http, "/instances?id_prefix=w-0")
            assert "has looked at 2 instances, and none of them meets the filter" in str(page)
            (further,) = [link for link in page.links if "page=" in link]
            assert "w-0" in str(await read(http, f"/instances{further}"))
            asked = "/counts?id_prefix=w-0&format=json"
            counts = (await http.get(asked)).json()
            assert (counts["searched"], counts["counts"]["all"]) == (2, 0)

    async def test_many_are_acted_on_after_a_look(self, env, http):
        for number in range(3):
            await env.client.start("watch", Watch1("u"), instance_id=f"w-{number}")
        form = {"act": "hold", "reason": "r"}
        planned = await submit(http, "/instances?name=watch", form)
        assert "would act on <b>3</b>" in planned.text
        assert (await env.client.count_instances(held=True)).total == 0
        done = await submit(http, "/instances?name=watch", {**form, "do": "yes"})
        assert "3 changed" in done.text
        assert (await env.client.count_instances(held=True)).total == 3
        assert (await submit(http, "/instances", {"act": "explode"})).status_code == 422
        missing = await submit(http, "/instances?name=watch", {"act": "pin", "do": "yes"})
        assert (missing.status_code, "version" in missing.text) == (422, True)

    async def test_lists_that_are_empty_say_why(self, env, http):
        assert "There is no instance yet." in str(await read(http, "/instances"))
        assert "Nothing meets the filter." in str(await read(http, "/instances?name=nobody"))


class TestInstance:
    async def test_it_is_drawn_with_its_laps_its_waits_and_its_changes(self, env, http):
        await furnish(env)
        page = await read(http, "/instances/w")
        text = str(page)
        assert page.picture("ribbon") == (
            "laps 1 to 6, on 1.0.0, 2.0.0; upgrade at lap 3; migration at lap 3, 5; rewind at lap 4"
        )
        assert page.picture("timeline").startswith("event go open")
        assert "Next version 2.0.0" in text
        assert "lap 6 on 2.0.0, running" in text
        boundaries = await table(http, "/instances/w", "boundaries")
        assert [one["lap"] for one in boundaries] == [6, 5, 4, 3, 2]
        assert boundaries[1]["is_rewind"]
        assert boundaries[3]["differences"] == [
            {"field": "laps", "before": 1, "after": 2, "is_migrated": False},
            {"field": "owner", "before": None, "after": "ops", "is_migrated": True},
        ]
        assert [one["field"] for one in boundaries[2]["differences"]] == ["laps"], (
            "against the migrated state"
        )
        assert "migrated" in text
        assert "progress" in text
        assert "plan=pro" in text

    async def test_another_lap_is_one_link_away(self, env, http):
        await furnish(env)
        page = await read(http, "/instances/w")
        assert "/instances/w?lap=1" in page.links
        first = await read(http, "/instances/w?lap=1")
        assert "Lap 1" in str(first)
        assert first.picture("timeline").startswith("activity probe completed")
        assert "Retention has deleted that lap." in str(await read(http, "/instances/w?lap=99"))

    async def test_a_hold_says_why_and_what_releases_it(self, env, http):
        await furnish(env)
        text = str(await read(http, "/instances/error"))
        assert "Held: error" in text
        assert "KeyError" in text
        assert "It goes on once code of this version that differs is deployed" in text
        paused = await read(http, "/instances/paused")
        assert "is held" in paused.picture("ribbon")

    async def test_inbox_children_and_origin_are_shown(self, env, http):
        await furnish(env)
        page = await read(http, "/instances/parent")
        text = str(page)
        assert "leave it at the door" in text
        (child,) = (await env.client.get_instance_info("parent")).children
        assert f"/instances/{child.instance_id}" in page.links
        assert "Child of parent" in str(await read(http, f"/instances/{child.instance_id}"))

    async def test_forms_act_and_show_the_instance_again(self, env, http):
        await env.client.start("watch", Watch1("u"), instance_id="a/b")
        await env.run_until_idle()
        path = f"/instances/{quote('a/b', safe='')}"

        async def act(name, status=303, **form):
            answer = await submit(http, f"{path}/act", {"act": name, **form})
            assert answer.status_code == status, answer.text
            return answer

        answer = await act("hold", reason="calm")
        assert answer.headers["location"] == f"{path}?said=hold"
        text = str(await read(http, answer.headers["location"]))
        assert "Held: operator" in text
        assert "calm" in text
        assert "It is held" in text
        await act("release", reason="over")
        freed = await read(http, path)
        assert "held by an operator at lap 1" in freed.picture("ribbon")
        refused = await act("release", 409)
        assert "InstanceNotHeld" in refused.text
        await act("pin", version="1.0.0", until="2026-03-02T12:00", reason="r")
        assert (await env.client.get_instance_info("a/b")).pinned_version == "1.0.0"
        await act("pin", 422, version="luck")
        await act("pin", 422, version="1.0.0", until="soon")
        await act("unpin")
        await act("nudge")
        await act("labels", key="plan", value="pro")
        assert (await env.client.get_instance_info("a/b")).labels == {"plan": "pro"}
        await act("rewind", execution="1")
        assert (await env.client.get_instance_info("a/b")).execution_id == 2
        await act("rewind", 422)
        await act("explode", 422)
        rerun = await act("rerun", instance_id="again", reason="once more")
        assert rerun.headers["location"] == "/instances/again?said=rerun"
        await act("cancel")
        await env.run_until_idle()
        deleted = await act("delete")
        assert deleted.headers["location"] == "/instances?said=delete"
        await read(http, path, 404)
        acts = [one["action"] for one in await table(http, "/audit", "operations")]
        assert {"hold", "release", "pin", "unpin", "rewind", "rerun", "cancel", "delete"} <= set(
            acts
        )

    async def test_events_and_requests_are_sent_with_their_payloads(self, env, http):
        await env.client.start("cart", 1, instance_id="c")
        await env.run_until_idle()
        answered = await submit(
            http, "/instances/c/act", {"act": "request", "name": "add", "payload": "41"}
        )
        assert answered.status_code == 200
        assert "The request was answered:" in answered.text
        assert ">42<" in answered.text
        page = await read(http, "/instances/c")
        assert "Ask add" in str(page)
        (field,) = [one for one in page.of("input") if one.get("name") == "field.value"]
        assert field["inputmode"] == "decimal"
        sent = {"act": "request", "name": "add", "field.value": "8"}
        assert ">50<" in (await submit(http, "/instances/c/act", sent)).text
        wrong = await submit(http, "/instances/c/act", {**sent, "field.value": "many"})
        assert wrong.status_code == 422
        assert "value takes a number" in wrong.text or "no JSON" in wrong.text
        assert 'value="many"' in wrong.text, "what was written is still there"
        event = {"act": "event", "name": "hello", "payload": '{"a": [1, null]}'}
        assert (await submit(http, "/instances/c/act", event)).status_code == 303
        (message,) = await env.client.list_messages("c")
        assert message.payload == {"a": [1, None]}
        wrong = await submit(http, "/instances/c/act", {**event, "payload": "plain text"})
        assert wrong.status_code == 422
        assert "text stands in quotes" in wrong.text
        assert "plain text" in wrong.text, "what was written is still there"

    async def test_a_trace_is_linked_where_the_service_says_how(self, env, app, http):
        await furnish(env)
        assert "trace" not in [one.get("id") for one in (await read(http, "/instances/w")).of("a")]
        app.state.trace_url = (
            "https://traces.example/{instance_id}/{execution_id}?from={from_ms}&x={no}"
        )
        (link,) = [
            one for one in (await read(http, "/instances/w")).of("a") if one.get("id") == "trace"
        ]
        assert link["href"].startswith("https://traces.example/w/6?from=17")
        assert link["href"].endswith("&x=%7Bno%7D")

    async def test_a_loop_of_many_laps_reads_the_last_ones_and_probes_the_rest(self, env, http):
        handle = await env.client.start("cart", 0, instance_id="c")
        for number in range(1, 251):
            await env.client.request(handle.instance_id, "add", 1, request_id=f"r-{number}")
        laps = await table(http, "/instances/c", "laps")
        assert [laps[0]["execution_id"], laps[-1]["execution_id"], len(laps)] == [52, 251, 200]
        page = await read(http, "/instances/c")
        assert page.picture("ribbon") == "laps 52 to 251, on 1.0.0; laps 1 to 51 before that"
        assert "laps 1 to 3, from 1.0.0 on" in str(page)


class TestHeldAndBoundaries:
    async def test_what_is_held_stands_by_its_cause(self, env, http):
        await furnish(env)
        page = await read(http, "/held")
        text = str(page)
        assert "2 instances cannot go on now" in text
        assert "The code raised an exception that is no declared failure." in text
        assert "paused watch 2.0.0 calm ann" in text
        assert "/instances?held=operator" in page.links
        groups = await table(http, "/held", "held")
        assert {one["kind"]: one["count"] for one in groups} == {"error": 1, "operator": 1}

    async def test_a_version_that_no_node_has_is_a_cause(self, env, http):
        await furnish(env)
        await env.upgrade(registry())
        text = str(await read(http, "/held"))
        assert "No living node has its version." in text

    async def test_overdue_boundaries_are_listed_and_nudged(self, env, http):
        await furnish(env)
        text = str(await read(http, "/boundaries"))
        assert "Nothing is overdue." in text
        await env.advance(timedelta(hours=3))
        page = await read(http, "/boundaries")
        assert set(of(page, "/instances/")) >= {"w"}
        assert "1 h" in str(page)
        planned = await submit(http, "/instances?overdue=1", {"act": "nudge", "reason": "r"})
        assert "would act on" in planned.text
        await submit(http, "/instances?overdue=1", {"act": "nudge", "reason": "r", "do": "yes"})
        assert (await env.client.get_instance_info("w")).boundary_requested is not None
        assert ", by localhost" in str(await read(http, "/boundaries"))

    async def test_nothing_held_is_explained(self, env, http):
        assert "An instance is held when it cannot go on" in str(await read(http, "/held"))


class TestVersions:
    async def test_they_say_what_drains_who_has_them_and_what_blocks_them(self, env, http):
        await furnish(env)
        page = await read(http, "/versions")
        text = str(page)
        assert "watch 1.0.0 drained, 0 live" in page.picture("lanes")
        assert "watch 2.0.0 target, 3 live" in page.picture("lanes")
        assert "safe to retire" in text
        assert "Starts and boundaries of 'watch' take it, under latest." in text
        assert "watch latest 0 never: the default" in text
        one = await read(http, "/versions?name=watch")
        assert "breaks" not in str(one)
        stages = {
            (one["name"], one["version"]): one for one in await table(http, "/versions", "versions")
        }
        assert stages["watch", "1.0.0"]["safe_to_retire"]

    async def test_policies_are_set_with_their_history(self, env, http):
        await furnish(env)
        form = {
            "act": "policy",
            "name": "watch",
            "policy": "exact:1.0.0",
            "reason": "calm",
            "revision": "0",
        }
        done = await submit(http, "/versions/policy", form)
        assert done.headers["location"] == "/versions?said=policy"
        text = str(await read(http, "/versions?said=policy"))
        assert "The policy is set." in text
        assert "exact:1.0.0" in text
        assert "by localhost: calm" in text
        stale = await submit(http, "/versions/policy", {**form, "policy": "exact:2.0.0"})
        assert (stale.status_code, "PolicyChangedMeanwhile" in stale.text) == (412, True)
        wrong = await submit(http, "/versions/policy", {**form, "policy": "newest"})
        assert "is no policy" in wrong.text
        assert (
            await submit(http, "/versions/policy", {**form, "revision": "x"})
        ).status_code == 422


class TestSchedules:
    async def test_they_are_listed_shown_paused_triggered_and_backfilled(self, env, http):
        made = Schedule("day/1", Every(timedelta(hours=1)), Start("cart", 0), overlap="skip")
        await env.client.schedules.create(made)
        listed = await read(http, "/schedules")
        assert "/schedules/day%2F1" in listed.links
        assert "never ran starts cart" in str(listed)
        path = "/schedules/day%2F1"

        async def act(name, status=303, **form):
            answer = await submit(http, f"{path}/act", {"act": name, **form})
            assert answer.status_code == status, answer.text
            return answer

        await env.advance(timedelta(hours=3))
        page = await read(http, path)
        assert page.picture("slots") == (
            "last slots: 1 fired, 1 skipped_overlap; the next in 1 h"
        ) or page.picture("slots").startswith("last slots: ")
        assert "skipped overlap" in str(page)
        await act("pause", reason="calm", until="2026-03-02T00:00")
        text = str(await read(http, f"{path}?said=pause"))
        assert "by localhost" in text
        assert ": calm" in text
        assert "none follows" in (await read(http, path)).picture("slots")
        await act("resume", reason="over")
        await act("trigger")
        await act("explode", 422)
        await act("backfill", 422, start="2026-03-01T00:00")
        planned = await act("backfill", 200, start="2026-02-28T00:00", end="2026-02-28T05:00")
        assert "would run <b>6</b> slots" in planned.text
        before = (await env.client.count_instances(schedule="day/1")).total
        done = await act(
            "backfill", 200, start="2026-02-28T00:00", end="2026-02-28T05:00", do="yes"
        )
        assert "6 slots" in done.text
        assert (await env.client.count_instances(schedule="day/1")).total >= before
        await read(http, "/schedules/nobody", 404)
        assert len(await table(http, path, "next_slots")) == 10

    async def test_none_is_explained(self, env, http):
        assert "There is no schedule." in str(await read(http, "/schedules"))


class TestNodesAndAudit:
    async def test_nodes_say_what_they_have_and_do(self, env, http):
        await furnish(env)
        text = str(await read(http, "/nodes"))
        assert "1 node works on this store" in text
        assert "probe" in text
        (node,) = await table(http, "/nodes", "nodes")
        assert node["orchestrations"]["watch"] == ["1.0.0", "2.0.0"]

    async def test_acts_are_filtered_and_listed_in_pages(self, env, http):
        assert "No operator has done anything yet." in str(await read(http, "/audit"))
        await furnish(env)
        for number in range(51):
            await env.client.set_labels("w", {"n": str(number)}, by="bob", reason=f"r{number}")
        page = await read(http, "/audit?by=bob")
        assert "r50" in str(page)
        (following,) = [link for link in page.links if "page=" in link and "json" not in link]
        assert "r0" in str(await read(http, f"/audit{following}"))
        assert "bad data" in str(await read(http, "/audit?subject=w&action=rewind"))
        assert "No act meets the filter." in str(await read(http, "/audit?by=nobody"))
        await read(http, "/audit?page=luck", 422)


class TestStarting:
    async def test_a_form_has_an_input_for_each_field(self, env, http):
        page = await read(http, "/start?name=order")
        names = {
            one["name"]
            for tag, one in page.tags
            if tag in {"input", "select", "textarea"} and "name" in one
        }
        assert {"field.customer", "field.total", "field.items", "field.express", "payload"} <= names
        form = {
            "act": "start", "name": "order", "instance_id": "o/1", "labels": "tier=pro, plan=a",
            "field.customer": "Ada", "field.total": "12.5", "field.items": '["pen"]',
            "field.express": "true", "field.note": "", "request_id": "r-1",
        }  # fmt: skip
        done = await submit(http, "/start", form)
        assert done.headers["location"] == "/instances/o%2F1?said=start"
        again = await submit(http, "/start", form)
        assert again.headers["location"] == done.headers["location"], "a double click starts one"
        info = await env.client.get_instance_info("o/1")
        assert info.input["customer"] == "Ada"
        assert info.input["total"] == 12.5
        assert info.input["items"] == ["pen"]
        assert info.input["express"] is True
        assert info.labels == {"tier": "pro", "plan": "a"}

    async def test_what_does_not_fit_is_refused_and_kept(self, env, http):
        form = {"act": "start", "name": "order", "field.customer": "Ada", "field.total": "much"}
        refused = await submit(http, "/start", form)
        assert refused.status_code == 422
        assert "total is no JSON" in refused.text
        assert 'value="much"' in refused.text
        wrong = await submit(
            http, "/start", {"act": "start", "name": "order", "payload": '{"customer": 7}'}
        )
        assert (wrong.status_code, "DecodeError" in wrong.text) == (422, True)
        labels = await submit(
            http, "/start", {"act": "start", "name": "cart", "field.value": "1", "labels": "x"}
        )
        assert "is no label" in labels.text

    async def test_without_the_code_the_input_is_written_as_json(self, env):
        async with reach(create_app(env.client)) as http:
            page = await read(http, "/start?name=cart")
            assert "write it as JSON" in str(page)
            form = {"act": "start", "name": "cart", "payload": "7", "instance_id": "c"}
            await submit(http, "/start", form)
            assert (await env.client.get_instance_info("c")).input == 7


async def test_ages_count_from_the_clock_of_the_store(env, http):
    await env.client.start("cart", 0, instance_id="c")
    await env.advance(timedelta(days=3))
    text = str(await read(http, "/instances"))
    assert "3 d" in text


async def test_a_loop_in_virtual_time_is_not_moved_by_pages(env, http):
    handle = await env.client.start("watch", Watch1("u"), instance_id="w")
    await env.run_until_idle()
    del handle
    before = await env.client.now()
    for path in ("/", "/instances", "/instances/w", "/held", "/boundaries", "/versions", "/nodes"):
        await read(http, path)
    assert await env.client.now() == before
