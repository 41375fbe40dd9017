"""A secret comes back as what it was, and people see a mask wherever they look."""

import logging
import pickle
from dataclasses import dataclass, field
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra import (
    EncodeError,
    Failure,
    OrchestrationRegistry,
    Secret,
    SqliteProvider,
    activity,
    activity_context,
)
from orchestra.cli import main
from orchestra.client.jsonable import jsonable
from orchestra.codec import decoder, encode, plain
from orchestra.testing import TestRuntime, replay_history
from tests.support.examples import examples

pytestmark = pytest.mark.anyio

HIDDEN = "swordfish-0815"
MASK = "**********"


class Model(pydantic.BaseModel):
    token: Secret[str]


@dataclass
class Login:
    user: str
    token: Secret[str]
    pins: list[Secret[int]] = field(default_factory=list)
    other: Secret[dict[str, str]] | None = None
    either: Secret[str] | int | str = 1
    model: Model | None = None


values = st.builds(
    Login,
    st.text(),
    st.text().map(Secret),
    st.lists(st.integers(-(2**53), 2**53).map(Secret), max_size=3),
    st.none() | st.dictionaries(st.text(), st.text(), max_size=2).map(Secret),
    st.text().map(Secret) | st.integers(0, 9) | st.text(),
    st.none() | st.text().map(lambda text: Model(token=Secret(text))),
)


@settings(max_examples=examples(100))
@given(value=values)
def test_it_comes_back_where_it_is_annotated(value):
    reads = decoder(Login)
    assert reads.decode(reads.encode(value, subject="v"), subject="v") == value


@settings(max_examples=examples(100))
@given(value=values)
def test_it_comes_back_as_a_secret_where_nothing_is_annotated(value):
    reads = decoder(Any)
    payload = encode(value, subject="v")
    found = reads.decode(payload, subject="v")
    assert found["token"] == value.token
    assert found["pins"] == value.pins
    shown = plain(payload)
    assert shown["token"] == MASK
    assert shown["pins"] == [MASK] * len(value.pins)
    again = reads.encode(found, subject="v")
    assert reads.decode(again, subject="v") == found


def test_it_shows_a_mask_and_is_told_apart_by_its_value():
    secret = Secret(HIDDEN)
    assert repr(secret) == "Secret('**********')"
    assert f"{secret} {secret!s:>12} {[secret]}" == f"{MASK}   {MASK} [Secret('{MASK}')]"
    assert secret.reveal() == HIDDEN
    assert (secret == Secret(HIDDEN), secret == Secret("x"), secret == HIDDEN) == (
        True,
        False,
        False,
    )
    assert len({secret, Secret(HIDDEN)}) == 1
    assert pickle.loads(pickle.dumps(secret)) == secret
    assert jsonable({"a": secret}) == {"a": MASK}
    assert HIDDEN not in Model(token=secret).model_dump_json()


def test_what_is_no_secret_is_refused_and_plain_json_is_taken_as_one():
    reads = decoder(Secret[str])
    with pytest.raises(EncodeError, match="Secret"):
        reads.encode("x", subject="v")
    assert reads.decode(encode("x", subject="v"), subject="v") == Secret("x")


@activity
async def use(login: Login) -> Secret[str]:
    activity_context().heartbeat(login.token)
    return Secret(login.token.reveal() * 2)


async def plainly(ctx, state):
    """Nothing is annotated here."""
    ctx.set_custom_status(state)
    return state["token"].reveal()


async def logs_in(ctx, login: Login) -> Secret[str]:
    ctx.set_custom_status(login)
    ctx.trace_info(f"token {login.token} of {login!r}", token=login.token, login=login)
    ctx.publish("tokens", login.token)
    twice = await ctx.schedule_activity(use, login)
    told = await ctx.wait_for_event("told", str)
    request = await ctx.wait_for_request("ask", Secret[str], returns=Secret[str])
    request.reply(request.value)
    await ctx.wait_for_event("end")
    if told == "fail":
        raise Failure(f"no {login}", details={"token": twice})
    return twice


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("logs_in", logs_in)
    .register("plainly", plainly)
    .build()
)


async def test_people_see_a_mask_wherever_they_look(caplog):
    login = Login("ann", Secret(HIDDEN), [Secret(4711)])
    with caplog.at_level(logging.DEBUG):
        async with TestRuntime(REGISTRY, [use]) as env:
            client = env.client
            handle = await client.start("logs_in", login, instance_id="i")
            await env.run_until_idle()
            await client.raise_event("i", "told", "fail")
            await client.raise_event("i", "unread", Secret(HIDDEN))
            answer = await client.request("i", "ask", Secret(HIDDEN), returns=Secret[str])
            assert answer == Secret(HIDDEN)
            items = [item.value async for item in client.read_stream("i", "tokens", follow=False)]
            assert items == [Secret(HIDDEN)]
            await client.raise_event("i", "end")
            await env.run_until_idle()
            plainly = await client.start("plainly", {"token": Secret(HIDDEN)}, instance_id="p")
            assert await plainly.result() == HIDDEN
            info = await handle.info()
            assert info.input["token"] == MASK
            assert info.custom_status["pins"] == [MASK]
            assert info.error.details == {"token": MASK}
            export = await client.export_history("i")
            told = [
                info,
                await client.get_history("i"),
                await client.list_messages("i"),
                export,
                items,
            ]
            told += [jsonable(await client.list_executions("i")), caplog.text, await plainly.info()]
            assert HIDDEN not in repr(told[:-1])
            assert "4711" not in repr(told)
            replay_history(REGISTRY, export)


def test_the_command_line_shows_masks(tmp_path, capsys):
    import anyio

    from orchestra import Runtime

    path = tmp_path / "store.db"

    async def fill():
        async with Runtime(SqliteProvider(path, durability="relaxed"), REGISTRY, [use]) as runtime:
            await runtime.client.start("logs_in", Login("ann", Secret(HIDDEN)), instance_id="i")
            with anyio.fail_after(20):
                while not (await runtime.client.get_instance_info("i")).custom_status:
                    await anyio.sleep(0.005)

    anyio.run(fill)
    for command in (
        ["show", "i"],
        ["history", "i"],
        ["show", "i", "--json"],
        ["streams", "read", "i", "tokens"],
    ):
        assert main([*command, "--store", str(path)]) == 0
    shown = capsys.readouterr().out
    assert MASK in shown
    assert HIDDEN not in shown
