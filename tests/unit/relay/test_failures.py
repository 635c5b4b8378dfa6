"""Failed connections, keys and counts: the messages that users read, and the estimates."""

import errno
import json
import socket
import ssl

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.messages.requests import parse_count_tokens_request
from anyclaude.relay.environment import Key
from anyclaude.relay.failures import Party, explain_refusal, explain_transport
from anyclaude.relay.main import build_upstreams
from anyclaude.relay.refusals import Refusal
from anyclaude.relay.usage import Estimator, openai_usage
from anyclaude.runtime.upstreams import UpstreamSettings


def party(kind="lmstudio", url="http://192.168.1.7:1234"):
    return Party(kind, UpstreamSettings.model_validate({"kind": kind, "base_url": url}))


def raised_from(cause: BaseException) -> OSError:
    """Errors of a name with several addresses, each of which was tried."""
    try:
        raise OSError("no address takes a connection") from ExceptionGroup("", [cause])
    except OSError as error:
        return error


@pytest.mark.parametrize(
    ("cause", "status", "should_retry", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), 529, None, "lms server start"),
        (OSError(65, "No route to host"), 500, False, "Privacy & Security > Local Network"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), 500, False, "no route"),
        (socket.gaierror(-2, "Name not known"), 500, False, "does not resolve"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), 500, False, "TLS"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), 529, None, "broke"),
    ],
)
def test_each_cause_has_its_sentence(cause, status, should_retry, words):
    """Temporary faults are retried; others have a message that says what to do."""
    fault = explain_transport(raised_from(cause), party())
    assert (fault.status, fault.should_retry) == (status, should_retry)
    assert words in fault.message
    assert "http://192.168.1.7:1234" in fault.message


def test_a_relayed_mlx_lm_is_not_advised_to_switch_to_itself():
    """If mode mlx-lm itself is relayed, the message does not advise switching to it."""
    fault = explain_transport(raised_from(ConnectionRefusedError(errno.ECONNREFUSED, "")),
                              party("mlx-lm"))  # fmt: skip
    assert "mode mlx-lm" not in fault.message
    assert "unset MLX_LM_URL" in fault.message


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "why", "type": "t"}},
        {"error": "why"},
        {"message": "why"},
        {"detail": "why"},
        {"object": "error", "message": "why"},
        "why",
    ],
)
def test_the_reason_is_found_in_every_place(body):
    """The server's reason is found in each of the places where servers put it."""
    content = body if isinstance(body, str) else json.dumps(body)
    assert Refusal.of(400, content.encode(), {}, "").message == "why"


def test_a_page_is_not_shown_and_long_words_are_cut():
    """HTML is not shown, and long messages are cut, since they may quote the prompt."""
    page = Refusal.of(502, b"<html>" * 100, {"content-type": "text/html"}, "")
    assert page.message == "an HTML page instead of an answer"
    assert len(Refusal.of(400, b"x" * 10_000, {}, "").message) < 1100


@pytest.mark.parametrize(("header", "seconds"), [("3", 3), ("2.2", 3), ("0", 1), ("soon", None)])
def test_retry_after(header, seconds):
    """retry-after becomes whole seconds, at least one; an invalid value is ignored."""
    assert Refusal.of(429, b"{}", {"retry-after": header}, "").retry_after_seconds == seconds


def test_retry_after_as_a_date():
    """retry-after as an HTTP date is accepted; a past date means at once."""
    header = {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert Refusal.of(429, b"{}", header, "").retry_after_seconds == 1


def test_errors_of_the_real_api_are_unchanged():
    """Errors of the real API keep their message and type."""
    details = {"type": "overloaded_error", "message": "Overloaded"}
    error = explain_refusal(
        Refusal(529, "Overloaded", details, 4), party("claude"), model="", max_tokens=1
    )
    assert (error.status, error.type, error.message) == (529, "overloaded_error", "Overloaded")
    assert error.retry_after_seconds == 4


def test_keys_leave_the_environment():
    """Each server gets its own key, and no child process can inherit one."""
    environ = {"A": " one ", "B": "two", "PATH": "/bin"}
    tables = {
        "a": UpstreamSettings(base_url="http://localhost:1", api_key_env="A"),
        "b": UpstreamSettings(base_url="http://localhost:2", api_key_env="B"),
        "also_a": UpstreamSettings(base_url="http://localhost:3", api_key_env="A"),
        "off": UpstreamSettings(api_key_env="C"),
    }
    made = build_upstreams(tables, environ)
    assert {name: upstream.key.read() for name, upstream in made.items()} == {
        "a": "one",
        "b": "two",
        "also_a": "one",
    }
    assert environ == {"PATH": "/bin"}


def test_an_empty_key_file_is_named(tmp_path):
    """An empty key file is an error that names it, not a request without a key."""
    file = tmp_path / "key"
    file.write_text("\n")
    with pytest.raises(ApiError, match="is empty"):
        Key("it", UpstreamSettings(api_key_file=str(file)), "").read()


def counted(words: str, image: str = ""):
    blocks = [{"type": "text", "text": words}]
    if image:
        blocks.append({"type": "image", "source": {"type": "base64", "data": image}})
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": blocks}]}).encode()
    return parse_count_tokens_request(body), body


def test_estimates_learn_from_true_counts():
    """After one true count, estimates fit a tokenizer with shorter tokens than usual."""
    estimator = Estimator()
    request, body = counted("words " * 500)
    before = estimator.estimate(request, body)
    estimator.learn(request, body, 2000)
    assert before < 1000
    assert estimator.estimate(request, body) == pytest.approx(2000, rel=0.01)


def test_what_is_refused_by_an_estimate_is_surely_too_long():
    """Refusals use a low estimate until a true count is known."""
    estimator = Estimator()
    request, body = counted("words " * 500)
    assert estimator.at_least(request, body) < 0.7 * estimator.estimate(request, body)
    estimator.learn(request, body, 1000)
    assert estimator.at_least(request, body) == estimator.estimate(request, body)


def test_images_do_not_count_by_their_bytes():
    """An image counts a fixed number of tokens, not its bytes."""
    request, body = counted("see", "A" * 1_000_000)
    assert 1000 < Estimator().estimate(request, body) < 3000


@pytest.mark.parametrize(
    ("usage", "timings", "expected"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 2}, {}, (10, 0, 2)),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}, {}, (6, 4, 0)),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 10}}, {}, (1, 9, 0)),
        ({"prompt_tokens": 10, "prompt_cache_hit_tokens": 3}, {}, (7, 3, 0)),
        ({"prompt_tokens": 10, "cached_tokens": 3}, {}, (7, 3, 0)),
        ({"prompt_tokens": 10.0, "completion_tokens": 2.0}, {}, (10, 0, 2)),
        ({"input_tokens": 10, "output_tokens": 2}, {}, (10, 0, 2)),
        ({"prompt_tokens": 10, "completion_tokens": None}, {}, (10, 0, 0)),
        ({"prompt_tokens": 10, "prompt_tokens_details": None}, {"cache_n": 8}, (2, 8, 0)),
    ],
)
def test_counts_of_chat_completions(usage, timings, expected):
    """Each server's name for reused tokens is read, and a prompt has at least one new token."""
    told = openai_usage(usage, timings)
    assert told is not None
    assert (told.input_tokens, told.cache_read_tokens, told.output_tokens) == expected


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": None},
        {"prompt_tokens": "10"},
        {"prompt_tokens": True},
        {"prompt_tokens": -1},
        {"prompt_tokens": 1.5},
        {"prompt_tokens": 10**20},
        {"total_tokens": 12},
    ],
)
def test_counts_that_say_nothing(usage):
    """Where the prompt's count is missing, or is 0, the counts are unknown and not zeros."""
    assert openai_usage(usage, {}) is None
