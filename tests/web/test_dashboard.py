"""What all pages of the dashboard share: they can be used by keyboard and by readers, users' text
stays text, values need a role, acts a token, and nothing foreign is loaded.
"""

import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi import FastAPI

from orchestra import Every, Schedule, Start
from orchestra.store.kinds import HoldKind
from orchestra.web import Principal, create_app
from orchestra.web.dashboard import STATIC
from orchestra.web.dashboard.colours import COLOURS
from orchestra.web.dashboard.held import MEANINGS
from tests.support.dashboard import EVIL, Watch1, furnish, read
from tests.support.web import reach, submit

pytestmark = pytest.mark.anyio

PATHS = (
    "/",
    "/instances",
    "/instances?held=any",
    "/instances/w",
    "/instances/error",
    "/instances/parent",
    "/held",
    "/boundaries",
    "/versions",
    "/schedules",
    "/schedules/s",
    "/nodes",
    "/audit",
    "/start?name=order",
    "/counts",
)


@pytest.fixture
async def furnished(env, http):
    await furnish(env)
    await env.client.schedules.create(Schedule("s", Every(timedelta(hours=1)), Start("cart", 0)))
    await env.advance(timedelta(hours=3))
    return http


async def test_a_page_can_be_used_without_a_pointer(furnished):
    for path in PATHS:
        await check_a_page_can_be_used_without_a_pointer(furnished, path)


async def check_a_page_can_be_used_without_a_pointer(furnished, path):
    page = await read(furnished, path)
    (html,) = page.of("html")
    assert html["lang"] == "en"
    assert len(page.of("h1")) == 1
    assert next(one for one in page.of("a") if one.get("class") == "skip")["href"] == "#main"
    (main,) = page.of("main")
    assert (main["id"], main["tabindex"]) == ("main", "-1")
    if path not in {"/counts", "/start?name=order"}:
        assert [one.get("aria-current") for one in page.of("a")].count("page") in {1, 2}
    ids = [one["id"] for _, one in page.tags if "id" in one]
    assert len(ids) == len(set(ids)), "an id names one element"
    labelled = {one["for"] for one in page.of("label") if "for" in one}
    for tag, one in page.tags:
        if tag in {"input", "select", "textarea"} and one.get("type") not in {"hidden", "checkbox"}:
            assert one.get("id") in labelled, f"{tag} {one} has no label"
        for reference in ("aria-labelledby",):
            if reference in one:
                assert one[reference] in ids
    for header in page.of("th"):
        assert header.get("scope") in {"col", "row"}
    assert len(page.of("table")) == len(page.of("caption"))
    for picture in page.of("svg"):
        assert picture.get("aria-label") or picture.get("aria-hidden") == "true"
    for scrolls in [one for _, one in page.tags if one.get("class", "").startswith("scrolls")]:
        assert scrolls["tabindex"] == "0"
        assert scrolls["role"] == "group"


async def test_each_page_has_its_tables_as_json(furnished):
    for path in PATHS:
        await check_each_page_has_its_tables_as_json(furnished, path)


async def check_each_page_has_its_tables_as_json(furnished, path):
    page = await read(furnished, path)
    links = [link for link in page.links if "format=json" in link]
    assert links
    for link in links:
        joined = path.partition("?")[0] + link
        answer = await furnished.get(joined)
        assert answer.status_code == 200
        body = answer.json()
        assert body.pop("at").endswith("Z")
        for name, table in body.items():
            assert table is not None or name in {"next_page", "searched"}, (
                f"{joined} has no table {name}"
            )


async def test_each_link_of_a_page_leads_somewhere(furnished):
    for path in PATHS:
        await check_each_link_of_a_page_leads_somewhere(furnished, path)


async def check_each_link_of_a_page_leads_somewhere(furnished, path):
    page = await read(furnished, path)
    for link in {link for link in page.links if link.startswith(("/", "?"))}:
        target = link if link.startswith("/") else path.partition("?")[0] + link
        assert (await furnished.get(target)).status_code == 200, target


async def test_text_of_users_stays_text(env, http):
    await env.client.start("watch", Watch1(EVIL), instance_id=EVIL, labels={"<b>": "<i>"})
    await env.run_until_idle()
    await env.client.raise_event(EVIL, "<u>", {"<s>": "</pre>"})
    await env.client.hold(EVIL, reason="<script>alert(2)</script>", by="<em>")
    await env.client.pin(EVIL, "1.0.0", reason="<script>alert(3)</script>", by="<em>")
    await env.client.schedules.create(Schedule(EVIL, Every(timedelta(hours=1)), Start("cart", 0)))
    await env.client.schedules.pause(EVIL, "<script>alert(4)</script>", by="<em>")
    evil = quote(EVIL, safe="")
    for path in (
        "/", "/instances", f"/instances/{evil}", "/held", "/boundaries", "/versions", "/schedules",
        f"/schedules/{evil}", "/nodes", "/audit", f"/instances?name={evil}&status=live",
        f"/instances?held={evil}", f"/start?name={evil}", f"/audit?by={evil}", f"/instances/{evil}?said={evil}",
        f"/instances/nobody{evil}", f"/counts?name={evil}",
    ):  # fmt: skip
        answer = await http.get(path)
        page = await read(http, path, answer.status_code)
        assert [one for tag, one in page.tags if tag == "script"] == [
            {"src": "/static/live.js", "defer": None}
        ], path
        assert not {tag for tag, _ in page.tags} & {"u", "s", "em", "iframe", "style"}, path
        assert not [one for _, one in page.tags if any(name.startswith("on") for name in one)]
    page = await read(http, f"/instances/{evil}")
    assert EVIL in page.words


async def test_what_a_refused_form_shows_again_is_text(env, http):
    await env.client.start("cart", 0, instance_id="c")
    form = {
        "act": "event",
        "name": '"><script>x</script>',
        "payload": "</textarea><script>y</script>",
    }
    answer = await submit(http, "/instances/c/act", form)
    assert answer.status_code == 422
    assert "<script>x" not in answer.text
    assert "<script>y" not in answer.text
    bulk = await submit(http, "/instances?name=%3Cscript%3E", {"act": "hold", "reason": "<script>"})
    assert "<script>" not in bulk.text.replace('<script src="/static/live.js" defer></script>', "")


async def test_a_page_loads_nothing_foreign_and_works_below_another_path(env):
    await furnish(env)
    service = FastAPI()
    service.mount("/orchestra", create_app(env.client))
    async with reach(service) as http:
        for path in ("/", "/instances", "/instances/w", "/versions"):
            answer = await http.get(f"/orchestra{path}")
            assert answer.headers["content-security-policy"].startswith("default-src 'self'")
            page = await read(http, f"/orchestra{path}")
            for link in page.links:
                if link.startswith("/"):
                    assert link.startswith("/orchestra/")
                    assert (await http.get(link)).status_code == 200
            assert "style=" not in answer.text
            assert "<style" not in answer.text
            (body,) = page.of("body")
            assert body["data-base"] == "/orchestra"
        done = await http.post(
            "/orchestra/instances/w/act",
            data={"act": "hold", "csrf_token": http.cookies["csrf_token"]},
        )
        assert done.headers["location"] == "/orchestra/instances/w?said=hold"


async def viewer(env, *roles):
    app = create_app(env.client, auth=lambda _: Principal("eve", roles))
    return reach(app)


async def test_values_are_shown_to_those_who_may_see_them(env):
    await furnish(env)
    async with await viewer(env, "view") as http:
        for path in ("/instances/parent", "/instances/w", "/instances/error", "/held"):
            text = (await http.get(path)).text
            assert "leave it at the door" not in text
            assert "price" not in text
            assert "ops" not in text
        assert "hidden" in (await http.get("/instances/parent")).text
        data = (await http.get("/instances/parent?format=json")).text
        assert "leave it at the door" not in data
    async with await viewer(env, "reveal") as http:
        assert "leave it at the door" in (await http.get("/instances/parent")).text


async def test_acts_are_offered_to_those_who_may_act(env):
    await furnish(env)
    async with await viewer(env, "view") as http:
        for path in ("/", "/instances", "/instances/w", "/versions", "/boundaries"):
            page = await read(http, path)
            assert [one for one in page.of("form") if one.get("method") == "post"] == []
        assert (await submit(http, "/instances/w/act", {"act": "hold"})).status_code == 403
        assert (await submit(http, "/start", {"act": "start", "name": "cart"})).status_code == 403
    async with await viewer(env, "operate") as http:
        page = str(await read(http, "/instances/w"))
        assert "terminate" in page
        assert (await submit(http, "/instances/w/act", {"act": "hold"})).status_code == 303
        assert (await submit(http, "/instances/failure/act", {"act": "delete"})).status_code == 403
        assert "nothing brings it back" not in str(await read(http, "/instances/failure"))
        policy = {"act": "policy", "name": "watch", "policy": "latest"}
        assert (await submit(http, "/versions/policy", policy)).status_code == 403
    async with await viewer(env, "admin") as http:
        assert (await submit(http, "/instances/failure/act", {"act": "delete"})).status_code == 303


async def test_an_act_needs_the_token_of_its_page(env, http):
    await furnish(env)
    await http.get("/")
    for path in ("/instances/w/act", "/instances", "/versions/policy", "/start"):
        assert (await http.post(path, data={"act": "hold"})).status_code == 403
    assert (await env.client.get_instance_info("w")).hold is None


def test_each_cause_of_a_hold_has_a_meaning():
    assert set(MEANINGS) == set(HoldKind)


# --- the style sheet ----------------------------------------------------------------------------

STYLE = (STATIC / "style.css").read_text(encoding="utf-8")


def tones(scheme):
    """Return the colours of a scheme, by their names."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[:2]
    text = light if scheme == "light" else dark
    return dict(re.findall(r"--([\w]+(?:-\w+)?): (#[0-9a-f]{6});", text))


def luminance(tone):
    parts = [int(tone[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(scheme):
    tone = tones(scheme)
    for ground in ("paper", "panel", "calm", "rule"):
        for ink in ("ink", "soft", "link"):
            assert contrast(tone[ink], tone[ground]) >= 4.5, (ink, ground)
    for kind in ("good", "warning", "bad"):
        for ground in ("paper", "panel", f"{kind}-wash"):
            assert contrast(tone[kind], tone[ground]) >= 4.5, (kind, ground)
    for number in range(COLOURS):
        assert contrast(tone[f"c{number}"], tone["panel"]) >= 3, f"c{number}"
    assert contrast(tone["field"], tone["panel"]) >= 3, "the edge of an input"
    assert contrast(tone["focus"], tone["paper"]) >= 3


def test_each_version_colour_differs_from_the_others_in_both_schemes():
    for scheme in ("light", "dark"):
        tone = tones(scheme)
        assert len({tone[f"c{number}"] for number in range(COLOURS)}) == COLOURS
    assert f".v{COLOURS - 1} {{" in STYLE


def test_the_script_is_ours_and_needs_nothing_that_the_policy_refuses():
    script = (STATIC / "live.js").read_text(encoding="utf-8")
    assert not re.search(r"\beval\b|new Function|https?://|\.style\.", script)
    assert not re.search(r"url\(\s*['\"]?(?:https?:)?//", STYLE)
    templates = Path(STATIC).parent / "templates"
    for template in templates.glob("*.html"):
        text = template.read_text(encoding="utf-8")
        assert "|safe" not in text
        assert "{% autoescape" not in text
        assert " style=" not in text
