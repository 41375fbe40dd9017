"""The web application: chats over HTTP, and the agent's words as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, TypedDict

from agent import NAME, TOKENS, Approval, Chat, build_registry, think, use_tool
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from settings import Settings

from orchestra import (
    Client,
    InstanceNotFound,
    RequestRejected,
    Runtime,
    SqliteProvider,
    WaitTimeout,
)


class State(TypedDict):
    """The state that every request can reach."""

    client: Client


@dataclass
class NewChat:
    """A conversation to begin."""

    user: str
    chat_id: str | None = None


@dataclass
class Words:
    """What the user says. ``request_id``: the same one again gets the same answer."""

    text: str
    request_id: str | None = None


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application."""
    chosen = settings or Settings.from_environment()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[State]:
        runtime = Runtime(
            SqliteProvider(chosen.database),
            build_registry(chosen.versions),
            activities=[think, use_tool],
            grace=timedelta(seconds=2),
        )
        async with runtime:
            yield {"client": runtime.client}

    app = FastAPI(title="Agent", lifespan=lifespan)
    app.add_api_route("/health", health)
    app.add_api_route("/chats", begin, methods=["POST"], status_code=201)
    app.add_api_route("/chats", list_chats)
    app.add_api_route("/chats/{chat_id}", show)
    app.add_api_route("/chats/{chat_id}/say", say, methods=["POST"])
    app.add_api_route("/chats/{chat_id}/approve", approve, methods=["POST"])
    app.add_api_route("/chats/{chat_id}/interrupt", interrupt, methods=["POST"], status_code=202)
    app.add_api_route("/chats/{chat_id}/tokens", tokens)
    return app


def client_of(request: Request) -> Client:
    """Return the client of the runtime that the lifespan has entered."""
    return request.state.client


Agents = Annotated[Client, Depends(client_of)]


async def health() -> dict[str, str]:
    """Say that the service runs."""
    return {"status": "ok"}


async def begin(body: NewChat, client: Agents) -> dict[str, Any]:
    """Begin a conversation. It may go on for years, over crashes and deploys.

    This code gives the state the shape of 1.0.0; a migration leads to the version that runs.
    """
    handle = await client.start(
        NAME,
        Chat(body.user),
        instance_id=body.chat_id,
        labels={"user": body.user},
        written_by="1.0.0",
    )
    return {"chat_id": handle.instance_id}


async def list_chats(client: Agents, user: str) -> list[dict[str, Any]]:
    """List the conversations of a user."""
    page = await client.list_instances(name=NAME, labels={"user": user})
    return [
        {"chat_id": info.instance_id, "version": info.version, "status": info.custom_status}
        for info in page.items
    ]


async def show(chat_id: str, client: Agents) -> dict[str, Any]:
    """Show a conversation as it stood at the last boundary, and what the agent waits for."""
    try:
        info = await client.get_instance_info(chat_id)
    except InstanceNotFound as error:
        raise HTTPException(404, str(error)) from error
    return {
        "version": info.version,
        "turn": info.execution_id,
        "state": info.input,
        "status": info.custom_status,
        "waits_for": [wait.name for wait in info.waiting_on],
    }


async def say(chat_id: str, body: Words, client: Agents) -> dict[str, Any]:
    """Say something, and wait for the answer. If it takes long, ask again with the id that this
    returns.
    """
    try:
        answer = await client.request(
            chat_id,
            "say",
            body.text,
            returns=str,
            timeout=timedelta(seconds=10),
            request_id=body.request_id,
        )
    except WaitTimeout as error:
        return {"answer": None, "request_id": error.request_id}
    except RequestRejected as error:
        raise HTTPException(422, str(error)) from error
    return {"answer": answer}


async def approve(chat_id: str, body: Approval, client: Agents) -> dict[str, str]:
    """Grant or refuse the tool that the agent wants to use."""
    answer = await client.request(
        chat_id, "approve", body, returns=str, timeout=timedelta(seconds=10)
    )
    return {"answer": answer}


async def interrupt(chat_id: str, client: Agents) -> None:
    """Stop the agent in the middle of its words."""
    await client.raise_event(chat_id, "interrupt")


async def tokens(
    chat_id: str, client: Agents, after: int = 0, *, follow: bool = True
) -> StreamingResponse:
    """Stream the agent's words as server-sent events, from all turns, behind a number.

    A browser that was cut off goes on behind the last ``id`` that it has seen.
    """

    async def events() -> AsyncGenerator[str]:
        async for item in client.read_stream(chat_id, TOKENS, after=after, follow=follow):
            attempt = "" if item.attempt is None else f"event: attempt-{item.attempt}\n"
            yield f"id: {item.offset}\n{attempt}data: {item.value}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")
