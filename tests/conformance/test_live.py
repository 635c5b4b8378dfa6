"""Behaviour over time: flushing, pings, clients that leave, many requests at once."""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import httpx
import pytest

from tests.conformance import bodies as b
from tests.conformance.conftest import Address
from tests.conformance.endpoint import Endpoint, check_refusal
from tests.conformance.rows import Row, row

# What a client may be left without a byte; our own service is started with quicker pings.
SILENCE_SECONDS = 10.5
OWN_SILENCE_SECONDS = 6.0
ANSWER_SECONDS = 120
# For a request behind clients that left, whose unfinished work would take minutes.
LEFT_SECONDS = 30
# For a request that waits for nothing.
SHORT_SECONDS = 30
MANY = 24


@row(Row.PING)
def test_flushed(endpoint: Endpoint) -> None:
    """A response is sent as it is made, event by event, and not compressed."""
    streamed = endpoint.stream(max_tokens=40)
    assert "content-encoding" not in streamed.response.headers
    contents = [e for e in streamed.events if e["type"] == "content_block_delta"]
    if len(contents) < 5:
        pytest.skip("the model said too little")
    first, last = streamed.arrivals[1], streamed.arrivals[-1]
    assert len(streamed.arrivals) > len(contents) / 2
    assert first < last


@row(Row.PING)
def test_never_silent(endpoint: Endpoint, address: Address) -> None:
    """While a long prompt is computed, a named ping comes at least every ten seconds."""
    allowed = OWN_SILENCE_SECONDS if address.own else SILENCE_SECONDS
    sentences = 800 if address.own else 1600
    prompt = secrets.token_hex(8) + " The quick brown fox reads the file." * sentences
    streamed = endpoint.stream(messages=[b.user(prompt)], max_tokens=4)
    assert streamed.message.error is None
    waits = [after - before for before, after in pairwise(streamed.arrivals)]
    assert max(waits) <= allowed
    if streamed.arrivals[-1] < allowed:
        pytest.skip(f"the whole answer took {streamed.arrivals[-1]:.1f} s")
    assert streamed.message.pings


@row(Row.PING)
def test_never_silent_in_the_queue(endpoint: Endpoint, address: Address) -> None:
    """A stream that waits in the queue gets pings as well."""
    allowed = OWN_SILENCE_SECONDS if address.own else SILENCE_SECONDS
    prompts = [secrets.token_hex(8) + " The quick brown fox reads." * 250 for _ in range(4)]

    def ask(prompt: str) -> list[float]:
        return endpoint.stream(messages=[b.user(prompt)], max_tokens=2).arrivals

    with ThreadPoolExecutor(len(prompts)) as pool:
        for arrivals in pool.map(ask, prompts):
            assert max(after - before for before, after in pairwise(arrivals)) <= allowed


@row(Row.DISCONNECT)
@pytest.mark.heavy
@pytest.mark.parametrize("when", ["prefill", "decode"])
def test_client_leaves(endpoint: Endpoint, when: str) -> None:
    """Requests whose clients left do not delay the next one."""
    length = 1600 if when == "prefill" else 10
    prompts = [secrets.token_hex(8) + " The quick brown fox." * length for _ in range(6)]

    def leave(prompt: str) -> None:
        body = endpoint.body(messages=[b.user(prompt)], max_tokens=4000, stream=True)
        with (
            httpx.Client(base_url=endpoint.base_url, timeout=httpx.Timeout(30, read=1)) as own,
            own.stream(
                "POST", "/v1/messages", json=body, headers=dict(endpoint.http.headers)
            ) as response,
        ):
            next(response.iter_raw())

    with ThreadPoolExecutor(len(prompts)) as pool:
        left = [pool.submit(leave, prompt) for prompt in prompts]
        for one in left:
            # A client that gave up waiting for the head has left as well.
            assert isinstance(one.exception(), httpx.ReadTimeout | None)
    begun = time.monotonic()
    endpoint.create(max_tokens=4)
    assert time.monotonic() - begun < LEFT_SECONDS


@row(Row.QUEUEING)
def test_many_at_once(endpoint: Endpoint) -> None:
    """Many streams at once all complete, or are refused with a delay."""

    def ask(number: int) -> str:
        prompt = [b.user(f"{number}: say hi.")]
        with endpoint.open_stream(messages=prompt, max_tokens=6) as response:
            if response.status_code == 200:
                raw = response.read().decode()
                return "whole" if "event: message_stop" in raw else f"broken: {raw[-200:]}"
            response.read()
        check_refusal(response, 529, "overloaded_error")
        return "later" if int(response.headers["retry-after"]) <= 60 else "much later"

    with ThreadPoolExecutor(MANY) as pool:
        outcomes = list(pool.map(ask, range(MANY), timeout=ANSWER_SECONDS))
    assert set(outcomes) <= {"whole", "later"}, outcomes
    assert "whole" in outcomes


@row(Row.QUEUEING)
def test_answers_do_not_mix(endpoint: Endpoint) -> None:
    """Each of several concurrent requests gets what it would get alone."""
    prompts = [f"Number {n}, say something about {n}." for n in range(4)]

    def ask(prompt: str) -> object:
        answer = endpoint.create(messages=[b.user(prompt)], temperature=0, max_tokens=12)
        return answer["content"], answer["stop_reason"]

    alone = [ask(prompt) for prompt in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        assert list(pool.map(ask, prompts)) == alone


@row(Row.QUEUEING)
def test_counting_does_not_wait(endpoint: Endpoint, address: Address) -> None:
    """A count and the list of models come while a long response is generated."""
    sentences = 400 if address.own else 2000
    prompt = secrets.token_hex(8) + " The quick brown fox." * sentences
    with (
        ThreadPoolExecutor(1) as pool,
        endpoint.open_stream(messages=[b.user(prompt)], max_tokens=400) as response,
    ):
        answer = pool.submit(response.read)
        begun = time.monotonic()
        endpoint.count()
        endpoint.http.get("/v1/models")
        # On a busy machine both may take longer, but not as long as the answer.
        assert not answer.done() or time.monotonic() - begun < SHORT_SECONDS
        answer.result(ANSWER_SECONDS)
        assert response.status_code == 200
