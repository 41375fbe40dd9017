"""The dashboard: what its pages say, what its forms do, and that users' text stays text."""

import re
from datetime import UTC, datetime, time, timedelta
from html.parser import HTMLParser
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from orchestra import Daily, Failure, OrchestrationRegistry, Schedule, Start
from orchestra.testing import TestRuntime
from orchestra.web import create_app
from tests.support.web import submit

pytestmark = pytest.mark.anyio

EVIL = "a/<script>alert(1)</script>&\"'"


async def watch(ctx, state: dict[str, int]) -> None:
    await ctx.wait_for_event("go")
    ctx.continue_as_new({**state, "laps": state["laps"] + 1})


async def watch_2(ctx, state: dict[str, int]) -> None:
    await ctx.schedule_timer(timedelta(minutes=5))
    await ctx.wait_for_event("go")
    ctx.continue_as_new({**state, "laps": state["laps"] + 1})


async def fails(ctx, _input: int) -> None:
    raise Failure("no luck")


FIRST = OrchestrationRegistry.builder().register("watch", watch).register("fails", fails).build()
SECOND = (
    OrchestrationRegistry.builder()
    .register("watch", watch)
    .register("watch", watch_2, version="2.0.0")
    .register("fails", fails)
    .build()
)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def env():
    async with TestRuntime(FIRST, start=datetime(2026, 3, 1, tzinfo=UTC)) as env:
        yield env


@pytest.fixture
async def http(env):
    transport = httpx.ASGITransport(create_app(env.client), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http


class Text(HTMLParser):
    """The visible text of a page, its tags, and the links in it."""

    def __init__(self, page):
        super().__init__()
        self.words, self.tags, self.links = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name == "href" and value]

    def handle_data(self, data):
        self.words.append(data)

    def __str__(self):
        return " ".join(" ".join(self.words).split())


async def read(http, path, status=200):
    answer = await http.get(path)
    assert answer.status_code == status, answer.text
    return Text(answer.text)


async def a_loop_over_an_upgrade(env, instance_id="w"):
    handle = await env.client.start("watch", {"laps": 0}, instance_id=instance_id)
    for lap in (2, 3):
        await handle.raise_event("go")
        await env.run_until(handle, execution=lap)
        if lap == 2:
            await env.upgrade(SECOND)
    return handle


async def test_the_overview_counts_versions_holds_and_nodes(env, http):
    await a_loop_over_an_upgrade(env)
    held = await env.client.start("watch", {"laps": 0}, instance_id="h")
    await held.hold(reason="the feed is down")
    page = await read(http, "/")
    text = str(page)
    assert "2 live" in text
    assert "1 held" in text
    assert "1 nodes alive" in text
    assert "operator 1" in text
    (picture,) = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert picture["aria-label"] == "live instances: watch: 2 on 2.0.0"


async def test_instances_are_filtered_by_the_url_and_listed_in_pages(env, http):
    for number in range(51):
        await env.client.start(
            "watch", {"laps": 0}, instance_id=f"w-{number:02}", labels={"plan": "pro"}
        )
    await env.client.start("fails", 1, instance_id="f")
    await env.run_until_idle()
    page = await read(http, "/instances?label=plan%3Dpro&order_by=id")
    assert "all 51" in str(page)
    assert "/instances/w-00" in page.links
    assert "/instances/f" not in page.links
    (following,) = [link for link in page.links if "page=" in link]
    rest = await read(http, f"/instances{following}")
    assert [link for link in rest.links if link.startswith("/instances/")] == ["/instances/w-50"]
    failed = await read(http, "/instances?status=failed")
    assert [link for link in failed.links if link.startswith("/instances/")] == ["/instances/f"]
    assert "no condition" in str(await read(http, "/instances?held=nonsense", 422))


async def test_an_instance_is_drawn_with_its_laps_its_waits_and_its_changes(env, http):
    await a_loop_over_an_upgrade(env)
    page = await read(http, "/instances/w")
    text = str(page)
    assert "next version: 2.0.0" in text
    pictures = {attrs["class"]: attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"}
    assert pictures["ribbon"] == "laps 1 to 3, on 1.0.0, 2.0.0"
    assert pictures["timeline"] == "timer timer open"
    assert "lap 3 on 2.0.0, running" in text
    assert "upgrade" in text
    assert "laps 0 1" in text
    assert "laps 1 2" in text
    await read(http, "/instances/nobody", 404)


async def test_forms_act_and_show_the_instance_again(env, http):
    await env.client.start("watch", {"laps": 0}, instance_id="a/b")
    await env.run_until_idle()
    path = f"/instances/{quote('a/b', safe='')}"
    answer = await submit(http, f"{path}/act", {"act": "hold", "reason": "calm"})
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    assert "operator: calm" in str(await read(http, path))
    await submit(http, f"{path}/act", {"act": "release"})
    answer = await submit(http, f"{path}/act", {"act": "release"})
    assert answer.status_code == 409
    assert 'role="alert"' in answer.text
    await submit(http, f"{path}/act", {"act": "rewind", "execution": "1"})
    assert "lap 2" in str(await read(http, path))
    assert (await submit(http, f"{path}/act", {"act": "explode"})).status_code == 422
    assert (await submit(http, f"{path}/act", {"act": "rewind"})).status_code == 422
    operations = str(await read(http, "/nodes"))
    assert re.search(r"localhost hold a/b", operations)


async def test_many_are_acted_on_after_a_look(env, http):
    for number in range(3):
        await env.client.start("watch", {"laps": 0}, instance_id=f"w-{number}")
    form = {"act": "hold", "reason": "r"}
    planned = await submit(http, "/instances?name=watch", form)
    assert "act on <b>3</b>" in planned.text
    assert (await env.client.count_instances(held=True)).total == 0
    done = await submit(http, "/instances?name=watch", {**form, "do": "yes"})
    assert "3 changed" in done.text
    assert (await env.client.count_instances(held=True)).total == 3


async def test_versions_say_what_drains_and_who_has_them(env, http):
    await a_loop_over_an_upgrade(env)
    text = str(await read(http, "/versions"))
    assert "watch 1.0.0 0 0 0" in text
    assert "safe to retire" in text
    assert "target" in text
    assert "watch latest 0" in text


async def test_schedules_are_listed_shown_paused_and_triggered(env, http):
    made = Schedule("day/1", Daily(time(9), "Europe/Berlin"), Start("watch", {"laps": 0}))
    await env.client.schedules.create(made)
    listed = await read(http, "/schedules")
    assert "/schedules/day%2F1" in listed.links
    assert "never_ran starts watch" in str(listed)
    path = "/schedules/day%2F1"
    await submit(http, f"{path}/act", {"act": "trigger"})
    assert "fired" in str(await read(http, path))
    await submit(http, f"{path}/act", {"act": "pause", "reason": "calm"})
    assert "by localhost : calm" in str(await read(http, path)) or "by localhost: calm" in str(
        await read(http, path)
    )
    await submit(http, f"{path}/act", {"act": "resume"})
    assert (await submit(http, f"{path}/act", {"act": "explode"})).status_code == 422
    await read(http, "/schedules/nobody", 404)


async def test_text_of_users_stays_text(env, http):
    await env.client.start("watch", {"laps": 0}, instance_id=EVIL, labels={"<b>": "<i>"})
    await env.client.raise_event(EVIL, "<u>", {"<s>": "</pre>"})
    await env.client.hold(EVIL, reason="<script>alert(2)</script>")
    for path in ("/", "/instances", f"/instances/{quote(EVIL, safe='')}", "/nodes"):
        page = await read(http, path)
        assert {tag for tag, _ in page.tags} & {"b", "script", "u", "s", "i"} <= {
            "b",
            "script",
            "i",
        }
        assert [attrs for tag, attrs in page.tags if tag == "script"] == [
            {"src": "/static/live.js", "defer": None}
        ]
    page = await read(http, f"/instances/{quote(EVIL, safe='')}")
    assert EVIL in page.words


async def test_a_page_loads_nothing_foreign_and_works_below_another_path(env):
    await env.client.start("watch", {"laps": 0}, instance_id="w")
    service = FastAPI()
    service.mount("/orchestra", create_app(env.client))
    transport = httpx.ASGITransport(service, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.get("/orchestra/instances")
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        page = Text(answer.text)
        for link in page.links:
            if link.startswith(("/", "?")) and not link.startswith("?"):
                assert link.startswith("/orchestra/")
                assert (await http.get(link)).status_code == 200
        assert "style=" not in answer.text
        script = await http.get("/orchestra/static/live.js")
        assert script.status_code == 200
