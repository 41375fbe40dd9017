"""Every state that is stored says which version wrote it, and the shape that it was written with."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from orchestra import Exact, OrchestrationRegistry, Runtime, SqliteProvider
from orchestra.client import Client
from orchestra.codec import decoder
from orchestra.providers.memory import MemoryProvider
from tests.support.kit import until

pytestmark = pytest.mark.anyio


@dataclass
class Watch:
    url: str
    checks: int = 0


@dataclass
class Order:
    number: int


async def watch(ctx, state: Watch) -> None:
    await ctx.start_child("order", Order(state.checks), instance_id=f"order-{state.checks}")
    if state.checks < 1:
        ctx.continue_as_new(Watch(state.url, state.checks + 1))
    await ctx.schedule_timer(timedelta(days=1))


async def order(ctx, order: Order) -> None: ...


def registry():
    return (
        OrchestrationRegistry.builder()
        .register("watch", watch, version="1.2.0")
        .register("watch", watch, version="1.3.0")
        .register("order", order, version="2.0.0")
        .set_version_policy("watch", Exact("1.2.0"))
        .build()
    )


def writers(provider, instance_id):
    return [
        (row.number, row.state_version, row.state_shape)
        for row in provider.directory.executions(instance_id)
    ]


@pytest.mark.parametrize("make", [MemoryProvider, SqliteProvider])
async def test_a_state_names_the_version_that_wrote_it_and_its_shape(tmp_path, make):
    provider = make() if make is MemoryProvider else make(tmp_path / "store.db")
    async with Runtime(provider, registry()) as runtime:
        handle = await runtime.client.start("watch", Watch("http://example.org"))
        await until(lambda: len(writers(provider, handle.instance_id)) == 2)
        shape = decoder(Watch).shape
        found = writers(provider, handle.instance_id)
        assert found == [(1, "1.2.0", shape), (2, "1.2.0", shape)]
        assert writers(provider, "order-0") == [(1, "2.0.0", decoder(Order).shape)]


async def test_a_client_without_code_names_the_version_and_knows_no_shape(tmp_path):
    path = tmp_path / "store.db"
    async with Runtime(SqliteProvider(path), registry()):
        provider = SqliteProvider(path)
        async with Client(provider) as client:
            await client.start("order", {"number": 1}, instance_id="o")
            assert writers(provider, "o") == [(1, "2.0.0", None)]


def test_a_shape_changes_with_fields_and_types_and_with_nothing_else():
    @dataclass
    class Commented:
        """A class that is described in another way."""

        url: str
        checks: int = 0

    @dataclass
    class Grown:
        url: str
        checks: int = 0
        title: str = ""

    Commented.__name__ = Commented.__qualname__ = "Watch"
    assert decoder(Commented).shape == decoder(Watch).shape
    assert len({decoder(kind).shape for kind in (Watch, Order, Grown, int, str, object)}) == 6
