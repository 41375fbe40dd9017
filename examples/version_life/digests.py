"""The loop and its versions: who gets a digest of news, and how many were sent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from orchestra import OrchestrationContext, OrchestrationRegistry

NAME = "digest"
PAUSE = timedelta(milliseconds=500)  # a day, in production

# --- 1.0.0 ---


@dataclass(frozen=True)
class Digest1:
    address: str
    sent: int = 0


async def digest_1(ctx: OrchestrationContext, state: Digest1) -> None:
    """Each lap sends one digest; a real one does it in an activity."""
    await ctx.schedule_timer(PAUSE)
    ctx.continue_as_new(replace(state, sent=state.sent + 1))


# --- 2.0.0: digests go by mail or by text message ---


@dataclass(frozen=True)
class Digest2:
    address: str
    channel: str  # new, and without a default
    sent: int = 0


async def digest_2(ctx: OrchestrationContext, state: Digest2) -> None:
    await ctx.schedule_timer(PAUSE)
    ctx.continue_as_new(replace(state, sent=state.sent + 1))


def up_to_2(state: Digest1) -> Digest2:
    channel = "text" if state.address.startswith("+") else "mail"
    return Digest2(state.address, channel, state.sent)


def down_from_2(state: Digest2) -> Digest1:
    return Digest1(state.address, state.sent)


# --- 3.0.0: digests are grouped by the country of the domain. It has two bugs ---


@dataclass(frozen=True)
class Digest3:
    user: str
    domain: str
    channel: str
    sent: int = 0


async def digest_3(ctx: OrchestrationContext, state: Digest3) -> None:
    await ctx.schedule_timer(PAUSE)
    _, country = state.domain.rsplit(".", 1)  # "intranet" has no dot
    ctx.trace_info("grouped", country=country)
    ctx.continue_as_new(replace(state, sent=state.sent + 1))


def up_to_3(state: Digest2) -> Digest3:
    user, domain = state.address.split("@")  # "+4930100" is an address, too
    return Digest3(user, domain, state.channel, state.sent)


def down_from_3(state: Digest3) -> Digest2:
    return Digest2(f"{state.user}@{state.domain}", state.channel, state.sent)


# --- what is deployed, one after the other ---

FIRST = OrchestrationRegistry.builder().register(NAME, digest_1).build()

BAD = (  # nobody fills the channel
    OrchestrationRegistry.builder()
    .register(NAME, digest_1)
    .register(NAME, digest_2, version="2.0.0")
    .build()
)

MENDED = (
    OrchestrationRegistry.builder()
    .register(NAME, digest_1)
    .register(NAME, digest_2, version="2.0.0")
    .migrate(NAME, "2.0.0", up_to_2, down_from_2)
    .build()
)

BROKEN = (
    OrchestrationRegistry.builder()
    .register(NAME, digest_1)
    .register(NAME, digest_2, version="2.0.0")
    .migrate(NAME, "2.0.0", up_to_2, down_from_2)
    .register(NAME, digest_3, version="3.0.0")
    .migrate(NAME, "3.0.0", up_to_3, down_from_3)
    .build()
)

CLEARED = (  # 1.0.0 and 3.0.0 are gone; the migration to 2.0.0 stays
    OrchestrationRegistry.builder()
    .register(NAME, digest_2, version="2.0.0")
    .migrate(NAME, "2.0.0", up_to_2, down_from_2)
    .build()
)


def address(number: int) -> str:
    """Return an address: of ten, seven are on the internet, two in an intranet, one is a phone."""
    match number % 10:
        case 0:
            return f"+49301{number:03}"
        case 1 | 2:
            return f"user{number}@intranet"
        case _:
            return f"user{number}@example.org"
