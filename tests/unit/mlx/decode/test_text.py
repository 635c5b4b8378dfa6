"""Text and thinking: streaming, delayed text, stop sequences, whitespace."""

import itertools
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.decode import BlockStream
from anyclaude.mlx.decode.markers import Markers, Mode, Transition
from anyclaude.mlx.decode.scanner import Event, Scanner, Stopped, Switch, Text
from tests.models.answers import TOOLS, Answer, answer
from tests.models.families import encode, encode_bytes, tokenizer
from tests.models.templates import TEMPLATES
from tests.models.tokenizers import special_tokens
from tests.models.tokenizers import tokenizer as family

CALL = '<tool_call>\n{"name": "Bash", "arguments": {"command": "ls"}}\n</tool_call>'
# Words whose beginnings and ends meet in many ways.
SHORT = st.lists(st.sampled_from(["a", "b", "<", "</", "x>", "\n", "é"]), max_size=12).map("".join)
STOPS = st.lists(st.sampled_from(["ab", "b<", "</x>", "a", "bab", "abé", "\n\n", ""]), max_size=3)
PIECES = st.lists(
    st.sampled_from(
        [
            *["Hello", " ", "\n", "<", "</", "tool", "_call>", "think>", "🙂", "<think>", "é"],
            *["</think>", "<tool_call>", "</tool_call>", CALL, "a b", '{"', "<tool"],
        ]
    ),
    max_size=14,
).map(lambda parts: "x" + "".join(parts))


# Markers where they divide something.
IN_PLACE = st.lists(
    st.sampled_from(["Hello", " ", "\n", "🙂", "<tool", "</", CALL, "<think>hm</think>"]),
    max_size=14,
).map(lambda parts: "x" + "".join(parts))
MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>")


def test_plain_text_is_one_block_of_exactly_that_text() -> None:
    """Whitespace inside a text, at its start and at its end arrives unchanged."""
    result = answer(tokenizer("none"), "\n\nHello,\n\n  world \n\n")
    assert result.brief() == [("text", "", "\n\nHello,\n\n  world \n\n")]


def test_text_leaves_token_by_token() -> None:
    """A token that cannot begin a marker is sent at once."""
    wrapper = tokenizer("json_tools", thinking=True)
    stream = BlockStream(wrapper, TOOLS, ["STOP"])
    for token in encode(wrapper, "Helloworld"):
        assert any(event.HasField("block_delta") for event in stream.push(token))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("text", ["a🙂b", "日本語テキスト", "é", "👩‍👩‍👧 ok", "no\u00a0break"])
def test_characters_split_over_byte_tokens_arrive_whole(text: str, fast: bool) -> None:
    """No delta contains part of a character, with either detokenizer."""
    wrapper = tokenizer("none", fast=fast)
    stream = BlockStream(wrapper, [], [])
    deltas = []
    for token in encode_bytes(wrapper, text):
        deltas += [event.block_delta.text for event in stream.push(token)]
    deltas += [event.block_delta.text for event in stream.finish(cut=False)]
    assert "".join(deltas) == text
    assert all("\ufffd" not in delta for delta in deltas)


def test_half_a_character_at_the_end_is_left_out() -> None:
    """An answer cut off inside a character ends before it, without a replacement character."""
    wrapper = tokenizer("none")
    assert answer(wrapper, encode_bytes(wrapper, "ok🙂")[:-1], cut=True).text == "ok"


@settings(max_examples=150, deadline=None)
@given(text=PIECES, thinking=st.booleans(), in_thinking=st.booleans(), fast=st.booleans())
def test_tokenisation_does_not_change_the_answer(
    text: str, thinking: bool, in_thinking: bool, fast: bool
) -> None:
    """The same text gives the same blocks, in large tokens or byte by byte."""
    wrapper = tokenizer("json_tools", thinking=thinking, fast=fast)
    whole = answer(wrapper, text, in_thinking=in_thinking)
    pieces = re.split(f"({'|'.join(MARKERS)})", text)
    each = [(encode if at % 2 else encode_bytes)(wrapper, p) for at, p in enumerate(pieces)]
    bytewise = answer(wrapper, list(itertools.chain(*each)), in_thinking=in_thinking)
    assert whole.brief() == bytewise.brief()
    assert whole.stream.has_tool_use == bytewise.stream.has_tool_use


@settings(max_examples=150, deadline=None)
@given(text=IN_PLACE, thinking=st.booleans(), fast=st.booleans())
def test_markers_in_place_may_be_spelled_out(text: str, thinking: bool, fast: bool) -> None:
    """A marker has the same effect as one token and byte by byte."""
    wrapper = tokenizer("json_tools", thinking=thinking, fast=fast)
    bytewise = answer(wrapper, encode_bytes(wrapper, text))
    assert answer(wrapper, text).brief() == bytewise.brief()


@settings(max_examples=150, deadline=None)
@given(text=PIECES)
def test_text_without_whole_markers_is_never_lost(text: str) -> None:
    """Without thinking and tools, an answer in ordinary tokens arrives unchanged."""
    wrapper = tokenizer("json_tools")
    assert answer(wrapper, encode_bytes(wrapper, text), tools=[]).text == text


def _markers() -> Markers:
    transitions = {
        Mode.TEXT: [Transition("<think>", Mode.THINKING), Transition("<ab", Mode.TEXT)],
        Mode.THINKING: [Transition("</think>", Mode.TEXT)],
    }
    return Markers(transitions, Mode.TEXT, "</think>")


def _joined(events: list[Event]) -> list[Event]:
    joined: list[Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, Text) and isinstance(last, Text) and last.mode is event.mode:
            joined[-1] = Text(event.mode, last.text + event.text)
        else:
            joined.append(event)
    return joined


def _scan(pieces: list[str], stops: list[str]) -> list[Event]:
    scanner = Scanner(_markers(), stops)
    events = [event for piece in pieces for event in scanner.feed(piece)]
    return _joined([*events, *scanner.flush()])


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(SHORT | st.sampled_from(["<think>", "</think>"]), max_size=8), stops=STOPS)
def test_pieces_do_not_matter(pieces: list[str], stops: list[str]) -> None:
    """A text gives the same events at once, in pieces, and character by character."""
    text = "".join(pieces)
    assert _scan(pieces, stops) == _scan([text], stops) == _scan(list(text), stops)


@settings(max_examples=300, deadline=None)
@given(text=SHORT, stops=STOPS)
def test_no_more_is_held_back_than_must_be(text: str, stops: list[str]) -> None:
    """After each character, only the beginning of a marker and line ends before it are delayed."""
    markers = [*filter(None, stops), "<think>", "<ab"]
    scanner = Scanner(_markers(), stops)
    out = seen = ""
    for character in text:
        events = list(scanner.feed(character))
        if any(isinstance(event, Switch | Stopped) for event in events):
            return
        seen += character
        out += "".join(event.text for event in events if isinstance(event, Text))
        begun = [n for m in markers for n in range(1, len(m)) if seen.endswith(m[:n])]
        assert out == seen[: len(seen) - max(begun, default=0)].rstrip("\r\n")


def _reference(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The position at which a search character by character would stop the answer."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@settings(max_examples=300, deadline=None)
@given(text=SHORT, stops=STOPS)
def test_stop_sequences_agree_with_a_reference(text: str, stops: list[str]) -> None:
    """Overlapping stop sequences across tokens stop where a search of the whole text does."""
    wrapper = tokenizer("none")
    text = "x" + text
    expected, matched = _reference(text, stops)
    for tokens in (encode(wrapper, text), encode_bytes(wrapper, text)):
        result = answer(wrapper, tokens, stop_sequences=stops)
        assert result.text == expected
        assert result.stream.stop_sequence == matched


def test_nothing_follows_a_stop_sequence() -> None:
    """The rest of the token that completed it, and later tokens, are not sent."""
    wrapper = tokenizer("none")
    stream = BlockStream(wrapper, [], ["lo w"])
    events = [event for token in encode(wrapper, "Hello world") for event in stream.push(token)]
    events += stream.finish(cut=False)
    assert "".join(event.block_delta.text for event in events) == "Hel"
    assert stream.stop_sequence == "lo w"


def test_stop_sequences_do_not_match_in_thinking_or_calls() -> None:
    """Stop sequences in thinking and in calls do not stop an answer."""
    wrapper = tokenizer("json_tools", thinking=True)
    result = answer(wrapper, f"<think>ls</think>one{CALL}two ls", stop_sequences=["ls"])
    assert result.brief() == [
        ("thinking", "", "ls"),
        ("text", "", "one"),
        ("tool_use", "Bash", '{"command":"ls"}'),
        ("text", "", "two "),
    ]
    assert result.stream.stop_sequence == "ls"


def _thinking(text: str, *, in_thinking: bool = False) -> Answer:
    return answer(tokenizer("json_tools", thinking=True), text, in_thinking=in_thinking)


def test_thinking_is_a_block_of_its_own() -> None:
    """Thinking is a block with a signature, without the line ends beside its markers."""
    result = _thinking("<think>\nfirst\n\nsecond\n</think>\n\nHello\n")
    assert result.brief() == [("thinking", "", "first\n\nsecond"), ("text", "", "Hello\n")]


def test_thinking_opened_by_the_prompt() -> None:
    """If the prompt ends with the start of thinking, the answer begins inside thinking."""
    result = _thinking("\nhmm</think>\n\nHello", in_thinking=True)
    assert result.brief() == [("thinking", "", "hmm"), ("text", "", "Hello")]


def test_thinking_that_never_ends_is_closed() -> None:
    """An answer cut off inside thinking still ends the block with a signature."""
    wrapper = tokenizer("json_tools", thinking=True)
    result = answer(wrapper, "<think>so far</thi", cut=True)
    assert result.brief() == [("thinking", "", "so far</thi")]


def test_empty_thinking_is_no_block() -> None:
    """Empty thinking, as templates write it when thinking is off, gives no block."""
    assert _thinking("<think>\n\n</think>\n\nHello").brief() == [("text", "", "Hello")]


def test_models_without_thinking_get_no_thinking_block() -> None:
    """The markers are text if the tokenizer does not know them."""
    text = "<think>hmm</think>Hello"
    result = answer(tokenizer("json_tools"), text, in_thinking=True)
    assert result.brief() == [("text", "", text)]


def test_call_inside_thinking_closes_it_first() -> None:
    """A call inside thinking ends the block, and the end marker after the call is left out."""
    result = _thinking(f"<think>let me {CALL}\n</think>\nDone")
    assert result.kinds() == ["thinking", "tool_use", "text"]
    assert result.text == "Done"


def test_whitespace_around_calls_is_no_block() -> None:
    """Line ends between thinking and calls give no text block."""
    result = _thinking(f"<think>a</think>\n\n{CALL}\n{CALL} \n")
    assert result.kinds() == ["thinking", "tool_use", "tool_use"]


def test_line_ends_before_a_call_belong_to_the_template() -> None:
    """Line ends at the end of a text before a call are dropped, since the template writes them."""
    assert _thinking(f"Let me look. \n\n{CALL}").text == "Let me look. "


@pytest.mark.parametrize("choice", [None, ToolChoice(type="none")])
def test_call_markers_where_no_call_is_possible(choice: ToolChoice | None) -> None:
    """Without tools, or with tool_choice none, a marker spelled in words is prose; the token that
    is the marker says nothing, since text never holds raw markup."""
    wrapper, text = tokenizer("json_tools"), f"Write {CALL} to call."
    fields = {"tools": TOOLS if choice else [], "tool_choice": choice or ToolChoice()}
    spelled = answer(wrapper, encode_bytes(wrapper, text), **fields)
    assert spelled.brief() == [("text", "", text)]
    silent = text.replace("<tool_call>", "").replace("</tool_call>", "")
    assert answer(wrapper, text, **fields).brief() == [("text", "", silent)]


@pytest.mark.parametrize("tools", [(), TOOLS])
def test_markers_out_of_place_are_no_text(tools: Sequence[Tool]) -> None:
    """An end marker without a start, or a start inside thinking, has no effect."""
    wrapper = tokenizer("json_tools", thinking=True)
    assert answer(wrapper, "one</tool_call></think>two", tools=tools).text == "onetwo"
    thought = answer(wrapper, "a<think>b</tool_call></think>said", tools=tools, in_thinking=True)
    assert thought.brief() == [("thinking", "", "ab"), ("text", "", "said")]


def test_a_marker_that_the_client_waits_for_stops_the_answer() -> None:
    """A stop sequence is found although it is one token of the model."""
    result = answer(
        tokenizer("json_tools"), "one<tool_call>", tools=[], stop_sequences=["<tool_call>"]
    )
    assert (result.text, result.stream.stop_sequence) == ("one", "<tool_call>")


def test_markup_of_the_template_is_no_text() -> None:
    """A template's markup for results is left out, while other added tokens are text."""
    wrapper = family("qwen3_coder")
    said = answer(wrapper, encode(wrapper, "one<tool_response>two</tool_response>"), tools=[])
    assert said.text == "onetwo"
    # In the vocabulary, but not of this template.
    assert answer(wrapper, encode(wrapper, "<arg_key>"), tools=[]).text == "<arg_key>"


def test_control_tokens_out_of_place_are_no_text() -> None:
    """A token that opens or ends a turn says nothing where the model writes it by itself; the same
    characters as words are words."""
    wrapper = family("chatml")
    start = wrapper.convert_tokens_to_ids("<|im_start|>")
    words = encode(wrapper, "Hello")
    spelled = [token for sign in "<|im_start|>" for token in encode(wrapper, sign)]
    assert start not in spelled
    assert answer(wrapper, [start, *words, start, start, *words]).text == "HelloHello"
    assert answer(wrapper, [*words, *spelled]).text == "Hello<|im_start|>"


# Gemma 4's special tokens in this order are a call and, within it, the markers of thinking.
@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"bare", "gemma4"}))
def test_no_control_token_of_any_template_is_text(name: str) -> None:
    """No control token of any family is left in the text."""
    wrapper = family(name)
    tokens = [wrapper.convert_tokens_to_ids(text) for text in special_tokens(name)]
    said = answer(wrapper, [*encode(wrapper, "a"), *tokens], cut=True)
    assert not [text for text in special_tokens(name) if text in said.text]
