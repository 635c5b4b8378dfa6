"""Every error that a client can get: when it occurs, and what the user should do."""

import json
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import httpx

from tests.integration.conversation import body
from tests.integration.errors_page.stage import Stage
from tests.integration.scripted_upstream import STREAM, Hang, chunk, event
from tests.models.requests import user

_MEGABYTE: Final = 1024 * 1024
_BASH_CALL: Final = {"type": "tool_use", "id": 7, "name": "Bash", "input": {}}
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
    """What a client that sends only these bytes receives."""
    with stage.without_daemon(client_stall_seconds=1.5) as http:
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


def _with_fixed_wait(shown: str) -> str:
    """The response with a fixed `retry-after` in place of one that is measured."""
    return re.sub(r"(?m)^retry-after: [1-9][0-9]?$", "retry-after: 4", shown)


def _full(stage: Stage) -> str:
    with stage.full():
        return _with_fixed_wait(stage.post())


def _large_others(stage: Stage) -> str:
    head = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2048\r\n\r\n"
    with stage.without_daemon(
        body_memory_bytes=1024, body_wait_seconds=0.5, small_body_bytes=0
    ) as http:
        with socket.create_connection(("127.0.0.1", http.base_url.port or 0)) as other:
            other.sendall(head)
            # The other body counts as soon as its head is read, which no response shows.
            while (answer := http.post("/v1/messages", content=b"{")).status_code != 529:
                pass
        return stage.show(answer)


def _busy(stage: Stage) -> str:
    with stage.busy():
        return _with_fixed_wait(stage.post())


def _silent(stage: Stage) -> str:
    stage.answering(Hang())
    return stage.relayed()


def _broken(stage: Stage) -> str:
    stage.answering(STREAM, chunk(content="The answer"), event("{"))
    return stage.relayed()


def _breaker(stage: Stage) -> str:
    stage.relayed("vllm")
    # On a busy machine some seconds have passed.
    return re.sub(r"(retry-after: |again in )1[0-5]\b", r"\g<1>15", stage.relayed("vllm"))


def _killed(stage: Stage) -> str:
    stage.answering(STREAM, chunk(content="The answer"), Hang())
    with stage.streaming("lmstudio") as answer:
        lines = answer.iter_text()
        seen = ""
        while "content_block_delta" not in seen:
            seen += next(lines)
        killed = stage.kill_worker("relay")
        seen += "".join(lines)
        shown = stage.show(_whole(answer, seen))
    stage.recovered(killed)
    return shown


def _killed_twice(stage: Stage) -> str:
    with ThreadPoolExecutor(1) as pool:
        # A prompt that takes a while, so that the worker dies before it gets any further.
        answer = pool.submit(stage.post, system="the quick brown fox " * 800)
        first = stage.kill_at_work()
        second = stage.kill_at_work(other_than=first.pid)
        shown = answer.result()
    stage.recovered(second)
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
    """Reads a stream piece by piece and shows it as one."""
    headers = {k: v for k, v in answer.headers.items() if k != "transfer-encoding"}
    return httpx.Response(answer.status_code, headers=headers, text=text)


_WRONG = Chapter(
    "The request is wrong: 400",
    (
        Example(
            "Not JSON",
            "The body is not a JSON document.",
            "Fix the client; Claude Code never sends this.",
            _raw(b'{"model": "any", "messages": ['),
        ),
        Example(
            "A field is missing or wrong",
            "The message names the field by its path in the body, and says what it must be.",
            "Fix that field. Unknown fields are ignored.",
            _raw(json.dumps({"model": "any", "messages": [user("Hi")]}).encode()),
        ),
        Example(
            "A block is wrong",
            "A content block of a message is invalid. The message names it by its path in the "
            "body.",
            "Fix that block.",
            lambda stage: stage.ask(
                "POST",
                "/v1/messages",
                json=body(user("Hi"), {"role": "assistant", "content": [_BASH_CALL]}),
            ),
        ),
        Example(
            "A conversation that the service should store",
            "The request has `thread`, so that this or a later request has new messages only.",
            "Send all messages with every request. The SDK's threads do so with "
            '`unsupported_request_behavior="continue_unthreaded"`.',
            lambda stage: stage.ask(
                "POST", "/v1/messages", json=body(user("Hi")) | {"thread": {"type": "create"}}
            ),
        ),
        Example(
            "A coding of the body that is unknown",
            "`content-encoding` names another coding than gzip, deflate, br and zstd.",
            "Send the body without it.",
            lambda stage: stage.ask(
                "POST",
                "/v1/messages",
                content=b"{}",
                headers={"content-encoding": "compress"},
            ),
        ),
        Example(
            "The prompt is too long",
            "The prompt alone has more tokens than the window. It is counted before anything is "
            "sent, so a stream gets this status too.",
            "Claude Code compacts the conversation by itself. With another client, shorten it.",
            _overflow,
        ),
        Example(
            "The requested answer does not fit",
            "The prompt leaves fewer than 1,024 tokens of the window of a server behind the relay."
            " If it leaves more, the relay reduces `max_tokens` to that number. The local model "
            "never gives this error: its answer ends at the window with "
            "`model_context_window_exceeded`.",
            "Claude Code repeats the request with a smaller `max_tokens`.",
            _too_little_room,
        ),
        Example(
            "Unknown mode",
            "The header `x-anyclaude-mode`, or `ANYCLAUDE_MODE` of a launch, does not name a mode.",
            "Use one of the modes in the message; `anyclaudectl mode` explains each.",
            lambda stage: stage.relayed("warp"),
        ),
        Example(
            "The model is not there",
            "The local model cannot be loaded, and a retry would not help. `anyclaudectl status` "
            "shows the same message.",
            "Follow the message.",
            _no_model,
        ),
        Example(
            "The local model is stopped",
            "A launch chose `mlx-lm` while the service is in a stop-first mode, so the local model"
            " is not loaded.",
            "Run the command in the message, or start this launch in the service's mode.",
            _makes_room,
        ),
        Example(
            "A server refuses the request",
            "A server behind the relay does not support something in this request.",
            "The message quotes the server's reason. Change the request, or choose another mode.",
            _refused(400, "tools are not supported by this model"),
        ),
    ),
)
_DOOR = Chapter(
    "Not allowed: 401, 402, 403",
    (
        Example(
            "No token, or a wrong one",
            "`server.auth_token_file` is set, and the request has no token or another one.",
            "Start Claude Code with `anyclaude`, which sends the token, or set "
            "`ANTHROPIC_AUTH_TOKEN`.",
            lambda stage: stage.ask("POST", "/v1/messages", token="", json=body(user("Hi"))),
        ),
        Example(
            "A server does not accept our key",
            "A server behind the relay answered 401 or 403.",
            "Set the server's key as the message describes.",
            _refused(401, "Incorrect API key provided"),
        ),
        Example(
            "A server requires payment",
            "A server behind the relay answered 402.",
            "Pay the server's provider, or choose another mode.",
            _refused(402, "Insufficient credits", mode="openrouter"),
        ),
        Example(
            "A foreign Host header",
            "The `Host` header names another machine: a web page may have pointed its own name at "
            "this one.",
            "Send requests to 127.0.0.1 or localhost.",
            lambda stage: stage.ask("GET", "/v1/models", headers={"host": "example.org"}),
        ),
        Example(
            "A foreign Origin header",
            "A web page sent the request.",
            "Send the request from a program; web pages of other origins are not served.",
            lambda stage: stage.ask("GET", "/v1/models", headers={"origin": "http://example.org"}),
        ),
    ),
)
_PLACE = Chapter(
    "Not found: 404, 405",
    (
        Example(
            "Unknown path",
            "The service has no such path. It does not implement every part of the API.",
            "Check `ANTHROPIC_BASE_URL`: it ends with the port.",
            lambda stage: stage.ask("POST", "/v1/complete", json={}),
        ),
        Example(
            "Unknown model",
            "`GET /v1/models/ID` names an unknown model. A message may name any model: the loaded "
            "one answers.",
            "Use an id from `/v1/models`.",
            lambda stage: stage.ask("GET", "/v1/models/claude-nine"),
        ),
        Example(
            "A server has no such model",
            "A server behind the relay answered 404.",
            "Follow the message.",
            _refused(404, "The model `served` does not exist"),
        ),
        Example(
            "A server has no model loaded",
            "LM Studio got a request before it had loaded a model.",
            "Load a model in LM Studio.",
            _refused(400, "No models loaded. Please load a model in the developer page."),
        ),
        Example(
            "Wrong method",
            "The path exists, but not with this method.",
            "Use a method from the `allow` header.",
            lambda stage: stage.ask("GET", "/v1/messages"),
        ),
    ),
)
_BODY = Chapter(
    "The request is incomplete or too large: 408, 413",
    (
        Example(
            "The head stops arriving",
            "The end of the request's head did not arrive within `server.client_stall_seconds`.",
            "Send it again.",
            _late,
        ),
        Example(
            "The body stops arriving",
            "No more bytes of the body arrived for `server.client_stall_seconds`.",
            "Send it again.",
            _stalled,
        ),
        Example(
            "The body is too large",
            "The body has more bytes than `server.max_body_bytes`.",
            "In Claude Code, run `/clear` or `/compact`, or send fewer files.",
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
            "A server behind the relay answered 429. Its `retry-after` is passed on; without one, "
            "it is 2 seconds.",
            "Claude Code waits and tries again. You can also choose another mode.",
            _refused(429, "Rate limit reached", "retry-after: 17", mode="openrouter"),
        ),
        Example(
            "Too many requests at once",
            "`server.max_requests` requests are in progress already. `retry-after` is when a place "
            "should be free for this client, by the time that the latest requests took.",
            "Claude Code tries again. If it happens often, run fewer agents or raise the setting.",
            _full,
        ),
        Example(
            "Other large requests are in progress",
            "The bodies in progress use `server.body_memory_bytes`, and none was done within "
            "`server.body_wait_seconds`.",
            "Claude Code tries again. If it happens often, raise the first setting.",
            _large_others,
        ),
        Example(
            "The local model is busy",
            "`mlx.max_running_requests` requests are running and `mlx.max_queued_requests` are "
            "waiting. `retry-after` is when a place should be free for this client, by the time "
            "that the latest requests took.",
            "Claude Code tries again. If it happens often, run fewer agents or raise these "
            "settings.",
            _busy,
        ),
        Example(
            "The service is starting",
            "The front end has no route yet. If only a worker is starting, the message names it, "
            "and `retry-after` is an estimate from its last start.",
            "Claude Code tries again.",
            _starting,
        ),
        Example(
            "A server is not running",
            "No program listens at the address of a server behind the relay.",
            "Start the server, or choose another mode.",
            lambda stage: stage.relayed("llama-cpp"),
        ),
        Example(
            "A server is loading its model",
            "A server behind the relay reported that it is still loading.",
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
            "The server failed `breaker_failures` times in a row, so for a while it gets no "
            "requests.",
            "Repair the server: the message ends with its last failure.",
            _breaker,
        ),
        Example(
            "The front end cannot start",
            "The daemon gave up on the front end and answers in its place. `x-should-retry: false`"
            " keeps Claude Code from retrying, which would not help.",
            "Follow the message.",
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
            "Claude Code tries again; if the error persists, read the server's log.",
            _refused(500, "CUDA out of memory"),
        ),
        Example(
            "A server's answer is broken",
            "The response does not follow the server's dialect, or stops before its end. It is "
            "never passed on as a complete answer.",
            "Claude Code tries again; if the error persists, read the server's log.",
            _broken,
        ),
        Example(
            "A server does not respond",
            "The server is silent for longer than its settings allow.",
            "Raise the setting that the message names, or check what the server is doing.",
            _silent,
        ),
        Example(
            "Not ready",
            "`/health/ready` answers this, for programs that wait. A message gets 529 or 400 "
            "instead.",
            "`anyclaudectl wait --ready` waits until the service is ready; `anyclaudectl status` "
            "shows what is missing.",
            _not_ready,
        ),
        Example(
            "No metrics without the daemon",
            "`/metrics` comes from the daemon, which does not answer now. Messages do not need the"
            " daemon.",
            "Start the service again.",
            _no_metrics,
        ),
    ),
)
_WITHIN = Chapter(
    "In the middle of an answer",
    (
        Example(
            "A worker died",
            "The relay was killed within an answer. An answer of the local model goes on at the "
            "next worker instead, unless it is longer than `server.continued_answer_tokens`.",
            "Claude Code sends the request again. The worker is restarted automatically.",
            _killed,
        ),
        Example(
            "The local worker died again with the same request",
            "A request whose worker died goes on at the next one. If that worker dies as well "
            "before it gets further, the request may be the cause.",
            "See why it died (`anyclaudectl worker list`). If memory is short, use a smaller model "
            "or compact the conversation.",
            _killed_twice,
        ),
        Example(
            "A server's connection ended",
            "The connection to the server ended before the answer was complete.",
            "Claude Code sends the request again; if the error persists, read the server's log.",
            _cut,
        ),
        Example(
            "A server reports an error in its stream",
            "The server sent an error after its stream had begun with 200.",
            "Claude Code sends the request again; if the error persists, read the server's log.",
            _overloaded_within,
        ),
    ),
)

CHAPTERS: Final = (_WRONG, _DOOR, _PLACE, _BODY, _LATER, _FAILED, _WITHIN)
EXAMPLES: Final = tuple(example for chapter in CHAPTERS for example in chapter.examples)
