"""What people do in a browser, on a service that runs: they look at a loop that goes on, act on one
and on many, by mouse and by keyboard alone, and show text that others have written.
"""

from datetime import UTC, datetime, time, timedelta
from urllib.parse import quote

from orchestra import Daily, InstanceStatus, OrchestrationRegistry, Schedule, Start

EVIL = "a/<script>window.harm = 1</script>&\"'><img src=x onerror='window.harm = 2'>"
HARM = """
const marked = [...document.querySelectorAll("*")].filter(
  (one) => [...one.attributes].some((attribute) => attribute.name.startsWith("on")));
const scripts = [...document.scripts].filter((one) => !one.src.startsWith(location.origin));
return { ran: window.harm ?? null, marked: marked.length, scripts: scripts.length,
  pictures: document.querySelectorAll("main img, main iframe, main object").length };
"""
NO_HARM = {"ran": None, "marked": 0, "scripts": 0, "pictures": 0}


async def watch(ctx, state: dict) -> None:
    ctx.set_custom_status({"seen": state})
    ctx.publish("log", state)
    await ctx.wait_for_event("go")
    ctx.continue_as_new({**state, "laps": state["laps"] + 1})


REGISTRY = OrchestrationRegistry.builder().register("watch", watch).build()


def go_on(service, instance_id="w"):
    """Let a loop begin its next lap; return its number."""
    lap = service.call(service.client.get_instance_info, instance_id).execution_id
    service.call(service.client.raise_event, instance_id, "go")
    return lap + 1


def tab_to(screen, css):
    """Move by Tab alone, until a part of the page has the focus."""
    for _ in range(200):
        if screen.ask("return document.activeElement?.matches(arguments[0]) ?? false", css):
            return
        screen.press(screen.keys.TAB)
    raise AssertionError(f"Tab does not lead to {css}")


def test_a_page_shows_a_lap_that_begins_without_being_loaded_again(screen, service):
    with service(REGISTRY) as running:
        running.call(running.client.start, "watch", {"laps": 0}, instance_id="w")
        screen.open(f"{running.address}/instances/w").until_text("lap 1")
        screen.ask("window.loaded = 'once'")
        screen.until_text(f"lap {go_on(running)}")
        screen.until_text(f"lap {go_on(running)}")
        assert screen.ask("return window.loaded") == "once"
        assert screen.console() == []


def test_what_has_the_focus_keeps_it_while_the_page_goes_on(screen, service):
    with service(REGISTRY) as running:
        for number in range(3):
            running.call(running.client.start, "watch", {"laps": 0}, instance_id=f"w-{number}")
        screen.open(f"{running.address}/instances?order_by=latest_change").until_text("w-1")
        tab_to(screen, "a[href='/instances/w-1']")
        lap = go_on(running, "w-0")
        screen.until(lambda: any(cell.text == str(lap) for cell in screen.all("td.number")))
        assert screen.focused()["href"] == "/instances/w-1"


def test_a_form_that_is_filled_in_stays_while_the_page_goes_on(screen, service):
    with service(REGISTRY) as running:
        running.call(running.client.start, "watch", {"laps": 0}, instance_id="w")
        screen.open(f"{running.address}/instances/w").until_text("lap 1")
        reason = screen.one("form.act input[name=reason]")
        reason.send_keys("half a sen")
        screen.until_text(f"lap {go_on(running)}")
        reason.send_keys("tence")
        assert reason.get_property("value") == "half a sentence"


def test_many_are_acted_on_only_after_a_look_at_what_that_would_do(screen, service):
    with service(REGISTRY) as running:
        client = running.client
        for number in range(3):
            running.call(client.start, "watch", {"laps": 0}, instance_id=f"w-{number}")
        running.call(client.start, "watch", {"laps": 0}, instance_id="other")
        screen.open(f"{running.address}/instances?id_prefix=w-")
        screen.choose("form.act select[name=act]", "hold")
        screen.one("form.act input[name=reason]").send_keys("the feed is down")
        screen.one("form.act button").click()
        screen.until_text("act on 3")
        assert running.call(client.count_instances, held=True).total == 0
        screen.one("form.act button").click()
        screen.until_text("3 changed")
        assert running.call(client.count_instances, held=True).total == 3
        assert running.call(client.get_instance_info, "other").hold is None


def test_an_act_needs_no_mouse(screen, service):
    with service(REGISTRY) as running:
        running.call(running.client.start, "watch", {"laps": 0}, instance_id="w")
        screen.open(running.address)
        screen.press(screen.keys.TAB, screen.keys.ENTER)  # to the content
        assert screen.ask("return document.activeElement.id") == "main"
        screen.open(running.address)
        tab_to(screen, "nav a[href='/instances']")
        screen.press(screen.keys.ENTER)
        screen.until_text("Instances", "h1")
        tab_to(screen, "a[href='/instances/w']")
        screen.press(screen.keys.ENTER)
        screen.until_text("w", "h1")
        tab_to(screen, "form.act select[name=act]")
        screen.press("hold")
        tab_to(screen, "form.act input[name=reason]")
        screen.press("by hand", screen.keys.ENTER)
        screen.until_text("by hand")
        assert running.call(running.client.get_instance_info, "w").status is InstanceStatus.HELD


def test_a_refusal_is_told_where_a_reader_hears_it(screen, service):
    with service(REGISTRY) as running:
        running.call(running.client.start, "watch", {"laps": 0}, instance_id="w")
        screen.open(f"{running.address}/instances/w")
        screen.choose("form.act select[name=act]", "release")
        screen.one("form.act button").click()
        screen.until(lambda: screen.all("[role=alert]"), "no alert")
        assert screen.text("[role=alert]")


def test_text_that_others_have_written_runs_nothing(screen, service):
    with service(REGISTRY) as running:
        client, path = running.client, f"/instances/{quote(EVIL, safe='')}"
        running.call(
            client.start, "watch", {"laps": 0, EVIL: EVIL}, instance_id=EVIL, labels={EVIL: EVIL}
        )
        running.call(client.raise_event, EVIL, EVIL, {EVIL: EVIL})
        running.call(client.start, "watch", {"laps": 0}, instance_id="w")
        running.call(client.hold, "w", reason=EVIL, by=EVIL)
        daily = Schedule(EVIL, Daily(time(9), "UTC"), Start("watch", {"laps": 0, EVIL: EVIL}))
        running.call(client.schedules.create, daily, reason=EVIL)
        running.call(
            client.schedules.pause, EVIL, EVIL, until=datetime.now(UTC) + timedelta(days=9)
        )
        screen.open(running.address)
        found = [*screen.paths("nav a"), path, "/instances/w", f"/schedules/{quote(EVIL, safe='')}"]
        for each in dict.fromkeys(found):
            screen.open(running.address + each)
            assert screen.ask(HARM) == NO_HARM, each
        screen.open(running.address + path).until_text(f"lap {go_on(running, EVIL)}")
        assert screen.ask(HARM) == NO_HARM
        assert screen.text("h1") == EVIL
        assert [line for line in screen.console() if "Security" in line] == []
