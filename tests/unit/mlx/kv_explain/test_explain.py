"""Each cause is provoked, and the explainer names that one and no other."""

import copy
import functools
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from structlog.testing import capture_logs

from anyclaude.cache.v1 import cache_pb2
from anyclaude.mlx.adapter import load_tokenizer_from
from anyclaude.mlx.kv.operations import Selection, prune
from anyclaude.mlx.kv_explain.explain import ExplainLimits, RequestExplainer
from anyclaude.worker.v1 import worker_pb2 as pb
from tests.models import tiny
from tests.models.requests import Block, system, text, user
from tests.models.templates import CHATML
from tests.models.tokenizers import byte_level, markup_tokens, special_tokens, wrap
from tests.unit.mlx.kv_explain.explained import (
    LIMIT_BYTES,
    Outcome,
    Talk,
    conversation,
    sentence,
    start,
    tool,
)

SEEDS = range(4)
_THINKING_ON = {"type": "enabled", "budget_tokens": 1024}


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@functools.cache
def words(template: str) -> TokenizerWrapper:
    """A tokenizer with this template, loaded as any model's is."""
    made = wrap(byte_level(), template, special_tokens("chatml"), markup_tokens("chatml"))
    with folder() as path:
        made.save_pretrained(path)
        return load_tokenizer_from(path, {})


def headed(line: str) -> Talk:
    """A worker whose template writes a line of its own before everything else."""
    head = "{{- '<|im_start|>system\\n' ~ " + line + " ~ '<|im_end|>\\n' -}}"
    return Talk(words=words(head + CHATML))


def edited(body: Block, rng: random.Random) -> tuple[Block, int]:
    """The body with one message changed, removed or cut off with all after it; and its index."""
    body = copy.deepcopy(body)
    place = rng.randrange(len(body["messages"]) - 1)
    message = body["messages"][place]
    if isinstance(message["content"], str):
        message["content"] = f"{sentence(rng)} {message['content']}"
    elif message["content"][0]["type"] == "tool_result":
        message["content"][0]["content"] = sentence(rng)
    else:
        message["content"].insert(0, text(sentence(rng)))
    return body, place


# One function for each cause: plants it and returns how the request that should show it went.


def first_sight(rng: random.Random) -> Outcome:
    talk = Talk()
    conversation(talk, rng, 1)
    # Another first word on, from the very first token that differs.
    return Talk().send(start(rng), session="other")


def new_lineage(rng: random.Random) -> Outcome:
    talk = Talk()
    last = conversation(talk, rng, rng.randint(1, 3))
    return talk.send(last.request | {"messages": [user(sentence(rng))]}, session="other")


def extended(rng: random.Random) -> Outcome:
    talk = Talk()
    last = conversation(talk, rng, rng.randint(1, 3))
    outcome = talk.send(last.next(user(sentence(rng))))
    assert outcome.explanation.reused_live_tokens > 0
    assert not outcome.explanation.HasField("divergence")
    return outcome


def edited_history(rng: random.Random) -> Outcome:
    talk = Talk()
    last = conversation(talk, rng, rng.randint(2, 4))
    body, place = edited(last.next(user(sentence(rng))), rng)
    outcome = talk.send(body)
    divergence = outcome.explanation.divergence
    assert divergence.message == place
    assert divergence.offset == outcome.started.usage.cache_read_tokens
    assert divergence.kept != divergence.came
    return outcome


def rejoined(rng: random.Random) -> Outcome:
    talk = Talk()
    last = conversation(talk, rng, rng.randint(2, 3))
    body = last.next(user(sentence(rng)))
    talk.send(edited(body, rng)[0])
    outcome = talk.send(body)
    assert outcome.explanation.computed_tokens < 100
    return outcome


def not_kept(rng: random.Random) -> Outcome:
    talk = Talk()
    last = conversation(talk, rng, 2)
    return talk.send(last.request, keep=False)


def evicted(rng: random.Random) -> Outcome:
    talk = Talk()
    last = conversation(talk, rng, rng.randint(2, 3))
    talk.store.budget.fit(LIMIT_BYTES - rng.choice((0, talk.store.budget.nbytes // 3)))
    if rng.random() < 0.5:
        talk.store.budget.fit(LIMIT_BYTES)
        return talk.send(last.request | {"messages": [user(sentence(rng))]}, session="other")
    outcome = talk.send(last.next(user(sentence(rng))))
    assert outcome.explanation.HasField("lost_time")
    return outcome


def pruned(rng: random.Random) -> Outcome:
    talk = Talk()
    last = conversation(talk, rng, rng.randint(2, 3))
    selection = rng.choice((Selection(session_id="main"), Selection(all=True)))
    prune(talk.store, selection)
    if selection.all and rng.random() < 0.5:
        return talk.send(last.request | {"messages": [user(sentence(rng))]}, session="other")
    return talk.send(last.next(user(sentence(rng))))


def corrupt_record(rng: random.Random) -> Outcome:
    with folder() as path:
        talk = Talk(folder=path)
        last = conversation(talk, rng, 2)
        again = talk.restarted()
        records = [file for file in (path / "kv").rglob("*") if file.stat().st_size > 40_000]
        _damage(rng.choice([file for file in records if "index" not in file.name]))
        outcome = again.send(last.next(user(sentence(rng))))
        again.close()
        return outcome


def _damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def checkpoint(rng: random.Random) -> Outcome:
    talk = Talk(family=tiny.Family.HYBRID, checkpoints=2)
    first = talk.send(start(rng))
    outcome = first
    for _ in range(4):
        outcome = talk.send(outcome.next(user(sentence(rng))))
    return talk.send(first.next(user(outcome.request["messages"][2]["content"])))


def tools_changed(rng: random.Random) -> Outcome:
    talk = Talk()
    last = conversation(talk, rng, rng.randint(1, 2))
    body = copy.deepcopy(last.next(user(sentence(rng))))
    tools = body["tools"]
    chosen = rng.choice(tools)
    name = chosen["name"]
    fields: tuple[str, ...] = ()
    match rng.choice(("description", "property", "removed", "added", "moved")):
        case "description":
            chosen["description"] += " Or not."
            kind, fields = cache_pb2.CHANGE_KIND_CHANGED, ("description",)
        case "property":
            chosen["input_schema"]["properties"]["command"]["description"] = "Another."
            kind = cache_pb2.CHANGE_KIND_CHANGED
            fields = ("input_schema.properties.command.description",)
        case "removed":
            tools.remove(chosen)
            kind = cache_pb2.CHANGE_KIND_REMOVED
        case "added":
            name, kind = "Write", cache_pb2.CHANGE_KIND_ADDED
            tools.insert(rng.randrange(len(tools)), tool(rng, "Write"))
        case "moved":
            tools.append(tools.pop(0))
            name, kind = tools[0]["name"], cache_pb2.CHANGE_KIND_MOVED
    outcome = talk.send(body)
    change = outcome.explanation.tools[0]
    assert (change.name, change.kind, tuple(change.fields)) == (name, kind, fields)
    assert not outcome.explanation.instructions
    return outcome


def instructions_changed(rng: random.Random) -> Outcome:
    talk = Talk()
    body = start(rng, messages=[user("hello"), system(sentence(rng, 20))])
    last = talk.send(body)
    body = copy.deepcopy(last.next(user(sentence(rng))))
    if rng.random() < 0.5:
        body["system"] = body["system"].replace(" ", " indeed ", 3)
        place = 0
    else:
        body["messages"][1]["content"] += " Always."
        place = 1
    outcome = talk.send(body)
    assert list(outcome.explanation.instructions) == [place]
    assert not outcome.explanation.tools
    return outcome


def thinking_changed(rng: random.Random) -> Outcome:
    talk = headed("'Thinking is ' ~ enable_thinking")
    last = conversation(talk, rng, 1)
    return talk.send(last.next(user(sentence(rng)), thinking=_THINKING_ON))


def model_changed(rng: random.Random) -> Outcome:
    with folder() as path:
        talk = Talk(folder=path)
        last = conversation(talk, rng, 2)
        other = talk.restarted(model="two")
        outcome = other.send(last.next(user(sentence(rng))))
        other.close()
        return outcome


def thinking_dropped(rng: random.Random) -> Outcome:
    talk = Talk(template="qwen3")
    thought = f"<think>\n{sentence(rng)}\n</think>\n\n{sentence(rng)}"
    first = talk.send(start(rng, thinking=_THINKING_ON), thought)
    assert first.content[0]["type"] == "thinking"
    outcome = talk.send(first.next(user(sentence(rng))), sentence(rng))
    assert outcome.explanation.divergence.message == 1
    return outcome


def computed_ahead(rng: random.Random) -> Outcome:
    talk = Talk(template="qwen3")
    thought = f"<think>\n{sentence(rng, 90)}\n</think>\n\n{sentence(rng, 90)}"
    first = talk.send(start(rng, thinking=_THINKING_ON, max_tokens=2000), thought)
    talk.compute_ahead(first)
    question = sentence(rng)
    outcome = talk.send(first.next(user(question)), sentence(rng))
    told = outcome.explanation
    assert told.divergence.message == 1
    assert told.computed_tokens <= len(talk.tokens.encode(question)) + 64
    assert 64 < told.reused_ahead_tokens < told.reused_live_tokens
    assert talk.engine.status.ahead_used_tokens == told.reused_ahead_tokens
    return outcome


def answer_rendered_differently(rng: random.Random) -> Outcome:
    # By this name mlx-lm knows how the model writes calls.
    talk = Talk(words=words(CHATML + "{#- tool_call.name #}"))
    said = sentence(rng)
    # The template writes a space after each colon and comma.
    made = f'{said}\n<tool_call>\n{{"name":"Bash","arguments":{{"command":"ls"}}}}\n</tool_call>'
    first = conversation(talk, rng, rng.randint(1, 2))
    asked = talk.send(first.next(user(sentence(rng))), made)
    use = asked.content[-1]
    assert use["type"] == "tool_use"
    done = {"type": "tool_result", "tool_use_id": use["id"], "content": "done"}
    outcome = talk.send(asked.next(user(done)))
    assert outcome.explanation.divergence.message == len(asked.request["messages"])
    return outcome


def template_varied(rng: random.Random) -> Outcome:
    # A date would not differ: it is pinned for the life of a conversation.
    talk = headed("messages | length")
    return talk.send(conversation(talk, rng, 1).next(user(sentence(rng))))


def forgotten(rng: random.Random) -> Outcome:
    with folder() as path:
        talk = Talk(folder=path)
        last = conversation(talk, rng, 3)
        body, _ = edited(last.next(user(sentence(rng))), rng)
        again = talk.restarted()
        outcome = again.send(body)
        again.close()
        return outcome


PLANTS: tuple[Callable[[random.Random], Outcome], ...] = (
    first_sight,
    new_lineage,
    extended,
    edited_history,
    rejoined,
    not_kept,
    evicted,
    pruned,
    corrupt_record,
    checkpoint,
    tools_changed,
    instructions_changed,
    thinking_changed,
    model_changed,
    thinking_dropped,
    computed_ahead,
    answer_rendered_differently,
    template_varied,
    forgotten,
)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_the_provoked_cause_is_found(plant: Callable[[random.Random], Outcome]) -> None:
    """Each cause, provoked at random places, is the one that is named."""
    for seed in SEEDS:
        outcome = plant(random.Random(seed))
        explanation = outcome.explanation
        assert outcome.cause == plant.__name__, (seed, explanation)
        assert explanation.cause == outcome.finished.reuse_cause
        usage = outcome.started.usage
        tiers = (
            explanation.reused_live_tokens,
            explanation.reused_memory_tokens,
            explanation.reused_disk_tokens,
        )
        assert sum(tiers) == usage.cache_read_tokens
        assert explanation.computed_tokens + sum(tiers) == explanation.prompt_tokens


def test_every_cause_is_provoked() -> None:
    """The list above has every cause of the contract except UNKNOWN."""
    named = {
        name.removeprefix("REUSE_CAUSE_").lower()
        for name in pb.ReuseCause.keys()  # noqa: SIM118 - no mapping
    }
    planted = {plant.__name__ for plant in PLANTS}
    assert named - planted == {"unspecified", "unknown"}


def test_an_error_loses_the_explanation_and_not_the_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error the request is answered, and the log quotes no prompt."""

    def broken(ids: object) -> str:
        raise ValueError("words of a prompt")

    rng = random.Random(1)
    talk = Talk()
    last = conversation(talk, rng, 2)
    monkeypatch.setattr(talk, "decode", broken)
    body, _ = edited(last.next(user(sentence(rng))), rng)
    with capture_logs() as logs:
        finished = talk.finish(body)
    assert finished.reuse_cause == pb.REUSE_CAUSE_UNKNOWN
    assert [entry["error"] for entry in logs] == ["ValueError"]
    assert "words of a prompt" not in str(logs) + capsys.readouterr().out


def test_the_first_token_does_not_wait_for_the_explanation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer has begun before its request is explained, also where the prompt diverges."""
    emitted, explained = RequestExplainer.emitted, RequestExplainer.explain
    order: list[str] = []
    monkeypatch.setattr(
        RequestExplainer, "emitted", lambda *a: (order.append("emitted"), emitted(*a))
    )
    monkeypatch.setattr(RequestExplainer, "explain", lambda *a: (order.append("x"), explained(*a)))
    talk, rng = Talk(), random.Random(1)
    body = start(rng)
    talk.send(body)
    order.clear()
    assert talk.send(body | {"messages": [user("Another question.")]}).cause == "edited_history"
    assert order[0] == "emitted"
    assert "x" in order


def test_what_is_remembered_is_bounded() -> None:
    """Beyond the limits, the conversation that was idle longest is forgotten first."""
    rng = random.Random(2)
    talk = Talk(limits=ExplainLimits(max_conversations=2, max_explanations=3))
    opening = start(rng)
    for session in ("a", "b", "c"):
        first = talk.send(opening, session=session)
    again, body = talk.send(opening, session="c"), copy.deepcopy(opening)
    assert again.cause == "extended"
    body["messages"][0]["content"] += " Else."
    # Its tokens are still in the tree, but its messages are forgotten.
    assert talk.send(body, session="a").cause == "forgotten"
    body["messages"][0]["content"] = "Other words."
    assert talk.send(body, session="c").cause == "edited_history"
    assert talk.explainer.get(first.explanation.request_id) is None

    small = Talk(limits=ExplainLimits(memory_bytes=10_000))
    for session in "abcdefgh":
        small.send(opening, session=session)
    assert 0 < small.explainer.nbytes <= 10_000


def test_notes_that_cannot_be_read_cost_nothing_else() -> None:
    """A damaged or read-only folder is logged, and requests are answered as before."""
    with folder() as path:
        notes = path / "notes"
        notes.mkdir()
        (notes / "sessions.json").write_text("[broken")
        (notes / "one-0123.prefix").write_text("{}")
        with capture_logs() as logs:
            talk = Talk(folder=path)
        assert [entry["event"] for entry in logs] == ["cache notes cannot be read"]
        assert talk.send(start(random.Random(3))).cause == "first_sight"
        talk.close()
