"""Who may do what, and that neither other sites nor slow or greedy clients do harm."""

import json
import re
from datetime import UTC, datetime, timedelta

import anyio
import httpx
import pytest

from orchestra import (
    Every,
    Failure,
    InstancePage,
    InvalidArgument,
    OrchestrationRegistry,
    Schedule,
    Start,
)
from orchestra.client.values import Unreadable
from orchestra.testing import TestRuntime
from orchestra.web import Principal, Role, create_app
from orchestra.web.event_streams import EventStream, event
from orchestra.web.masking import MaskedClient
from tests.support.web import reach, submit

pytestmark = pytest.mark.anyio

API = "/api/v1"
SECRET = "pa55-4711"


async def secretive(ctx, state: dict[str, str]) -> None:
    ctx.set_custom_status({"custom": state["key"]})
    ctx.publish("words", state["key"])
    await ctx.wait_for_event("go")
    await ctx.wait_for_event("go")
    raise ValueError(f"no luck with {state['key']}")


async def fails(ctx, state: str) -> None:
    raise Failure(state)


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("secretive", secretive)
    .register("fails", fails)
    .build()
)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def env():
    async with TestRuntime(REGISTRY, start=datetime(2026, 3, 1, tzinfo=UTC)) as env:
        handle = await env.client.start("secretive", {"key": SECRET}, instance_id="s")
        await env.client.start("fails", SECRET, instance_id="f")
        await env.client.schedules.create(
            Schedule("day", Every(timedelta(days=300)), Start("fails", f"{SECRET}-scheduled"))
        )
        await env.run_until_idle()
        await handle.raise_event("go", {"payload": SECRET})
        await env.run_until_idle()
        await handle.raise_event("noise", {"payload": SECRET})
        yield env


def who(request):
    """Believe the roles that a request names."""
    roles = request.headers.get("authorization")
    return None if roles is None else Principal("ann", roles.split())


def site(env, roles, **options):
    app = create_app(env.client, registry=REGISTRY, auth=who)
    return reach(app, "192.0.2.7", headers={"Authorization": roles}, **options)


# --- principals -------------------------------------------------------------------------------


def test_a_role_includes_what_stands_below_it():
    assert Principal("ann", ["admin"]).granted == {Role.ADMIN, Role.OPERATE, Role.VIEW}
    assert Principal("ann", "reveal").granted == {Role.REVEAL, Role.VIEW}
    assert Principal("ann", []).granted == set()
    with pytest.raises(InvalidArgument, match="roles are view, reveal, operate, admin"):
        Principal("ann", ["root"])
    with pytest.raises(InvalidArgument, match="name"):
        Principal("", ["view"])


async def test_each_operation_needs_the_role_that_its_document_names(env):
    app = create_app(env.client, registry=REGISTRY, auth=who)
    operations = [
        (method, path, operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]
    lower = {"view": "", "operate": "view reveal", "admin": "operate reveal"}
    async with reach(app, "192.0.2.7") as http:
        for method, path, operation in operations:
            role = operation.get("x-role")
            if role is None:
                assert path in ("/live", "/ready")
                continue
            url = re.sub(r"\{\w+\}", "x", path)
            assert (await http.request(method, url)).status_code == 401
            headers = {"Authorization": lower[role]}
            answer = await http.request(method, url, headers=headers, json={})
            assert answer.status_code in (403, 422), (method, path)
            if answer.status_code == 422:  # what it lacks is seen first
                assert answer.json()["title"] == "InvalidRequest"
    needed = {operation["operationId"]: operation.get("x-role") for _, _, operation in operations}
    assert needed["search_instances"] == needed["get_history"] == "view"
    assert (
        needed["start_instance"] == needed["cancel_instance"] == needed["act_on_many"] == "operate"
    )
    assert needed["delete_instance"] == needed["set_policy"] == needed["purge_instances"] == "admin"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/instances/f", None),
        ("POST", "/purge", {"completed_before": "2026-03-02T00:00:00Z"}),
        ("POST", "/bulk", {"act": "delete", "selection": {"name": "fails"}}),
        ("POST", "/instances/s/messages/drop", {"name": "noise"}),
        ("PUT", "/policies/fails", {"policy": "latest"}),
        ("DELETE", "/schedules/day", None),
    ],
)
async def test_what_cannot_be_undone_needs_an_admin(env, method, path, body):
    async with site(env, "operate reveal") as http:
        answer = await http.request(method, API + path, json=body)
        assert answer.status_code == 403
        assert "'admin'" in answer.json()["detail"]
    async with site(env, "admin") as http:
        assert (await http.request(method, API + path, json=body)).is_success


READS = [
    ("POST", f"{API}/instances/search?include=input,output", {}),
    ("GET", f"{API}/instances/s?include=input,state,output,history", None),
    ("GET", f"{API}/instances/f?include=input,output,history", None),
    ("GET", f"{API}/instances/s/executions", None),
    ("GET", f"{API}/instances/s/history", None),
    ("GET", f"{API}/instances/s/messages", None),
    ("GET", f"{API}/instances/s/streams/words?follow=false", None),
    ("GET", f"{API}/instances/f/watch", None),
    ("GET", f"{API}/schedules", None),
    ("GET", f"{API}/schedules/day", None),
    ("GET", f"{API}/operations", None),
    ("GET", f"{API}/preflight", None),
    ("GET", f"{API}/versions", None),
    ("GET", "/", None),
    ("GET", "/instances", None),
    ("GET", "/instances/s", None),
    ("GET", "/instances/f", None),
    ("GET", "/schedules", None),
    ("GET", "/schedules/day", None),
    ("GET", "/versions", None),
    ("GET", "/nodes", None),
]


async def test_a_viewer_is_told_that_a_search_has_ended_at_its_limit():
    class Searching:
        schedules = None

        async def list_instances(self, **_):
            return InstancePage((), "1:w", 2)

    page = await MaskedClient(Searching()).list_instances(search_limit=2)
    assert page == InstancePage((), "1:w", 2)


async def test_values_of_users_are_shown_only_to_those_who_may_reveal(env):
    shown = 0
    for held in (False, True):
        if held:  # its code fails, and the hold quotes the value
            await env.client.raise_event("s", "go")
            await env.run_until_idle()
            assert SECRET in (await env.client.get_instance_info("s")).hold.detail
        async with site(env, "view") as viewer, site(env, "reveal") as revealer:
            for method, path, body in READS:
                hidden = await viewer.request(method, path, json=body)
                assert hidden.status_code == 200, hidden.text
                assert SECRET not in hidden.text, path
                revealed = await revealer.request(method, path, json=body)
                assert revealed.status_code == 200
                shown += SECRET in revealed.text
    assert shown >= 20


async def test_a_viewer_learns_that_a_value_is_hidden(env):
    async with site(env, "view") as http:
        info = (await http.get(f"{API}/instances/s?include=input")).json()
        assert "reveal" in info["input"]["unreadable"]
        assert isinstance((await env.client.get_instance_info("s")).input, dict)
        assert not isinstance((await env.client.get_instance_info("s")).input, Unreadable)


# --- other sites ------------------------------------------------------------------------------


async def test_a_form_without_the_token_of_its_site_does_nothing(env):
    async with reach(create_app(env.client)) as http:
        page = await http.get("/instances/s")
        fields = re.findall(r'name="csrf_token" value="([\w-]{43})"', page.text)
        assert len(fields) == len(re.findall(r'<form[^>]*method="post"', page.text)) > 0
        assert set(fields) == {http.cookies["csrf_token"]}
        cookie = page.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        act = {"act": "hold", "reason": "r"}
        for forged in ({}, {"csrf_token": ""}, {"csrf_token": "x" * 43}):
            answer = await http.post("/instances/s/act", data={**act, **forged})
            assert answer.status_code == 403
        token = {"csrf_token": fields[0]}
        foreign = {"Origin": "https://evil.example"}
        answer = await http.post("/instances/s/act", data={**act, **token}, headers=foreign)
        assert answer.status_code == 403
        assert (await env.client.get_instance_info("s")).hold is None
        assert (await http.post("/instances/s/act", data={**act, **token})).status_code == 303
    async with reach(create_app(env.client)) as http:  # no cookie
        answer = await http.post("/instances/s/act", data={"act": "release", **token})
        assert answer.status_code == 403
    (done,) = (await env.client.list_operations(subject="s")).items
    assert (done.action, done.by, done.details["reason"]) == ("hold", "localhost", "r")


async def test_a_page_of_another_site_cannot_use_an_operators_cookies(env):
    async with site(env, "operate") as http:
        path = f"{API}/instances/s/hold"
        for headers in (
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
        ):
            assert (await http.post(path, headers=headers)).status_code == 403
        assert (await env.client.get_instance_info("s")).hold is None
        # A proxy has ended TLS; another one has changed the host.
        for headers in (
            {"Origin": "https://localhost"},
            {"Origin": "https://public.example", "Sec-Fetch-Site": "same-origin"},
        ):
            assert (await http.post(path, headers=headers)).status_code == 204


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "192.0.2.1"])
async def test_a_name_that_was_given_the_address_of_this_machine_is_refused(env, host):
    async with reach(create_app(env.client)) as http:
        for path in ("/", f"{API}/nodes"):
            assert (await http.get(path, headers={"Host": host})).status_code == 403
    async with reach(create_app(env.client)) as http:
        for good in ("localhost:8080", "127.0.0.1:8080", "[::1]:8080"):
            assert (await http.get(f"{API}/nodes", headers={"Host": good})).status_code == 200


async def test_forms_of_what_cannot_be_undone_need_an_admin(env):
    async with site(env, "operate") as http:
        assert (await submit(http, "/instances/f/act", {"act": "delete"})).status_code == 403
        assert (await submit(http, "/instances/s/act", {"act": "hold"})).status_code == 303
    async with site(env, "view") as http:
        assert (await submit(http, "/instances/s/act", {"act": "release"})).status_code == 403
    async with site(env, "admin") as http:
        assert (await submit(http, "/instances/f/act", {"act": "delete"})).status_code == 303


# --- greedy and slow clients ------------------------------------------------------------------


async def test_a_body_over_the_limit_is_refused(env):
    app = create_app(env.client, body_limit=1000)
    large = json.dumps({"name": "go", "payload": "x" * 2000}).encode()

    async def pieces():
        for start in range(0, len(large), 100):
            yield large[start : start + 100]

    async with reach(app) as http:
        path = f"{API}/instances/s/events"
        headers = {"Content-Type": "application/json"}
        for content in (large, pieces()):
            answer = await http.post(path, content=content, headers=headers)
            assert answer.status_code == 413
            assert answer.headers["content-type"] == "application/problem+json"
            assert "1,000 bytes" in answer.json()["detail"]
        assert (await http.post(path, json={"name": "small"})).status_code == 202
        long_form = {"act": "hold", "reason": "x" * 2000}
        assert (await submit(http, "/instances/s/act", long_form)).status_code == 413
    with pytest.raises(InvalidArgument, match="body_limit"):
        create_app(env.client, body_limit=0)


class Reader:
    """Takes so many chunks of an answer, and then none."""

    def __init__(self, takes):
        self.takes, self.chunks = takes, []

    async def send(self, message):
        if message["type"] == "http.response.body":
            if len(self.chunks) == self.takes:
                await anyio.sleep_forever()
            self.chunks.append(message["body"])


async def endless(closed):
    try:
        while True:
            yield event({"tick": 1})
    finally:
        closed.append(True)


async def test_a_reader_that_takes_nothing_is_dropped(anyio_backend):
    closed, reader = [], Reader(takes=3)
    with anyio.fail_after(30):
        await EventStream(endless(closed), patience=0.01).stream_response(reader.send)
    assert (len(reader.chunks), closed) == (3, [True])


async def test_a_silent_stream_shows_that_it_lives(anyio_backend):
    class Patient(Reader):
        async def send(self, message):
            await super().send(message)
            if len(self.chunks) == 3:
                heard.set()

    async def silent():
        await heard.wait()
        yield event(1, 7)

    heard, reader = anyio.Event(), Patient(takes=10**6)
    with anyio.fail_after(30):
        await EventStream(silent(), heartbeat=0.01).stream_response(reader.send)
    assert reader.chunks[:3] == [b": still here\n\n"] * 3
    assert [one for one in reader.chunks if one[:1] != b":"] == [b"id: 7\ndata: 1\n\n", b""]


async def test_a_stream_ends_with_the_problem_of_its_source(anyio_backend):
    async def broken():
        yield event(1)
        raise InvalidArgument("it broke")

    reader = Reader(takes=10)
    await EventStream(broken()).stream_response(reader.send)
    assert reader.chunks[0] == b"data: 1\n\n"
    assert reader.chunks[1].startswith(b"event: problem\ndata: {")
    assert b"it broke" in reader.chunks[1]


async def test_a_reader_that_has_gone_ends_its_stream(anyio_backend):
    closed = []

    async def send(message):
        if message["type"] == "http.response.body":
            raise OSError("gone")

    await EventStream(endless(closed)).stream_response(send)
    assert closed == [True]


async def test_an_auth_that_is_not_asynchronous_serves_too(env):
    async with site(env, "view") as http:
        assert isinstance(http, httpx.AsyncClient)
        assert (await http.get(f"{API}/nodes")).status_code == 200


async def test_readers_of_event_streams_are_bounded(env):
    app = create_app(env.client, event_streams=1)
    app.state.event_streams.count = 1
    async with reach(app) as http:
        refused = await http.get("/changes?topic=nodes")
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "5"
        assert refused.json()["title"] == "TooManyStreams"
        app.state.event_streams.count = 0
        followed = await http.get("/api/v1/instances/f/watch")  # it has ended
        assert followed.status_code == 200
        assert app.state.event_streams.count == 0
