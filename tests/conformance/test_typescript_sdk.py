"""The official client for TypeScript, run by node; it is stricter than Python's in some places."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.checkout import ROOT
from tests.conformance import bodies as b
from tests.conformance.endpoint import Endpoint, prompt_tokens
from tests.conformance.rows import Row, row

pytestmark = row(Row.TYPESCRIPT_SDK)

FOLDER_VARIABLE = "ANYCLAUDE_TEST_TS_SDK"
INSTALLED = ROOT / ".venv" / "typescript-sdk"
DRIVER = Path(__file__).parent / "typescript" / "driver.mjs"
RUN_SECONDS = 180


def _unavailable(reason: str) -> NoReturn:
    """Skip at a developer's desk; fail where CI promises that everything is there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _sdk_folder() -> Path:
    if shutil.which("node") is None:
        _unavailable("node is not installed")
    folder = Path(os.environ.get(FOLDER_VARIABLE, INSTALLED)).absolute()
    if not (folder / "node_modules" / "@anthropic-ai" / "sdk").is_dir():
        _unavailable(f"no client in {folder}; run .ci/install-ts-sdk .venv/typescript-sdk")
    return folder


@pytest.fixture(scope="module")
def seen(surface: Endpoint) -> Any:
    """What every case of the driver saw."""
    arguments = [_sdk_folder(), surface.base_url, surface.api_key, surface.model]
    done = subprocess.run(
        ["node", DRIVER, *map(str, arguments), json.dumps(b.BASH)],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def value(endpoint: Endpoint, seen: Any, case: str) -> Any:
    """The value of a case that has to succeed; `endpoint` holds whether it applies at all."""
    assert "error" not in seen[case], seen[case]["error"]
    return seen[case]["value"]


def test_create(endpoint: Endpoint, seen: Any) -> None:
    """A whole answer is a message whose usage adds up."""
    message = value(endpoint, seen, "create")
    assert message["type"] == "message"
    assert prompt_tokens(message["usage"]) == endpoint.count()


def test_events(endpoint: Endpoint, seen: Any) -> None:
    """The raw stream begins and ends with the right events."""
    events = [name for name in value(endpoint, seen, "events") if name != "ping"]
    assert (events[0], events[-2:]) == ("message_start", ["message_delta", "message_stop"])


def test_stream(endpoint: Endpoint, seen: Any) -> None:
    """The text of the stream is the text of the final message."""
    told = value(endpoint, seen, "stream")
    text = "".join(block.get("text", "") for block in told["final"]["content"])
    assert told["heardAfter"] == text
    assert told["final"]["stop_reason"] in ("end_turn", "max_tokens")


def test_tool_stream(endpoint: Endpoint, seen: Any) -> None:
    """A streamed call arrives as parsed input."""
    final = value(endpoint, seen, "tool")["final"]
    uses = [block for block in final["content"] if block["type"] == "tool_use"]
    if not uses:
        pytest.skip("the model made no call")
    assert final["stop_reason"] == "tool_use"
    assert isinstance(uses[0]["input"]["command"], str)


def test_beta(endpoint: Endpoint, seen: Any) -> None:
    """The beta endpoint answers, unknown betas named."""
    assert value(endpoint, seen, "beta")["type"] == "message"


def test_count(endpoint: Endpoint, seen: Any) -> None:
    """Counting works with tools."""
    assert value(endpoint, seen, "count")["input_tokens"] == endpoint.count(tools=[b.BASH])


def test_models(endpoint: Endpoint, seen: Any) -> None:
    """Models are listed to their end, and found by id."""
    assert value(endpoint, seen, "model")["id"] == value(endpoint, seen, "models")[0]


def test_leaving_a_stream(endpoint: Endpoint, seen: Any) -> None:
    """After a stream is left in the middle, client and server still work."""
    assert value(endpoint, seen, "leave")["stop_reason"]


@pytest.mark.parametrize(
    ("case", "name", "kind"),
    [
        ("bad", "BadRequestError", "invalid_request_error"),
        ("badStream", "BadRequestError", "invalid_request_error"),
        ("missing", "NotFoundError", "not_found_error"),
    ],
    ids=["whole", "stream", "missing"],
)
def test_refusal(endpoint: Endpoint, seen: Any, case: str, name: str, kind: str) -> None:
    """A refusal is the error of its status, with type and request id."""
    error = value(endpoint, seen, case)
    assert (error["name"], error["body"]["error"]["type"]) == (name, kind)
    assert error["requestID"]
