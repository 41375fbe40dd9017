"""The agent over real HTTP: its words are streamed, a person approves its tools, it is killed in the
middle of a turn, and it takes a new version between two turns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.examples.test_fastapi_service import Service, wait_until
from tests.support.example_modules import EXAMPLES

pytestmark = pytest.mark.slow  # programs of their own


class Agent(Service):
    """The example as a process of its own."""

    program = EXAMPLES / "agent_chat"

    def begin(self, chat: str, user: str = "ann") -> None:
        answer = self.http.post("/chats", json={"user": user, "chat_id": chat})
        assert answer.status_code == 201, answer.text

    def say(self, chat: str, text: str, request_id: str | None = None) -> Any:
        body = {"text": text, "request_id": request_id}
        answer = self.http.post(f"/chats/{chat}/say", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["answer"]

    def show(self, chat: str) -> dict[str, Any]:
        return self.http.get(f"/chats/{chat}").json()

    def tokens(self, chat: str, after: int = 0) -> list[tuple[int, str]]:
        answer = self.http.get(f"/chats/{chat}/tokens", params={"after": after, "follow": False})
        assert answer.status_code == 200, answer.text
        return list(read_events(answer.text.splitlines()))

    def wait_for(self, chat: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            shown = self.show(chat)
            return shown if condition(shown) else None

        return wait_until(look)


def read_events(lines: Iterator[str] | list[str]) -> Iterator[tuple[int, str]]:
    """Yield the numbers and the words of server-sent events."""
    number = 0
    for line in lines:
        if line.startswith("id: "):
            number = int(line.removeprefix("id: "))
        elif line.startswith("data: "):
            yield number, line.removeprefix("data: ")


@pytest.fixture
def bill(tmp_path: Path) -> Path:
    return tmp_path / "bill.txt"


@pytest.fixture
def start_agent(tmp_path: Path, bill: Path) -> Iterator[Callable[..., Agent]]:
    """Start the service on this test's database."""
    agents: list[Agent] = []

    def start(**environment: str) -> Agent:
        agents.append(Agent(tmp_path / "chats.db", MODEL_BILL=str(bill), **environment))
        agents[-1].wait_until_ready()
        return agents[-1]

    yield start
    for agent in agents:
        agent.close()


def test_words_are_streamed_while_the_agent_speaks_and_chats_are_listed_by_user(
    start_agent: Callable[..., Agent],
) -> None:
    agent = start_agent()
    agent.begin("c-1")
    agent.begin("c-2", user="bob")
    heard: list[tuple[int, str]] = []

    def listen() -> None:
        with (
            httpx.Client(base_url=agent.http.base_url, timeout=30, trust_env=False) as http,
            http.stream("GET", "/chats/c-1/tokens") as stream,
        ):
            for event in read_events(stream.iter_lines()):
                heard.append(event)
                if len(heard) == 7:
                    return

    listener = threading.Thread(target=listen)
    listener.start()
    assert agent.say("c-1", "hello") == "Indeed, you said: hello, which is line 1"
    listener.join(30)
    assert not listener.is_alive()
    assert [word for _, word in heard] == [
        "Indeed,",
        "you",
        "said:",
        "hello,",
        "which",
        "is",
        "line",
    ]
    assert [number for number, _ in heard] == list(range(1, 8))
    assert [number for number, _ in agent.tokens("c-1", after=7)] == [8]
    listed = agent.http.get("/chats", params={"user": "bob"}).json()
    assert [one["chat_id"] for one in listed] == ["c-2"]
    assert agent.stop() == 0


def test_a_tool_waits_for_a_person_over_a_kill(start_agent: Callable[..., Agent]) -> None:
    agent = start_agent()
    agent.begin("c-1")
    with pytest.raises(httpx.ReadTimeout):
        agent.http.post(
            "/chats/c-1/say", json={"text": "refund 42", "request_id": "r-1"}, timeout=1
        )
    agent.wait_for("c-1", lambda shown: shown["status"] == "waits for approval: refund 42")
    agent.close()
    agent = start_agent()
    granted = agent.http.post("/chats/c-1/approve", json={"granted": True, "by": "bob"})
    assert granted.json() == {"answer": "thank you"}
    # The answer to the request that the kill has cut off.
    assert agent.say("c-1", "refund 42", "r-1") == "Indeed, the tool says: refund 42 is done"
    refused = threading.Thread(
        target=lambda: agent.http.post("/chats/c-1/say", json={"text": "refund 43"})
    )
    refused.start()
    agent.wait_for("c-1", lambda shown: shown["status"] == "waits for approval: refund 43")
    agent.http.post("/chats/c-1/approve", json={"granted": False, "by": "bob"})
    refused.join(30)
    shown = agent.wait_for("c-1", lambda shown: shown["turn"] == 3)
    assert shown["state"]["said"][-1]["text"] == "Indeed, the tool says: bob has refused refund 43"


def test_a_kill_in_the_middle_of_a_turn_pays_no_model_call_twice(
    start_agent: Callable[..., Agent], bill: Path
) -> None:
    agent = start_agent(MODERATION_PAUSE="3600")
    agent.begin("c-1")
    with pytest.raises(httpx.ReadTimeout):
        agent.http.post(
            "/chats/c-1/say", json={"text": "weather Bern", "request_id": "r-1"}, timeout=1
        )
    wait_until(lambda: bill.exists() and bill.read_text().splitlines())
    words = len(agent.tokens("c-1"))
    agent.close()
    assert bill.read_text().splitlines() == ["1 weather Bern"]
    agent = start_agent()
    assert agent.say("c-1", "weather Bern", "r-1") == "Indeed, the tool says: it rains in Bern"
    # The tool's answer is a second call; the first one was not made again.
    assert bill.read_text().splitlines() == ["1 weather Bern", "2 it rains in Bern"]
    streamed = agent.tokens("c-1")
    assert [number for number, _ in streamed] == list(range(1, len(streamed) + 1))
    assert len(streamed) == words + len(
        ["Indeed,", "the", "tool", "says:", "it", "rains", "in", "Bern"]
    )


def test_the_agent_is_interrupted_in_the_middle_of_its_words(
    start_agent: Callable[..., Agent],
) -> None:
    agent = start_agent(MODEL_PAUSE="5")
    agent.begin("c-1")
    answers: list[str] = []
    speaking = threading.Thread(target=lambda: answers.append(agent.say("c-1", "hello")))
    speaking.start()
    agent.wait_for("c-1", lambda shown: "think" in shown["waits_for"])
    assert agent.http.post("/chats/c-1/interrupt").status_code == 202
    speaking.join(30)
    assert answers == ["(interrupted)"]
    assert agent.tokens("c-1")[-1][1] == "(interrupted)"


def test_the_next_version_takes_over_between_two_turns_with_the_whole_history(
    start_agent: Callable[..., Agent],
) -> None:
    agent = start_agent(VERSIONS="1.0.0")
    agent.begin("c-1")
    assert agent.say("c-1", "hello") == "Well, you said: hello, which is line 1"
    agent.wait_for("c-1", lambda shown: shown["turn"] == 2)
    assert agent.stop() == 0
    agent = start_agent()
    # The turn that waits began under 1.0.0, and ends under it.
    assert agent.say("c-1", "again") == "Well, you said: again, which is line 3"
    shown = agent.wait_for("c-1", lambda shown: shown["turn"] == 3 and shown["waits_for"])
    assert shown["version"] == "2.0.0"
    assert agent.say("c-1", "and now") == "Indeed, you said: and now, which is line 5"
    shown = agent.wait_for("c-1", lambda shown: shown["turn"] == 4)
    assert [(one["role"], one["version"]) for one in shown["state"]["said"]] == [
        *[("user", "1.0.0"), ("agent", "1.0.0")] * 2,
        ("user", "2.0.0"),
        ("agent", "2.0.0"),
    ]
