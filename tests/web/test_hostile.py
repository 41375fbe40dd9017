"""Hostile texts in each place that takes one, on each page and in each answer (I15)."""

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from urllib.parse import quote

import pytest

from orchestra import OrchestrationRegistry, activity
from orchestra.testing import TestRuntime
from orchestra.web import create_app
from tests.support import hostile
from tests.support.web import reach, submit

pytestmark = pytest.mark.anyio

API = "/api/v1"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(params=list(hostile.TEXTS))
def text(request):
    return hostile.TEXTS[request.param]


@pytest.fixture
async def env(text):
    registry = hostile.registry(OrchestrationRegistry.builder(), text)
    fails = activity(name=text)(hostile.failing_activity)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    async with TestRuntime(registry, activities=[fails], start=start) as env:
        await hostile.fill(env.client, text)
        await env.run_until_idle()
        await hostile.act(env.client, text)
        yield env


@pytest.fixture
async def http(env):
    async with reach(create_app(env.client)) as http:
        yield http


class Page(HTMLParser):
    """A page as a browser reads it: its tags, with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def check_page(answer, text):
    """Check that a page has only tags of its templates, and no text of users outside of text."""
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "evil" not in str(answer.headers).lower()
    page = Page(answer.text)
    for tag, attrs in page.tags:
        assert tag not in {"img", "iframe", "object", "base", "style"}
        assert not any(name.startswith("on") or name == "style" for name in attrs), (tag, attrs)
        if tag == "script":
            assert attrs["src"].startswith("/static/")
        if tag == "h1":
            continue
        for name in ("href", "action", "src"):
            if name in attrs:
                assert re.match(r"(/|\?|#|$)", attrs[name]), attrs[name]
                assert not attrs[name].startswith("//")
                assert "/../" not in attrs[name]
                assert not set(attrs[name]) & hostile.CONTROLS
    return page


async def test_each_page_shows_a_hostile_text_as_text(env, http, text):
    found = 0
    ids = [text, f"bad {text}", f"busy {text}"]
    pages = ["/", "/instances", "/versions", "/nodes", "/schedules"]
    pages += [f"/instances/{quote(one, safe='')}" for one in ids]
    pages += [f"/schedules/{quote(text, safe='')}"]
    pages += [f"/instances?name={quote(text, safe='')}&label={quote(f'{text}={text}', safe='')}"]
    pages += [f"/instances?held={quote(text, safe='')}", f"/instances/{quote('x' + text, safe='')}"]
    for path in pages:
        answer = await http.get(path)
        assert answer.status_code in (200, 404, 422), path
        page = check_page(answer, text)
        found += any(hostile.MARKER in words for words in page.words)
    assert found >= 8
    for path in ("/instances", "/schedules"):
        links = {
            attrs["href"]
            for tag, attrs in Page((await http.get(path)).text).tags
            if tag == "a" and attrs.get("href", "").startswith(f"{path}/")
        }
        assert links
        for link in links:
            assert (await http.get(link)).status_code == 200, link


async def test_forms_do_what_they_say_to_a_hostile_id(env, http, text):
    path = f"/instances/{quote(text, safe='')}"
    answer = await submit(http, f"{path}/act", {"act": "release", "reason": text})
    assert answer.status_code == 303, answer.text
    assert not set(answer.headers["location"]) & hostile.CONTROLS
    assert (await env.client.get_instance_info(text)).hold is None
    check_page(await http.get(answer.headers["location"]), text)
    answer = await submit(http, f"{path}/act", {"act": text, "reason": text})
    assert answer.status_code in (403, 422)
    answer = await submit(
        http, f"/instances?name={quote(text, safe='')}", {"act": "hold", "reason": text}
    )
    check_page(answer, text)


async def test_each_answer_of_the_api_is_json_that_holds_the_text_as_it_is(env, http, text):
    one, name = f"/instances/{quote(text, safe='')}", quote(text, safe="")
    reads = [
        ("GET", f"{one}?include=input,state,output,history", None),
        ("GET", f"{one}/executions", None),
        ("GET", f"{one}/history", None),
        ("GET", f"{one}/messages", None),
        ("GET", f"{one}/streams", None),
        ("GET", f"/instances/{quote(f'bad {text}', safe='')}?include=history", None),
        ("GET", f"/instances/{quote(f'busy {text}', safe='')}?include=history", None),
        ("GET", "/operations", None),
        ("GET", f"/operations?subject={name}", None),
        ("GET", f"/versions?name={name}", None),
        ("GET", f"/policies/{name}", None),
        ("GET", "/schedules", None),
        ("GET", f"/schedules/{name}", None),
        ("POST", "/instances/search", {"selection": {"name": text}}),
        ("POST", "/instances/search", {"selection": {"id_prefix": text}}),
        ("POST", "/instances/search", {"selection": {"labels": {text: text}}}),
        ("POST", "/instances/count", {"group_by": ["name", f"label:{text}"]}),
        ("POST", "/bulk", {"act": "hold", "selection": {"name": text}}),
        ("POST", f"{one}/hold", {"reason": text, "dry_run": True}),
    ]
    for method, path, body in reads:
        answer = await http.request(method, API + path, json=body)
        assert answer.status_code == 200, (path, answer.text)
        check_json(answer)
        assert hostile.MARKER in answer.text, path
    info = (await http.get(API + one)).json()
    assert (info["instance_id"], info["name"], info["hold"]["by"]) == (text, text, text)
    items = await http.get(f"{API}{one}/streams/{name}?follow=false")
    data = [line for line in items.text.split("\n") if line.startswith("data: ")]
    assert [json.loads(line[6:])["value"] for line in data] == [{text: text}]


async def test_problems_quote_a_hostile_text_as_json(env, http, text):
    name = quote("x" + text, safe="")
    asked = [
        ("GET", f"/instances/{name}", None),
        ("GET", f"/instances/{name}/history", None),
        ("GET", f"/instances/{name}/watch", None),
        ("GET", f"/schedules/{name}", None),
        ("GET", f"/instances/{quote(text, safe='')}?include={name}", None),
        ("GET", f"/operations?page={name}", None),
        ("GET", f"/watch?selection={name}", None),
        ("POST", "/instances", {"name": text, "version": text}),
        ("POST", "/instances/search", {"order_by": text}),
        ("POST", "/instances/search", {text: text}),
        ("POST", "/instances/search", {"selection": {"held": text}}),
        ("POST", "/instances/count", {"group_by": [text]}),
        ("PUT", f"/policies/{name}", {"policy": text}),
        ("POST", "/schedules", {"id": text, "spec": {"kind": text}, "action": {"name": text}}),
    ]
    for method, path, body in asked:
        answer = await http.request(method, API + path, json=body)
        assert 400 <= answer.status_code < 500, (path, answer.text)
        check_json(answer, "application/problem+json")
        assert answer.json()["remedy"]
    answer = await http.get(f"{API}/operations", headers={"If-Match": b"\xe9"})
    assert answer.status_code == 200


def check_json(answer, media_type="application/json"):
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "evil" not in {name.lower() for name in answer.headers}
    answer.json()


async def test_no_path_leads_out_of_the_static_files(http):
    for path in (
        "/static/../pages.py", "/static/%2e%2e/pages.py", "/static/..%2fpages.py",
        "/static/%2e%2e%2f%2e%2e%2fapp.py", "/static//etc/passwd", "/static/%00", "/static/..%5cx",
    ):  # fmt: skip
        assert (await http.get(path)).status_code in (400, 404), path
