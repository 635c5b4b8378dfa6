"""Every error that a client can get: how it comes about, and what whoever sees it should do."""

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

from tests.integration.conversation import body
from tests.integration.errors_page.stage import Stage
from tests.integration.scripted_upstream import STREAM, Hang, chunk, event
from tests.models.requests import user

_MEGABYTE: Final = 1024 * 1024
_BASH_CALL: Final = {"type": "tool_use", "id": 7, "name": "Bash", "input": {}}
_IMAGE: Final = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/a.png"}}
_TOO_LONG: Final = "This model's maximum context length is 4096 tokens. However, you requested "


@dataclass(frozen=True)
class Example:
    """One error."""

    title: str
    when: str
    # What the user should do.
    do: str
    ask: Callable[[Stage], str]


@dataclass(frozen=True)
class Chapter:
    """Errors of one kind."""

    title: str
    examples: tuple[Example, ...]


def _raw(content: bytes) -> Callable[[Stage], str]:
    return lambda stage: stage.ask("POST", "/v1/messages", content=content)


def _refused(
    status: int, message: str, *headers: str, mode: str = "lmstudio"
) -> Callable[..., str]:
    def ask(stage: Stage) -> str:
        stage.refusing(status, message, *headers)
        return stage.relayed(mode)

    return ask


def _overflow(stage: Stage) -> str:
    return stage.ask("POST", "/v1/messages", json=body(user("fox " * 5000)))


def _too_little_room(stage: Stage) -> str:
    stage.refusing(400, _TOO_LONG + "12072 tokens (3880 in the messages, 8192 in the completion).")
    return stage.relayed(max_tokens=8192)


def _large(stage: Stage) -> str:
    return stage.ask("POST", "/v1/messages", content=b"x" * (33 * _MEGABYTE))


def _stalled(stage: Stage) -> str:
    head = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"
    return _broken_off(stage, head)


def _late(stage: Stage) -> str:
    return _broken_off(stage, b"POST /v1/messages HTTP/1.1\r\nhost: ")


def _broken_off(stage: Stage, head: bytes) -> str:
    """What a client is told that sends this and no more."""
    with stage.without_daemon(client_stall_seconds=0.2) as http:
        port = http.base_url.port
        with socket.create_connection(("127.0.0.1", port or 0)) as connection:
            connection.sendall(head)
            answer = connection.makefile("rb").read()
    told, _, content = answer.partition(b"\r\n\r\n")
    first, *lines = told.decode().split("\r\n")
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    status = int(first.split()[1])
    return stage.show(httpx.Response(status, headers=headers, content=content))


def _starting(stage: Stage) -> str:
    with stage.without_daemon() as http:
        return stage.show(http.post("/v1/messages", json=body(user("Hi"))))


def _no_metrics(stage: Stage) -> str:
    with stage.without_daemon() as http:
        return stage.show(http.get("/metrics"))


def _no_model(stage: Stage) -> str:
    with stage.without_model() as http:
        return stage.show(http.post("/v1/messages", json=body(user("Hi"))))


def _makes_room(stage: Stage) -> str:
    with stage.making_room() as http:
        headers = {"x-anyclaude-mode": "mlx-lm"}
        return stage.show(http.post("/v1/messages", json=body(user("Hi")), headers=headers))


def _not_ready(stage: Stage) -> str:
    with stage.without_model() as http:
        return stage.show(http.get("/health/ready"))


def _given_up(stage: Stage) -> str:
    with stage.without_front_end() as http:
        return stage.show(http.post("/v1/messages", json=body(user("Hi"))))


def _full(stage: Stage) -> str:
    with stage.full():
        return stage.post()


def _busy(stage: Stage) -> str:
    with stage.busy():
        return stage.post()


def _silent(stage: Stage) -> str:
    stage.answering(Hang())
    return stage.relayed()


def _broken(stage: Stage) -> str:
    stage.answering(STREAM, chunk(content="The answer"), event("{"))
    return stage.relayed()


def _breaker(stage: Stage) -> str:
    stage.relayed("vllm")
    return stage.relayed("vllm")


def _killed(stage: Stage) -> str:
    with stage.streaming() as answer:
        lines = answer.iter_text()
        seen = ""
        while "content_block_delta" not in seen:
            seen += next(lines)
        stage.kill_worker()
        seen += "".join(lines)
        shown = stage.show(_whole(answer, seen))
    stage.recovered()
    return shown


def _cut(stage: Stage) -> str:
    stage.answering(STREAM, chunk(content="The answer"))
    return _streamed(stage)


def _overloaded_within(stage: Stage) -> str:
    error = {"error": {"message": "out of memory", "code": 503}}
    stage.answering(STREAM, chunk(content="The answer"), event(error))
    return _streamed(stage)


def _streamed(stage: Stage) -> str:
    with stage.streaming("lmstudio") as answer:
        return stage.show(_whole(answer, "".join(answer.iter_text())))


def _whole(answer: httpx.Response, text: str) -> httpx.Response:
    """A stream that was read piece by piece, as if it had come at once."""
    headers = {k: v for k, v in answer.headers.items() if k != "transfer-encoding"}
    return httpx.Response(answer.status_code, headers=headers, text=text)


_WRONG = Chapter(
    "The request is wrong: 400",
    (
        Example(
            "Not JSON",
            "The body is no JSON document.",
            "Mend the client; Claude Code never sends this.",
            _raw(b'{"model": "any", "messages": ['),
        ),
        Example(
            "A field is missing or wrong",
            "The message names the field as it stands in the body, and what it should be.",
            "Mend that field. Fields that are not known here are no error.",
            _raw(json.dumps({"model": "any", "messages": [user("Hi")]}).encode()),
        ),
        Example(
            "A block is wrong",
            "The same deep inside a conversation.",
            "Mend that block.",
            lambda stage: stage.ask(
                "POST",
                "/v1/messages",
                json=body(user("Hi"), {"role": "assistant", "content": [_BASH_CALL]}),
            ),
        ),
        Example(
            "A block that the local model cannot take",
            "Images and documents, which mlx-lm's text models cannot read.",
            "Take the block out, or choose a mode whose server reads it: `anyclaudectl mode`.",
            lambda stage: stage.ask("POST", "/v1/messages", json=body(user(_IMAGE))),
        ),
        Example(
            "The prompt is too long",
            "The prompt alone has more tokens than the window. It is counted before anything is "
            "sent, so this is a status in streams too.",
            "Claude Code compacts the conversation by itself. Elsewhere: shorten it.",
            _overflow,
        ),
        Example(
            "The answer asked for does not fit",
            "A server behind the relay has room for fewer than 1,024 tokens beside the prompt. "
            "Where it has more, it is asked for as many; the local model always takes what there "
            "is and ends with `model_context_window_exceeded`.",
            "Claude Code asks again with a smaller `max_tokens`.",
            _too_little_room,
        ),
        Example(
            "Unknown mode",
            "The header `x-anyclaude-mode`, or ANYCLAUDE_MODE of a launch, names no mode.",
            "Take one of those listed; `anyclaudectl mode` says what each is.",
            lambda stage: stage.relayed("warp"),
        ),
        Example(
            "The model is not there",
            "The local model cannot be loaded, and trying again would not help. The message is "
            "the worker's own, the same as in `anyclaudectl status`.",
            "Do what it says.",
            _no_model,
        ),
        Example(
            "The local model stops to free memory",
            "A launch asked for `mlx-lm` while the service's mode is a stop-first one.",
            "Run the command in the message, or start this launch in the service's mode.",
            _makes_room,
        ),
        Example(
            "A server refuses the request",
            "A server behind the relay takes no request like this one.",
            "Its words say why. Change the request, or choose another mode.",
            _refused(400, "tools are not supported by this model"),
        ),
    ),
)
_DOOR = Chapter(
    "Not let in: 401, 402, 403",
    (
        Example(
            "No token, or a wrong one",
            "`server.auth_token_file` is set.",
            "Start Claude Code by `anyclaude`, which presents it, or set ANTHROPIC_AUTH_TOKEN.",
            lambda stage: stage.ask("POST", "/v1/messages", token="", json=body(user("Hi"))),
        ),
        Example(
            "A server does not take our key",
            "A server behind the relay answered 401 or 403.",
            "Set its key where the message says.",
            _refused(401, "Incorrect API key provided"),
        ),
        Example(
            "A server wants to be paid",
            "A server behind the relay answered 402.",
            "Settle it there, or choose another mode.",
            _refused(402, "Insufficient credits", mode="openrouter"),
        ),
        Example(
            "A foreign Host header",
            "The request was meant for another machine: a web page that had its name point here.",
            "Ask 127.0.0.1 or localhost.",
            lambda stage: stage.ask("GET", "/v1/models", headers={"host": "example.org"}),
        ),
        Example(
            "A foreign Origin header",
            "A web page asked.",
            "Web pages are not answered; ask from a program.",
            lambda stage: stage.ask("GET", "/v1/models", headers={"origin": "http://example.org"}),
        ),
    ),
)
_PLACE = Chapter(
    "Not here: 404, 405",
    (
        Example(
            "Unknown path",
            "Also for parts of the API that this service does not have.",
            "Check ANTHROPIC_BASE_URL: nothing follows its port.",
            lambda stage: stage.ask("POST", "/v1/complete", json={}),
        ),
        Example(
            "Unknown model",
            "Only where a model is looked up by its id. A request may name any model: the "
            "resident one answers.",
            "Take an id of `/v1/models`.",
            lambda stage: stage.ask("GET", "/v1/models/claude-nine"),
        ),
        Example(
            "A server has no such model",
            "A server behind the relay answered 404.",
            "Do what it says.",
            _refused(404, "The model `served` does not exist"),
        ),
        Example(
            "A server has no model loaded",
            "LM Studio was asked before anything was loaded.",
            "Load a model there.",
            _refused(400, "No models loaded. Please load a model in the developer page."),
        ),
        Example(
            "Wrong method",
            "The path exists.",
            "Use a method of the `allow` header.",
            lambda stage: stage.ask("GET", "/v1/messages"),
        ),
    ),
)
_BODY = Chapter(
    "The request does not come whole: 408, 413",
    (
        Example(
            "The head stops arriving",
            "Its end did not come for `server.client_stall_seconds`.",
            "Send it again.",
            _late,
        ),
        Example(
            "The body stops arriving",
            "Nothing more of it came for `server.client_stall_seconds`.",
            "Send it again.",
            _stalled,
        ),
        Example(
            "The body is too large",
            "It has more than `server.max_body_bytes`.",
            "Claude Code is over its own limit: /clear or /compact, or send fewer files.",
            _large,
        ),
    ),
)
_LATER = Chapter(
    "Try again: 409, 429, 529",
    (
        Example(
            "A server is in conflict",
            "A server behind the relay answered 409.",
            "Claude Code tries again by itself.",
            _refused(409, "The model is being replaced"),
        ),
        Example(
            "A server limits requests",
            "A server behind the relay answered 429. Its time to wait is passed on; where it "
            "names none, it is 2 seconds.",
            "Claude Code waits and tries again. Or choose another mode.",
            _refused(429, "Rate limit reached", "retry-after: 17", mode="openrouter"),
        ),
        Example(
            "Too many requests at once",
            "The front end holds `server.max_requests` already.",
            "Claude Code tries again. If it happens often, run fewer agents or raise the setting.",
            _full,
        ),
        Example(
            "The local model is busy",
            "`mlx.max_running_requests` are running and `mlx.max_queued_requests` are waiting.",
            "As above.",
            _busy,
        ),
        Example(
            "The service is starting",
            "Nobody has told the front end yet who answers. While only a worker is starting, the "
            "message says that; `retry-after` is an estimate from its last start.",
            "Claude Code tries again.",
            _starting,
        ),
        Example(
            "A server is not running",
            "Nobody listens at the address of a server behind the relay.",
            "Start it, or choose another mode.",
            lambda stage: stage.relayed("llama-cpp"),
        ),
        Example(
            "A server is loading its model",
            "A server behind the relay said so.",
            "Claude Code tries again.",
            _refused(503, "Loading model"),
        ),
        Example(
            "A server is unavailable",
            "A server behind the relay answered 502, 503 or 529.",
            "Claude Code tries again.",
            _refused(503, "no healthy upstream", mode="openrouter"),
        ),
        Example(
            "A server failed too often",
            "It failed `breaker_failures` times in a row, so for a while it is not even asked.",
            "Look after the server: the message ends with what it failed by.",
            _breaker,
        ),
        Example(
            "The front end cannot start",
            "The daemon answers in its place. `x-should-retry` keeps Claude Code from waiting for "
            "what waiting does not mend.",
            "Do what it says.",
            _given_up,
        ),
    ),
)
_FAILED = Chapter(
    "Something failed: 500, 503, 504",
    (
        Example(
            "A server failed",
            "A server behind the relay answered 500.",
            "Claude Code tries again; if it goes on, read the server's log.",
            _refused(500, "CUDA out of memory"),
        ),
        Example(
            "A server's answer is broken",
            "It is not what the server's dialect says, or stops before its end. Nothing of it is "
            "passed off as an answer.",
            "Claude Code tries again; if it goes on, read the server's log.",
            _broken,
        ),
        Example(
            "A server says nothing",
            "It is silent for longer than its settings allow.",
            "Raise the setting that the message names, or look what the server is doing.",
            _silent,
        ),
        Example(
            "Not ready",
            "`/health/ready` says so, for programs that wait; messages say it with 529 or 400.",
            "`anyclaudectl wait --ready` waits for it, `anyclaudectl status` says why not.",
            _not_ready,
        ),
        Example(
            "No metrics without the daemon",
            "`/metrics` is the daemon's; messages do not need it.",
            "Start the service again.",
            _no_metrics,
        ),
    ),
)
_WITHIN = Chapter(
    "In the middle of an answer",
    (
        Example(
            "The local worker died",
            "It was killed, or ran out of memory.",
            "It is started again by itself and finds its caches on disk; Claude Code asks again.",
            _killed,
        ),
        Example(
            "A server's connection ended",
            "The answer was not complete.",
            "Claude Code asks again; if it goes on, read the server's log.",
            _cut,
        ),
        Example(
            "A server reports an error in its stream",
            "The stream had begun with 200.",
            "As above.",
            _overloaded_within,
        ),
    ),
)

CHAPTERS: Final = (_WRONG, _DOOR, _PLACE, _BODY, _LATER, _FAILED, _WITHIN)
EXAMPLES: Final = tuple(example for chapter in CHAPTERS for example in chapter.examples)
