"""The real Claude Code with an image in its conversation, where models read text only."""

import base64
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.claude_code import ClaudeCode
from tests.e2e.namespace import Namespace
from tests.e2e.scripted import listen_within
from tests.e2e.service import Service
from tests.e2e.transcript import Transcript, parse_transcript
from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.relay_process import RelayProcess
from tests.integration.scripted_upstream import (
    HELLO,
    STREAM,
    Request,
    ScriptedUpstream,
    Step,
    event,
    messages_server,
    openai_server,
    response,
)

_SIDE = 32
_SIGNATURE = "c2lnbmVkIGJ5IHRoZSBzZWVpbmcgc2VydmVy"


def _png() -> bytes:
    """A black square."""

    def part(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    head = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\0\0\0" * _SIDE) * _SIDE
    parts = part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_a_pasted_image(claude: ClaudeCode, service: Service, project: Path) -> None:
    """An image in the user's message reaches the text-only model as a sentence; turns go on."""
    source = {
        "type": "base64",
        "media_type": "image/png",
        "data": base64.b64encode(_png()).decode(),
    }
    words = {"type": "text", "text": "What is in this picture?"}
    message = {"role": "user", "content": [{"type": "image", "source": source}, words]}
    first = _say(claude, {"type": "user", "message": message}, project)
    assert first.succeeded, first
    second = claude.ask("And what now?", project, resume=True)
    assert second.succeeded, second
    assert second.session_id == first.session_id
    asked = service.control("requests", "--json").json["requests"]
    assert {one["status"] for one in asked if one["route"] == "/v1/messages"} == {200}


def _say(claude: ClaudeCode, message: dict[str, Any], folder: Path) -> Transcript:
    """Sends one message as JSON, the way in which a program passes on a pasted image."""
    formats = ["--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
    done = claude.run(["-p", *formats], folder, input_text=json.dumps(message) + "\n")
    return parse_transcript(done.stdout, done.stderr, done.returncode)


def _seeing(request: Request) -> Sequence[Step]:
    """A server of the Messages API: it thinks, and reads the image that it is told to look at."""
    last = request.json["messages"][-1]["content"]
    blocks: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "I look.", "signature": _SIGNATURE}
    ]
    reason = "end_turn"
    if "tool_result" in str(last):
        blocks.append({"type": "text", "text": "I see a black square."})
    elif "LOOK AT" in str(last):
        path = str(last).partition("LOOK AT ")[2].partition(" NOW")[0]
        call = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": path}}
        blocks.append(call)
        reason = "tool_use"
    else:
        blocks.append({"type": "text", "text": "It is still black."})
    usage = {"input_tokens": 9, "output_tokens": 9}
    message = {"type": "message", "role": "assistant", "model": "m", "content": []}
    told: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "id": "msg_1", "usage": usage}}
    ]
    for index, block in enumerate(blocks):
        told += [{**each, "index": index} for each in _block_events(block)]
    told.append({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage})
    told.append({"type": "message_stop"})
    return [STREAM, *(event(each, each["type"]) for each in told)]


def _block_events(block: dict[str, Any]) -> list[dict[str, Any]]:
    match block["type"]:
        case "thinking":
            first = {**block, "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        case "text":
            first, deltas = {**block, "text": ""}, [{"type": "text_delta", "text": block["text"]}]
        case _:
            first = {**block, "input": {}}
            written = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": written}]
    return [
        {"type": "content_block_start", "content_block": first},
        *({"type": "content_block_delta", "delta": delta} for delta in deltas),
        {"type": "content_block_stop"},
    ]


def _blind(request: Request) -> Sequence[Step]:
    """A server of chat completions whose model reads text only."""
    if "image_url" in request.body.decode():
        return [response(400, {"error": {"message": "image_url is not supported by this model"}})]
    return HELLO


@pytest.fixture
def seeing() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(messages_server(_seeing)) as server:
        yield server


@pytest.fixture
def blind() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(openai_server(_blind)) as server:
        yield server


@pytest.fixture
def base_url(
    namespace: Namespace, seeing: ScriptedUpstream, blind: ScriptedUpstream
) -> Iterator[str]:
    """A front end with a mode for each of the two servers."""
    tables = {
        "seeing": {"base_url": seeing.base_url, "dialect": "anthropic", "model": "m"},
        "blind": {"base_url": blind.base_url, "dialect": "openai", "model": "m"},
    }
    with (
        RelayProcess(tables) as relay,
        FrontendProcess(listen_within(namespace), ping_interval_seconds=1) as front,
    ):
        front.push(*(route(relay.socket_path, mode=mode, relayed=True) for mode in relay.modes))
        yield front.base_url


def test_a_switch_to_a_model_that_reads_text_only_and_back(
    claude_binary: Path,
    namespace: Namespace,
    base_url: str,
    seeing: ScriptedUpstream,
    blind: ScriptedUpstream,
    project: Path,
    tmp_path: Path,
) -> None:
    """An image that was read and signed thoughts refuse no turn in another mode, nor after it."""
    home = tmp_path / "home"
    home.mkdir()
    (project / "black.png").write_bytes(_png())
    claude = ClaudeCode(claude_binary, namespace, base_url, home)

    def ask(mode: str, prompt: str, **options: Any) -> Transcript:
        headers = {"ANTHROPIC_CUSTOM_HEADERS": f"x-anyclaude-mode: {mode}"}
        ended = replace(claude, environment=headers).ask(
            prompt, project, allowed_tools=["Read"], **options
        )
        assert ended.succeeded, ended
        return ended

    first = ask("seeing", f"LOOK AT {project / 'black.png'} NOW")
    assert [use.name for use in first.tool_uses] == ["Read"]
    assert first.result == "I see a black square."
    assert '"type":"image"' in seeing.posts("/v1/messages")[-1].body.decode().replace(" ", "")

    assert ask("blind", "And now?", resume=True).result == "Hello"
    taken = blind.posts("/v1/chat/completions")[-1].body.decode()
    assert "does not see it" in taken
    assert _SIGNATURE not in taken

    assert ask("seeing", "Still?", resume=True).result == "It is still black."
    sent = seeing.posts("/v1/messages")[-1].body.decode()
    assert _SIGNATURE in sent
    assert '"type":"image"' in sent.replace(" ", "")
