"""Images that another mode describes to the local model; both workers are scripted."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.runtime.settings import VisionSettings
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say
from tests.integration.frontend_process import FrontendProcess, post, route
from tests.integration.scripted_worker import ScriptedWorker

SIGHT = VisionSettings(mode="lmstudio", max_descriptions=2)


class Sight:
    """A server that sees images; it counts what it is asked."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.answers: list[list[worker.GenerateResponse]] = []
        self.route = frontend.Route()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, call: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        self.bodies.append(json.loads(call.body_json))
        assert self.may_answer.wait(60)
        yield from (self.answers.pop(0) if self.answers else say.text_answer("A red ", "fox."))


@pytest.fixture
def sight() -> Sight:
    return Sight()


@pytest.fixture
def seen() -> list[Any]:
    """The bodies that the local model got."""
    return []


@pytest.fixture
def front(sight: Sight, seen: list[Any]) -> Iterator[FrontendProcess]:
    def local(call: worker.GenerateRequest) -> Iterator[worker.GenerateResponse]:
        seen.append(json.loads(call.body_json))
        return say.text_answer("Fine.")

    with (
        ScriptedWorker() as model,
        ScriptedWorker() as server,
        FrontendProcess(
            vision=SIGHT,
            worker_restart_wait_seconds=0,
            accept_wait_seconds=0.3,
            ping_interval_seconds=0.2,
        ) as process,
    ):
        model.script, server.script = local, sight
        sight.route = route(server.socket_path, mode="lmstudio", relayed=True)
        process.push(route(model.socket_path), sight.route)
        yield process


def image(data: str = "aGk=") -> Any:
    source = {"type": "base64", "media_type": "image/png", "data": data}
    return {"type": "image", "source": source}


def ask(front: FrontendProcess, *content: Any, **headers: str) -> httpx.Response:
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": "What is it?"}]}]
    body = {"model": "m", "max_tokens": 9, "messages": messages}
    answer = post(front, body, **headers)
    assert answer.status_code == 200, answer.text
    return answer


def first_text(body: Any) -> str:
    return str(body["messages"][0]["content"][0].get("text", ""))


def test_an_image_is_described_once(front: FrontendProcess, sight: Sight, seen: list[Any]) -> None:
    """The model reads the description in every turn, and the server sees the image once."""
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image()]}
    ask(front, image())
    ask(front, image(), result)

    assert len(sight.bodies) == 1
    assert sight.bodies[0]["messages"][0]["content"][0] == image()
    assert "A red fox." in first_text(seen[0])
    assert first_text(seen[0]) == first_text(seen[1])
    assert "A red fox." in seen[1]["messages"][0]["content"][1]["content"][0]["text"]


def test_the_newest_descriptions_are_kept(front: FrontendProcess, sight: Sight) -> None:
    """Files are private to the user, and no more than the settings allow."""
    for data in ("YQ==", "Yg==", "Yw=="):
        ask(front, image(data))
    files = list(front.paths.descriptions_folder.iterdir())
    assert len(files) == 2
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_server_that_fails_is_asked_later(
    front: FrontendProcess, sight: Sight, seen: list[Any]
) -> None:
    """The conversation goes on with the image as it is, and not every turn asks again."""
    sight.answers = [[say.failed(503, "No model is loaded.")]]
    ask(front, image())
    ask(front, image())

    assert len(sight.bodies) == 1
    assert [body["messages"][0]["content"][0] for body in seen] == [image(), image()]


def test_images_at_an_address_and_other_modes(
    front: FrontendProcess, sight: Sight, seen: list[Any]
) -> None:
    """Nothing is fetched for an address, and a server that sees images gets them as they are."""
    ask(front, {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}})
    assert sight.bodies == []
    ask(front, image(), **{"x-anyclaude-mode": "lmstudio"})
    assert sight.bodies[0]["messages"][0]["content"][0] == image()
    assert len(seen) == 1


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize("end", ["Fine.", "error"])
def test_pings_while_an_image_is_described(
    front: FrontendProcess, sight: Sight, path: str, end: str
) -> None:
    """A stream that waits for a description is not silent, and ends in the answer or an error."""
    if end == "error":
        front.push(route("/nowhere"), sight.route)
    sight.may_answer.clear()
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    content = [image() if path == "/v1/messages" else picture]
    messages = [{"role": "user", "content": content}]
    body = {"model": "m", "max_tokens": 9, "stream": True, "messages": messages}
    with httpx.stream(
        "POST", front.base_url + path, json=body, timeout=60, trust_env=False
    ) as answer:
        pieces = answer.iter_text()
        while_describing = [next(pieces), next(pieces)]
        sight.may_answer.set()
        rest = "".join(pieces)
    assert answer.status_code == 200
    assert all("ping" in piece for piece in while_describing), while_describing
    assert end in rest
    assert len(sight.bodies) == 1
