"""The whole service explains why a prompt was not reused, in the CLI and in the API."""

import json
from pathlib import Path
from typing import Any, Final

import anthropic
import httpx
import pytest

from anyclaude.messages.identity import SESSION_HEADER
from tests.integration.conversation import Talker, body, instructions
from tests.integration.service import Service, worker_of
from tests.models.requests import BASH, Block, assistant, system, user

# A text that occurs nowhere else, so that any leak of it is found.
_SECRET: Final = "quicksilver heron"
_READ: Final[Block] = BASH | {"name": "Read", "description": "Reads a file."}


@pytest.fixture
def service(demo: Service) -> Service:
    return demo


def _latest(service: Service) -> Any:
    """The CLI's explanation of the newest request."""
    newest = service.control("requests", "-n", "1", "--json").json["requests"][0]
    told = service.control("cache", "explain", newest["request_id"], "--json")
    assert told.code == 0, told.stderr
    explanation = told.json["explanation"]
    assert explanation["cause"] == newest["reuse_cause"]
    assert explanation["computed_tokens"] == (
        newest["usage"]["input_tokens"] + newest["usage"]["cache_creation_tokens"]
    )
    return explanation


def _turn(answer: anthropic.types.Message) -> Block:
    return assistant(*(block.model_dump(exclude_none=True) for block in answer.content))


def test_a_changed_line_in_the_instructions_is_named(service: Service) -> None:
    """A resumed conversation is reused up to the changed line, and both lines are shown."""
    rules = instructions("Rules") + f"\nThe {_SECRET} rests.\n" + instructions("More", 5)
    with Talker(service, "resumed") as talker:
        first = [user("Hello."), system(rules)]
        answer = talker.ask(*first, tools=[BASH])
        goes_on = [*first, _turn(answer), user("And now?")]
        talker.ask(*goes_on, tools=[BASH])
        changed = [user("Hello."), system(rules.replace("heron rests", "heron flies"))]
        resumed = talker.ask(*changed, *goes_on[2:], tools=[BASH])

    told = _latest(service)
    assert told["cause"] == "instructions_changed"
    assert told["instructions"] == [0]
    divergence = told["divergence"]
    assert divergence["before"].endswith(_SECRET) or _SECRET in divergence["before"]
    assert divergence["kept"].lstrip().startswith("rests")
    assert divergence["came"].lstrip().startswith("flies")
    assert resumed.usage.cache_read_input_tokens == divergence["offset"] > 500

    people = service.control("cache", "explain", told["request_id"])
    assert people.code == 0
    assert "instructions_changed: the instructions changed" in people.stdout
    assert "rests" in people.stdout
    assert "flies" in people.stdout


def test_a_changed_tool_is_named_with_its_field(service: Service) -> None:
    """The changed tool and its changed field are named."""
    louder = _READ | {"description": "Reads a file aloud."}
    with Talker(service, "tools") as talker:
        first = [user("Hello.")]
        answer = talker.ask(*first, system=instructions("Tools"), tools=[BASH, _READ])
        messages = [*first, _turn(answer), user("And now?")]
        talker.ask(*messages, system=instructions("Tools"), tools=[BASH, louder])

    told = _latest(service)
    assert told["cause"] == "tools_changed"
    assert told["tools"] == [{"name": "Read", "kind": "changed", "fields": ["description"]}]
    assert "aloud" in told["divergence"]["came"]
    (record,) = service.control("requests", "-n", "1", "--json").json["requests"]
    assert record["reuse_cause"] == "tools_changed"
    assert record["request_id"] == told["request_id"]


def test_a_change_is_named_across_a_restart() -> None:
    """Digests survive the worker; text is neither on disk nor in the logs."""
    with Service() as service:
        service.ready()
        rules = instructions("Restart") + f"The {_SECRET} rests."
        with Talker(service, "again") as talker:
            first = [user("Hello.")]
            answer = talker.ask(*first, system=rules, tools=[BASH])
            old = worker_of(service.status(), "mlx").generation
            assert service.control("worker", "restart", "mlx").code == 0
            service.ready()
            assert worker_of(service.status(), "mlx").generation > old
            messages = [*first, _turn(answer), user("And now?")]
            talker.ask(*messages, system=rules.replace("rests", "flies"), tools=[BASH])

        told = _latest(service)
        assert told["cause"] == "instructions_changed"
        assert told["reused_disk_tokens"] + told["reused_memory_tokens"] > 500
        files = [file for file in service.home.rglob("*") if file.is_file()]
        assert any(file.suffix == ".prefix" for file in files)
        assert not [file for file in files if _holds(file, _SECRET)]


def _holds(file: Path, words: str) -> bool:
    return words.encode() in file.read_bytes()


def _diagnosed(http: httpx.Client, asked: Block) -> Any:
    """The response's diagnostics and its id."""
    answer = http.post("/v1/messages", json=asked, headers={SESSION_HEADER: "diagnosed"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_api_diagnoses_against_the_message_named(service: Service) -> None:
    """`diagnostics` is in the response only if the request has it."""
    own = {"system": instructions("Diagnosis"), "tools": [BASH]}
    with service.http() as http:
        first = _diagnosed(http, body(user("Hello."), **own))
        assert "diagnostics" not in first
        named = {"diagnostics": {"previous_message_id": first["id"]}}
        messages = [user("Hello."), assistant(*first["content"]), user("And now?")]

        same = _diagnosed(http, body(user("Hello."), **own, **named))
        assert same["diagnostics"] is None
        named = {"diagnostics": {"previous_message_id": same["id"]}}
        for changes, reason in (
            ({"system": instructions("Another")}, "system_changed"),
            ({"tools": [BASH | {"description": "Else."}]}, "tools_changed"),
            ({"messages": [user("Good day."), *messages[1:]]}, "messages_changed"),
        ):
            fields = own | named | changes
            asked = body(*fields.pop("messages", messages), **fields)
            told = _diagnosed(http, asked)["diagnostics"]["cache_miss_reason"]
            assert told["type"] == reason
            assert told["cache_missed_input_tokens"] > 0
            # Ask as before, so that the next change has something to be compared with.
            named = {
                "diagnostics": {
                    "previous_message_id": _diagnosed(http, body(user("Hello."), **own))["id"]
                }
            }

        unknown = {"diagnostics": {"previous_message_id": "msg_never"}}
        told = _diagnosed(http, body(*messages, **own, **unknown))["diagnostics"]
        assert told == {"cache_miss_reason": {"type": "previous_message_not_found"}}
        opted_in = {"diagnostics": {"previous_message_id": None}}
        assert _diagnosed(http, body(*messages, **own, **opted_in))["diagnostics"] is None


def test_a_stream_carries_the_diagnosis_in_its_first_event(service: Service) -> None:
    """`message_start` has the diagnosis of the whole response."""
    asked = body(user("Hello."), diagnostics={"previous_message_id": "msg_never"}, stream=True)
    with service.http() as http, http.stream("POST", "/v1/messages", json=asked) as answer:
        line = next(line for line in answer.iter_lines() if line.startswith("data: "))
    message = json.loads(line.removeprefix("data: "))["message"]
    reason = message["diagnostics"]["cache_miss_reason"]
    assert reason == {"type": "previous_message_not_found"}


def test_requests_not_remembered_are_not_found(service: Service) -> None:
    """An unknown id exits with 4 and says where ids are shown."""
    told = service.control("cache", "explain", "req_nobody")
    assert told.code == 4
    assert "anyclaudectl requests" in told.stderr


def test_causes_are_counted_and_none_is_unknown(service: Service) -> None:
    """The metrics count each cause, and unknown stays 0."""
    metrics = service.control("metrics", "--json").json["metrics"]
    name = "anyclaude_prefix_reuse_causes_total"
    causes = {m["labels"]["cause"]: m["value"] for m in metrics if m["name"] == name}
    assert causes["unknown"] == 0
