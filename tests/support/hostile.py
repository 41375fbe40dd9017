"""Texts that attack whoever shows them (I15)."""

MARKER = "7c1e"
"""Stands in each of them, to be found again."""

HTML = f"<img src=x onerror=alert({MARKER})></script><script>alert('{MARKER}')</script>\"'&"
TERMINAL = f"\x1b[2J\x1b]0;{MARKER}\x07\x1b[31m\x9b5m{MARKER}\x7f"
BIDI = f"\u202e{MARKER}\u2066\u2069\u200f\ufeff"
CRLF = f"{MARKER}\r\nSet-Cookie: evil=1\r\n\r\n<h1>{MARKER}"
PATHS = f"../../etc/{MARKER}/..%2f..%2Fetc%00/.//\\?a=b&c=d#f;x"
TEMPLATE = f"{{{{ {MARKER} }}}}{{% raw %}}${{{MARKER}}}%s%(name)s"
SQL = f"'; DROP TABLE instance; -- {MARKER}\" OR '%_\\"

TEXTS = {
    "html": HTML,
    "terminal": TERMINAL,
    "bidi": BIDI,
    "crlf": CRLF,
    "paths": PATHS,
    "template": TEMPLATE,
    "sql": SQL,
}

CONTROLS = {
    *(chr(code) for code in range(0x20)),
    *(chr(code) for code in range(0x7F, 0xA0)),
    *"\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff",
}
"""Characters that no terminal may get, but for the ends of lines."""


async def stubborn(ctx, state):
    """Use a text in each place that code can reach."""
    text = state["text"]
    ctx.set_custom_status({text: text})
    ctx.set_labels({text: text})
    ctx.publish(text, {text: text})
    ctx.trace_info(text, value=text)
    if state.get("fails"):
        raise ValueError(text)
    await ctx.wait_for_event(text)
    ctx.continue_as_new(state)


async def busy(ctx, state):
    await ctx.schedule_activity(state["text"], state["text"])


async def failing_activity(text):
    raise ValueError(text)


def registry(builder, text):
    """Return a registry whose names are the text."""
    return builder.register(text, stubborn, failures=()).register(f"busy {text}", busy).build()


async def fill(client, text):
    """Make everything in a store that has a text, with this one. Return the ids of instances."""
    from datetime import timedelta

    from orchestra import Every, Schedule, Start

    await client.start(
        text, {"text": text}, instance_id=text, labels={f"label {text}": text}, queue="default"
    )
    await client.start(text, {"text": text, "fails": True}, instance_id=f"bad {text}")
    await client.start(f"busy {text}", {"text": text}, instance_id=f"busy {text}")
    await client.schedules.create(
        Schedule(text, Every(timedelta(days=1)), Start(text, {"text": text}, labels={text: text})),
        reason=text,
        by=text,
    )
    return [text, f"bad {text}", f"busy {text}"]


async def act(client, text):
    """Do what operators do, with a text for each reason and author."""
    await client.raise_event(text, "unread", {text: text})
    await client.raise_event(text, f"unread {text}", text, message_id=text)
    await client.hold(text, reason=text, by=text)
    await client.pin(text, "1.0.0", reason=text, by=text)
    await client.nudge(text, reason=text, by=text)
    await client.schedules.pause(text, text, by=text)
