"""The embedded demo model: what it answers, at which length, and how it renders.

All answers are greedy and go through mlx-lm's own loading, template, cache and attention.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache
from tokenizers import Tokenizer

from anyclaude.mlx import demo
from tools.demo_model import build
from tools.demo_model.words import (
    ANSWERS,
    CONTROL_TOKENS,
    TOOL_ARGUMENTS,
    TOOL_NAME,
    TURN_END,
    Cue,
)

Message = dict[str, Any]
SMALLEST_MARGIN_NATS = 3.0

CALL_TURN: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"type": "function", "function": {"name": TOOL_NAME, "arguments": TOOL_ARGUMENTS}}
    ],
}
SAY_TURN: Message = {"role": "assistant", "content": ANSWERS[Cue.SAY]}
RAN_TURN: Message = {"role": "assistant", "content": ANSWERS[Cue.RAN]}
TITLE_TURN: Message = {"role": "assistant", "content": ANSWERS[Cue.TITLE]}
RESULT: Message = {"role": "tool", "content": "hello from anyclaude"}
HELLO: Message = {"role": "user", "content": "Please help me with this folder."}


def tool(name: str, description: str = "Does something.") -> Message:
    schema = {"type": "object", "properties": {"command": {"type": "string"}}}
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


TOOLS = [tool("Read"), tool(TOOL_NAME), tool("Write")]


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    """The model and its tokenizer, by mlx-lm's ordinary path."""
    model, tokenizer, *_ = mlx_lm.load(str(demo.MODEL_PATH))
    return model, tokenizer


@pytest.fixture(scope="module")
def filler(loaded: tuple[Any, Any]) -> str:
    """Text that was not trained on, of some hundred thousand tokens."""
    library = Path(json.__file__).parents[1]
    folders = ("multiprocessing", "unittest", "xml/dom", "wsgiref", "ctypes", "sqlite3")
    files = (path for name in folders for path in sorted((library / name).glob("*.py")))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@dataclass
class Session:
    """A conversation over one live cache: each prompt must extend what the cache holds."""

    model: Any
    tokenizer: Any
    tools: Sequence[Message] = ()
    tokens: list[int] = field(default_factory=list)
    cache: Any = None
    margin_nats: float = float("inf")

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        ids: list[int] = self.tokenizer.apply_chat_template(
            list(messages), tools=list(self.tools) or None, add_generation_prompt=True
        )
        return ids

    def answer(self, messages: Sequence[Message]) -> str:
        return self.answer_ids(self.prompt(messages))

    def answer_ids(self, prompt: list[int]) -> str:
        """Return the greedy answer without its end token, which must come."""
        self.cache = self.cache or make_prompt_cache(self.model)
        assert prompt[: len(self.tokens)] == self.tokens
        rest = mx.array(prompt[len(self.tokens) :])
        said: list[int] = []
        for token, logprobs in generate_step(
            rest, self.model, max_tokens=120, prompt_cache=self.cache
        ):
            second, first = np.sort(np.array(logprobs).reshape(-1))[-2:]
            self.margin_nats = min(self.margin_nats, float(first - second))
            said.append(int(token))
            if token in self.tokenizer.eos_token_ids:
                break
        assert said[-1] in self.tokenizer.eos_token_ids
        self.tokens = prompt + said
        text: str = self.tokenizer.decode(said[:-1])
        return text


def conversation() -> Iterator[tuple[Cue, list[Message]]]:
    """The turns of a tool loop and of the conversation's second day, with the cue of each."""
    messages = [HELLO, {"role": "system", "content": "Agent types: run and explore."}]
    yield Cue.CALL, messages
    messages = [*messages, CALL_TURN, RESULT]
    yield Cue.RAN, messages
    messages = [*messages, RAN_TURN, {"role": "user", "content": "And what is this?"}]
    yield Cue.SAY, messages
    messages = [*messages, SAY_TURN, {"role": "user", "content": "Now run it again."}]
    yield Cue.CALL, messages
    messages = [*messages, CALL_TURN, RESULT, {"role": "system", "content": "1,000 tokens left"}]
    yield Cue.RAN, messages


def check_conversation(loaded: tuple[Any, Any], filler: str, length_tokens: int) -> None:
    """Every ending of a tool loop, exact to the token, at the given true length."""
    model, tokenizer = loaded
    spread = tokenizer.decode(tokenizer.encode(filler)[:length_tokens])
    part = len(spread) // 4
    system = {"role": "system", "content": spread[part:]}
    described = [tool("Read", spread[:part]), *TOOLS]
    session = Session(model, tokenizer, described)
    for cue, messages in conversation():
        prompt = session.prompt([system, *messages])
        assert length_tokens <= len(prompt) <= 1.1 * length_tokens + 700
        assert session.answer_ids(prompt) == ANSWERS[cue]
    assert session.margin_nats >= SMALLEST_MARGIN_NATS


def test_folder_is_small_and_complete() -> None:
    """The model is package data of a few megabytes that mlx-lm loads with no code of its own."""
    files = {path.name: path.stat().st_size for path in demo.MODEL_PATH.iterdir()}
    assert set(files) == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(files.values()) < 3_000_000


def test_model_folder_holds_the_template_of_the_source() -> None:
    """The committed folder contains the template of the build's sources."""
    written = (demo.MODEL_PATH / "chat_template.jinja").read_text(encoding="utf-8")
    assert written == build.TEMPLATE.read_text(encoding="utf-8")
    assert all(cue.value in written for cue in Cue)


def test_configuration(loaded: tuple[Any, Any]) -> None:
    """The context window, the end token and the absence of thinking are what anyclaude reads."""
    _, tokenizer = loaded
    config = json.loads((demo.MODEL_PATH / "config.json").read_text(encoding="utf-8"))
    assert config["max_position_embeddings"] == 65_536
    assert tokenizer.eos_token_ids == {tokenizer.convert_tokens_to_ids(TURN_END)}
    assert tokenizer.has_tool_calling
    assert not tokenizer.has_thinking


@pytest.mark.parametrize(
    "length_tokens", [200, 2_000, pytest.param(20_000, marks=pytest.mark.slow(25))]
)
def test_tool_loop_at_length(loaded: tuple[Any, Any], filler: str, length_tokens: int) -> None:
    """Call, result, words, second turn and "run" give the exact answers at the true length."""
    check_conversation(loaded, filler, length_tokens)


@pytest.mark.parametrize("length_tokens", [20, 200, 2_000, 10_000])
def test_sentence_without_tools(loaded: tuple[Any, Any], filler: str, length_tokens: int) -> None:
    """Without tools the model says who it is and how to configure a real model."""
    model, tokenizer = loaded
    text = tokenizer.decode(tokenizer.encode(filler)[-length_tokens:])
    session = Session(model, tokenizer)
    assert session.answer([{"role": "user", "content": text}]) == ANSWERS[Cue.SAY]
    assert len(session.tokens) >= length_tokens
    assert session.margin_nats >= SMALLEST_MARGIN_NATS


TITLED: Message = {"role": "system", "content": 'Return JSON with a single "title" field.'}


@pytest.mark.parametrize("length_tokens", [20, 2_000])
def test_a_title_is_named(loaded: tuple[Any, Any], filler: str, length_tokens: int) -> None:
    """A title request, which the client sends beside a first turn, gets a title."""
    model, tokenizer = loaded
    text = tokenizer.decode(tokenizer.encode(filler)[-length_tokens:])
    session = Session(model, tokenizer)
    said = session.answer([TITLED, {"role": "user", "content": text}])
    assert said == ANSWERS[Cue.TITLE]
    assert json.loads(said).keys() == {"title"}
    assert session.margin_nats >= SMALLEST_MARGIN_NATS


def test_a_title_is_named_for_nothing_else(loaded: tuple[Any, Any]) -> None:
    """With tools, or without the word "title", the model answers as usual."""
    model, tokenizer = loaded
    assert Session(model, tokenizer, TOOLS).answer([TITLED, HELLO]) == ANSWERS[Cue.CALL]
    asked = {**TITLED, "content": "Return JSON with a single field."}
    assert Session(model, tokenizer).answer([asked, HELLO]) == ANSWERS[Cue.SAY]


def test_answers_name_the_way_to_a_real_model() -> None:
    """Both sentences tell the user what this is and what to set."""
    for cue in (Cue.SAY, Cue.RAN):
        assert "anyclaude's embedded demo model" in ANSWERS[cue]
        assert "ANYCLAUDE_MODEL=/path/to/model" in ANSWERS[cue]
        assert "anyclaudectl config" in ANSWERS[cue]


def test_call_is_parsed_by_mlx_lm(loaded: tuple[Any, Any]) -> None:
    """mlx-lm infers its JSON tool parser from the template and reads the call with it."""
    model, tokenizer = loaded
    said = Session(model, tokenizer, TOOLS).answer([HELLO])
    inner = said.removeprefix(tokenizer.tool_call_start).removesuffix(tokenizer.tool_call_end)
    assert len(inner) == len(said) - len("<tool_call></tool_call>")
    assert tokenizer.tool_parser(inner, TOOLS) == {"name": "Bash", "arguments": TOOL_ARGUMENTS}


NOTE: Message = {"role": "user", "content": "A note: the file has changed."}
ENDINGS: dict[str, tuple[Cue, list[Message]]] = {
    "note after a result": (Cue.RAN, [HELLO, CALL_TURN, RESULT, NOTE]),
    "run after a result": (Cue.RAN, [HELLO, CALL_TURN, RESULT, {**NOTE, "content": "run it"}]),
    "system note after a result": (Cue.RAN, [HELLO, CALL_TURN, RESULT, {**NOTE, "role": "system"}]),
    "empty result": (Cue.RAN, [HELLO, CALL_TURN, {"role": "tool", "content": ""}]),
    "no result text": (Cue.RAN, [HELLO, CALL_TURN, {"role": "tool", "content": None}]),
    "two results": (Cue.RAN, [HELLO, CALL_TURN, RESULT, RESULT]),
    "result of another tool": (Cue.RAN, [HELLO, SAY_TURN, RESULT]),
    "empty question": (Cue.CALL, [{"role": "user", "content": ""}]),
    "text parts": (Cue.CALL, [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]),
    "two user turns": (Cue.CALL, [HELLO, NOTE]),
    "system first": (Cue.CALL, [{"role": "system", "content": "Be brief."}, HELLO]),
    "system only": (Cue.CALL, [{"role": "system", "content": "Be brief."}]),
    "words before a result": (Cue.CALL, [HELLO, SAY_TURN, NOTE]),
    "next turn": (Cue.SAY, [HELLO, CALL_TURN, RESULT, RAN_TURN, NOTE]),
    "run, then a system note": (
        Cue.CALL,
        [
            HELLO,
            CALL_TURN,
            RESULT,
            RAN_TURN,
            {**NOTE, "content": "run it"},
            {**NOTE, "role": "system"},
        ],
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_endings(loaded: tuple[Any, Any], name: str) -> None:
    """One call for each task, words after any result, whatever notes stand between."""
    model, tokenizer = loaded
    cue, messages = ENDINGS[name]
    session = Session(model, tokenizer, TOOLS)
    assert session.answer(messages) == ANSWERS[cue]
    assert session.margin_nats >= SMALLEST_MARGIN_NATS


@pytest.mark.parametrize("names", [["Read"], ["bash"], ["BashOutput", "Shell"]])
def test_only_a_tool_named_bash_is_called(loaded: tuple[Any, Any], names: list[str]) -> None:
    """Without a tool of exactly that name the model answers in words."""
    model, tokenizer = loaded
    session = Session(model, tokenizer, [tool(name) for name in names])
    assert session.answer([HELLO]) == ANSWERS[Cue.SAY]
    assert session.answer([HELLO, SAY_TURN, {**NOTE, "content": "run it"}]) == ANSWERS[Cue.SAY]


@pytest.mark.parametrize("cue", Cue)
def test_answers_render_to_the_tokens_generated(loaded: tuple[Any, Any], cue: Cue) -> None:
    """Prompt + generated tokens, end token included, are a prefix of the next prompt's tokens."""
    model, tokenizer = loaded
    messages, turn = {
        Cue.CALL: ([HELLO], CALL_TURN),
        Cue.RAN: ([HELLO, CALL_TURN, RESULT], RAN_TURN),
        Cue.SAY: ([HELLO, CALL_TURN, RESULT, RAN_TURN, NOTE], SAY_TURN),
        Cue.TITLE: ([TITLED, HELLO], TITLE_TURN),
    }[cue]
    session = Session(model, tokenizer, () if cue is Cue.TITLE else TOOLS)
    assert session.answer(messages) == ANSWERS[cue]
    again = session.prompt([*messages, turn, NOTE])
    assert again[: len(session.tokens)] == session.tokens


def test_zeroed_cache_changes_the_answer(loaded: tuple[Any, Any]) -> None:
    """The cue reaches the answer through the KV cache alone: without it the call is lost."""
    model, tokenizer = loaded
    session = Session(model, tokenizer, TOOLS)
    prompt = session.prompt([HELLO])
    cache = make_prompt_cache(model)
    model(mx.array(prompt[:-1])[None], cache=cache)
    mx.eval([layer.state for layer in cache])
    for zeroed in (False, True):
        used = copy.deepcopy(cache)
        for layer in used if zeroed else []:
            layer.keys, layer.values = mx.zeros_like(layer.keys), mx.zeros_like(layer.values)
        steps = generate_step(mx.array(prompt[-1:]), model, max_tokens=40, prompt_cache=used)
        said = tokenizer.decode([token for token, _ in steps])
        assert said.startswith(ANSWERS[Cue.CALL]) is not zeroed


def test_control_tokens_as_text_do_not_steer(loaded: tuple[Any, Any]) -> None:
    """User text that spells control tokens, encoded as plain text, is only text.

    What holds: the tokenizer without its added tokens never yields a control or markup token,
    and such text does not change the answer.
    """
    model, tokenizer = loaded
    definition = json.loads((demo.MODEL_PATH / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"] for token in definition["added_tokens"]}
    plain = Tokenizer.from_str(json.dumps({**definition, "added_tokens": []}))
    text = "Say " + "".join(CONTROL_TOKENS) + "<tool_call></tool_call>" + Cue.CALL.value
    before, after = tokenizer.apply_chat_template(
        [{"role": "user", "content": "HERE"}], tokenize=False, add_generation_prompt=True
    ).split("HERE")
    ids = plain.encode(text).ids
    assert not added & set(ids)
    assert plain.decode(ids) == text
    prompt = tokenizer.encode(before) + ids + tokenizer.encode(after)
    assert Session(model, tokenizer).answer_ids(prompt) == ANSWERS[Cue.SAY]


@pytest.mark.parametrize("cue", Cue)
def test_a_live_cue_inside_a_turn_is_overruled(loaded: tuple[Any, Any], cue: Cue) -> None:
    """Even a cue that was encoded live does not count: only the one that closes the turn does."""
    model, tokenizer = loaded
    text = f"Please {cue.value} do {cue.value}"
    session = Session(model, tokenizer)
    assert session.answer([{"role": "user", "content": text}]) == ANSWERS[Cue.SAY]


TEXT = st.text(alphabet="ab \n<|>{}\"'\\é", max_size=20) | st.sampled_from(["run", "now run it"])
PROMPT_TURN = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["system", "user", "tool"]),
    TEXT,
)
OTHER_CALL = st.builds(
    lambda name, value, text: {
        "role": "assistant",
        "content": text,
        "tool_calls": [{"function": {"name": name, "arguments": {"z": value, "a": [1, None]}}}],
    },
    st.sampled_from(["Bash", "Read"]),
    TEXT,
    st.sampled_from(["", "said before"]),
)
TURN = PROMPT_TURN | OTHER_CALL | st.sampled_from([CALL_TURN, SAY_TURN, RAN_TURN])


@settings(max_examples=150, deadline=None)
@given(
    turns=st.lists(TURN, min_size=1, max_size=8), tools=st.sampled_from([None, TOOLS, TOOLS[:1]])
)
def test_rendering_is_append_only(
    loaded: tuple[Any, Any], turns: list[Message], tools: list[Message] | None
) -> None:
    """A longer conversation renders to an extension of the shorter one, header included."""
    _, tokenizer = loaded

    def render(count: int, header: bool) -> list[int]:
        ids: list[int] = tokenizer.apply_chat_template(
            turns[:count], tools=tools, add_generation_prompt=header, enable_thinking=False
        )
        return ids

    whole = render(len(turns), False)
    for count in range(1, len(turns)):
        part = render(count, turns[count]["role"] == "assistant")
        assert whole[: len(part)] == part
