"""Every mode of a whole service is answered by its own server."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import pytest

from anyclaude.control.v1 import control_pb2
from anyclaude.mlx.demo import MODEL_PATH
from anyclaude.runtime.settings import Settings
from anyclaude.supervisor.modes import catalog
from tests.checkout import ROOT
from tests.integration.conversation import body
from tests.integration.mlx_server import MlxServer
from tests.integration.scripted_upstream import (
    HELLO,
    STREAM,
    Request,
    ScriptedUpstream,
    Step,
    event,
    response,
)
from tests.integration.service import Service
from tests.models.requests import user

_MODE: Final = "x-anyclaude-mode"
_KEY: Final = "sk-of-every-mode"
_README: Final = (ROOT / "README.md").read_text()
# The counts of a server that counts.
_COUNTED: Final = {"vllm": 7, "claude": 11}
_EVENTS: Final = (
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 2},
    },
    {"type": "message_stop"},
)
_UNFIT: Final = response(400, {"error": {"type": "invalid_request_error", "message": "no"}})
_UNKNOWN: Final = response(404, {"detail": "Not Found"})


def _openai(request: Request) -> Sequence[Step]:
    """Serves chat completions; like vLLM, it also counts tokens."""
    match request.path:
        case "/v1/models":
            return [response(200, {"data": [{"id": "served", "max_model_len": 8192}]})]
        case "/v1/chat/completions":
            return HELLO if "messages" in request.json else [_UNFIT]
        case "/tokenize":
            return [response(200, {"count": _COUNTED["vllm"], "tokens": [1] * 7})]
    return [_UNKNOWN]


def _anthropic(request: Request) -> Sequence[Step]:
    """Serves Messages; a server that counts has a path for that."""
    match request.path:
        case "/v1/models":
            return [response(200, {"data": [{"id": "served"}]})]
        case "/v1/messages" if "messages" in request.json:
            return [STREAM, *(event(data, str(data["type"])) for data in _EVENTS)]
        case "/v1/messages":
            return [_UNFIT]
        case "/v1/messages/count_tokens" if request.header("x-api-key") == _KEY:
            return [response(200, {"input_tokens": _COUNTED["claude"]})]
    return [_UNKNOWN]


_SCRIPTED: Final = {
    "lmstudio": _openai,
    "vllm": _openai,
    "llama-cpp": _openai,
    "ollama": _anthropic,
    "openrouter": _openai,
    "claude": _anthropic,
}


class Everything:
    """A service with a server behind every mode; `mine` is a real one."""

    def __init__(self, stack: ExitStack) -> None:
        real = stack.enter_context(MlxServer(MODEL_PATH))
        self.upstreams = {
            name: stack.enter_context(ScriptedUpstream(script))
            for name, script in _SCRIPTED.items()
        }
        addresses = {name: upstream.base_url for name, upstream in self.upstreams.items()}
        environ = {
            f"ANYCLAUDE__UPSTREAMS__{name.upper()}__BASE_URL": address
            for name, address in (addresses | {"mine": real.base_url}).items()
        }
        environ |= {
            "ANYCLAUDE__UPSTREAMS__MINE__MODEL": "default_model",
            "OPENROUTER_MODEL": "somebody/something",
            "OPENROUTER_API_KEY": _KEY,
            "ANTHROPIC_API_KEY": _KEY,
        }
        self.service = stack.enter_context(Service(**environ)).ready()

    def generations(self) -> dict[str, int]:
        """How many prompts each scripted server received."""
        return {
            name: sum(
                request.method == "POST" and b'"messages"' in request.body
                for request in upstream.posts("/v1/messages")
                + upstream.posts("/v1/chat/completions")
            )
            for name, upstream in self.upstreams.items()
        }


@pytest.fixture(scope="module")
def everything() -> Iterator[Everything]:
    with ExitStack() as stack:
        yield Everything(stack)


@pytest.mark.parametrize("mode", ["mlx-lm", *_SCRIPTED, "mine", "auto"])
def test_every_mode_is_reachable(everything: Everything, mode: str) -> None:
    """A stream and a count in each mode reach its server and no other."""
    service, before = everything.service, everything.generations()
    chosen = service.control("mode", mode)
    question = body(user("Hello?"), max_tokens=20, stream=True)
    del question["temperature"]
    counting = {key: question[key] for key in ("model", "messages")}
    with service.http() as http:
        answer = http.post("/v1/messages", json=question)
        counted = http.post("/v1/messages/count_tokens", json=counting)
    status = service.control("status", "--json").json
    listed = {known["name"]: known for known in service.control("mode", "--json").json["modes"]}
    heard = {name for name, count in everything.generations().items() if count != before[name]}

    assert chosen.code == 0, chosen.stderr
    assert (answer.status_code, counted.status_code) == (200, 200), answer.text
    taken = "mlx-lm" if mode == "auto" else mode
    assert answer.headers[_MODE] == taken
    assert '"text_delta"' in answer.text
    assert '"message_stop"' in answer.text
    tokens = counted.json()["input_tokens"]
    assert tokens == _COUNTED.get(mode, tokens) > 0
    assert (status["mode"], status["readiness"]) == (mode, "ready")
    assert (listed[mode]["ready"], listed[mode]["reason"]) == (True, "")
    assert listed[mode]["keeps_caches"] is (mode in ("mlx-lm", "auto"))
    assert heard == {mode} & everything.upstreams.keys()


def test_the_readme_has_every_mode() -> None:
    """The README has a row for each mode: purpose, tools, cache, and what leaves the machine."""
    section = _README.partition("\n## Modes\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    head, _, *table = rows
    named = {name for row in table for name in re.findall(r"`([a-z-]+)`", row[0])}

    assert head == ["Mode", "What it is for", "Tools", "Prompt cache", "What leaves the machine"]
    assert named == set(catalog(Settings()))
    assert all(len(row) == len(head) and all(row) for row in table)


def test_the_key_is_in_no_error_of_claude_mode() -> None:
    """No response, log, record or metric shows the key, also if the API refuses or is down."""
    refusal = {"type": "error", "error": {"type": "authentication_error", "message": "no"}}
    with ExitStack() as stack:
        upstream = stack.enter_context(ScriptedUpstream(lambda _: [response(401, refusal)]))
        address = {"ANYCLAUDE__UPSTREAMS__CLAUDE__BASE_URL": upstream.base_url}
        service = stack.enter_context(
            Service(
                "--mode", "claude", ANTHROPIC_API_KEY=_KEY, ANYCLAUDE_LOG_LEVEL="debug", **address
            )
        )
        http = stack.enter_context(service.http())
        for name in ("relay", "frontend"):
            service.wait_worker(control_pb2.WORKER_STATE_READY, name)
        # A request that is read before the front end knows the mode gets an error to retry.
        refused = http.post("/v1/messages", json=body(user("hi")))
        while refused.status_code == 529:
            refused = http.post("/v1/messages", json=body(user("hi")))
        sent = [request.header("x-api-key") for request in upstream.posts("/v1/messages")]
        upstream.close()
        gone = http.post("/v1/messages", json=body(user("hi")))
        shown = [
            service.control(*words.split())
            for words in ("mode claude", "status --json", "requests --json", "metrics --prometheus")
        ]
        logs = service.paths.log_file.read_text() + service.output

    assert (refused.status_code, refused.json()) == (401, refusal)
    assert sent == [_KEY]
    assert gone.status_code >= 500
    assert shown[0].code == 5
    words = [refused.text, gone.text, logs, *(f"{said.stdout}{said.stderr}" for said in shown)]
    assert not any(_KEY in text for text in words)
    assert json.loads(shown[2].stdout)["requests"][0]["error_type"]
