"""What the tests of the dashboard share: a store with everything that a page may show, and a reader
of pages.
"""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from html.parser import HTMLParser

from orchestra import Failure, OrchestrationRegistry, activity

EVIL = "a/<script>alert(1)</script>&\"'"


@dataclass
class Watch1:
    url: str
    laps: int = 0


@dataclass
class Watch2:
    url: str
    laps: int = 0
    owner: str = "nobody"


@activity
async def probe(url: str) -> int:
    return 200


async def watch(ctx, state: Watch1) -> None:
    await ctx.schedule_activity(probe, state.url)
    await ctx.wait_for_event("go")
    ctx.continue_as_new(replace(state, laps=state.laps + 1))


async def watch_2(ctx, state: Watch2) -> None:
    ctx.publish("progress", state.laps)
    await ctx.race(ctx.wait_for_event("go"), ctx.schedule_timer(timedelta(hours=4)))
    ctx.continue_as_new(replace(state, laps=state.laps + 1))


def up(state: Watch1) -> Watch2:
    return Watch2(state.url, state.laps, "ops")


async def breaks(ctx, how: str) -> None:
    if how == "error":
        raise KeyError("price")
    raise Failure("no luck")


async def ships(ctx, _: int) -> None:
    await ctx.start_child("watch", Watch1("child"))


async def cart(ctx, total: int) -> None:
    request = await ctx.wait_for_request("add", int, returns=int)
    request.reply(total + request.value)
    ctx.continue_as_new(total + request.value)


@dataclass
class Order:
    customer: str
    total: float
    items: list[str]
    express: bool = False
    note: str | None = None
    tags: list[str] = field(default_factory=list)


async def order(ctx, _: Order) -> None:
    await ctx.wait_for_event("paid")


def registry(*, newer: bool = False) -> OrchestrationRegistry:
    builder = OrchestrationRegistry.builder().register("watch", watch)
    if newer:
        builder.register("watch", watch_2, version="2.0.0").migrate("watch", "2.0.0", up)
    others = {"breaks": breaks, "ships": ships, "cart": cart, "order": order}
    for name, function in others.items():
        builder.register(name, function)
    builder.set_boundary("watch", due=timedelta(hours=2))
    return builder.build()


async def furnish(env):
    """Fill a store: a loop over an upgrade with a migration, rewound; held, failed and overdue
    instances; a parent; an inbox.
    """
    client = env.client
    handle = await client.start("watch", Watch1("u"), instance_id="w", labels={"plan": "pro"})
    await go(env, handle, 2)
    await env.upgrade(registry(newer=True))
    for lap in (3, 4):
        await go(env, handle, lap)
    await client.rewind("w", 3, reason="bad data", by="ann", pin=False)
    await env.run_until_idle()
    for how in ("error", "failure"):
        await client.start("breaks", how, instance_id=how)
    await client.start("watch", Watch2("h"), instance_id="paused")
    await client.start("ships", 1, instance_id="parent")
    await env.run_until_idle()
    await client.hold("paused", reason="calm", by="ann")
    await client.raise_event("parent", "hello", {"text": "leave it at the door"})
    return handle


async def go(env, handle, lap):
    """Send a loop into a lap."""
    await handle.raise_event("go")
    await env.run_until(handle, execution=lap)


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

    def of(self, tag):
        """Return the attributes of all elements with a tag."""
        return [attrs for found, attrs in self.tags if found == tag]

    def picture(self, kind):
        """Return the text alternative of a picture."""
        (found,) = [one for one in self.of("svg") if kind in one.get("class", "").split()]
        return found["aria-label"]


async def read(http, path, status=200):
    answer = await http.get(path)
    assert answer.status_code == status, answer.text
    return Text(answer.text)


async def table(http, path, name):
    """Return a table of a page as JSON."""
    joint = "&" if "?" in path else "?"
    answer = await http.get(f"{path}{joint}format=json&table={name}")
    assert answer.headers["content-type"] == "application/json"
    return answer.json()[name]
