"""What is learned from a refusal: exactly the field or the form that it refuses."""

import pytest

from anyclaude.relay.environment import Key
from anyclaude.relay.quirks import IMAGES, Quirk, Quirks
from anyclaude.relay.upstream import Upstream
from anyclaude.runtime.upstreams import UpstreamSettings

SENT = {
    "model": "m",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "q", "cache_control": {}}]},
        {"role": "assistant", "content": "a", "reasoning_content": "hm", "reasoning_details": []},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
    ],
    "tools": [{"name": "t", "input_schema": {}, "defer_loading": True, "input_examples": []}],
    "max_tokens": 9,
    "stream": True,
    "stream_options": {},
    "temperature": 0.5,
    "top_k": 4,
    "top_p": 0.9,
    "stop": ["a", "b", "c", "d", "e"],
    "reasoning": {"enabled": False},
    "chat_template_kwargs": {},
    "parallel_tool_calls": False,
    "tool_choice": "auto",
    "response_format": {},
    "thinking": {},
    "of_next_year": 1,
}


def learn(refusal, details=None):
    return Quirks().learn(refusal, SENT, details)


@pytest.mark.parametrize(
    ("refusal", "details", "name"),
    [
        ("Unrecognized request argument: top_k", {}, "top_k"),
        ("Temperature is not supported with this model", {}, "temperature"),
        ("TOP_K NOT SUPPORTED", {}, "top_k"),
        ("Unsupported parameter: 'stop' is not supported with this model.", {}, "stop"),
        ("chat_template_kwargs is not supported", {}, "chat_template_kwargs"),
        ("body.stream_options: Extra inputs are not permitted", {}, "stream_options"),
        ("This endpoint does not accept cache_control", {}, "cache_control"),
        ("topP is not supported by this endpoint", {}, "top_p"),
        ("Unknown parameter", {"param": "parallel_tool_calls"}, "parallel_tool_calls"),
        ("Extra inputs are not permitted", {"loc": ["body", "top_k"]}, "top_k"),
        ("Supported are temperature and top_p. Unsupported: top_k", {}, "top_k"),
        ("temperature is not supported while thinking is enabled", {}, "temperature"),
        ("Unknown field: of_next_year", {}, "of_next_year"),
        ("messages.1.reasoning_content is not allowed", {}, "reasoning_content"),
        ("tools.0.custom.input_examples: Extra inputs are not permitted", {}, "input_examples"),
        ("tools.0.custom.defer_loading: Extra inputs are not permitted", {}, "defer_loading"),
        ("temperature and top_p cannot both be specified for this model", {}, "temperature"),
        ("The model does not support image inputs", {}, IMAGES),
        ("image input is not supported - hint: you may need to provide the mmproj", {}, IMAGES),
        ("No endpoints found that support image input", {}, IMAGES),
        ("messages[0]: unknown variant `image_url`, expected `text` at line 1", {}, IMAGES),
        ("Invalid content type. image_url is only supported by certain models.", {}, IMAGES),
        ("this model is missing data required for image input", {}, IMAGES),
        ("m is not a multimodal model", {}, IMAGES),
        ("This model has no vision capabilities", {}, IMAGES),
        ("messages[2].content: invalid type: sequence, expected a string", {}, IMAGES),
        ("Only 'text' content type is supported.", {}, IMAGES),
    ],
)
def test_a_refused_field(refusal, details, name):
    """The field that is refused is left out from then on, however its name is written."""
    learned = learn(refusal, details)
    assert learned is not None
    assert (learned.dropped, learned.dropped_once, learned.known) == (
        {name},
        frozenset(),
        frozenset(),
    )


@pytest.mark.parametrize(
    ("refusal", "details"),
    [
        ("temperature is required", {}),
        ("Field required", {"loc": ["body", "top_k"], "type": "missing"}),
        ("Missing required parameter: 'response_format'", {"param": "response_format"}),
        ("top_p must be provided", {}),
        ("the field thinking is missing", {}),
        ("messages is too short", {}),
        ("Invalid request", {}),
        ("the model is not supported", {}),
    ],
)
def test_a_missing_field_is_not_a_refused_field(refusal, details):
    """A refusal because something is missing leaves nothing out."""
    learned = learn(refusal, details)
    assert learned is None or not learned.left_out


@pytest.mark.parametrize(
    ("refusal", "name"),
    [
        ("temperature must be between 0 and 0.4", "temperature"),
        ("top_p: Input should be less than or equal to 0.5", "top_p"),
        ("Invalid value for top_k: must be at least 10", "top_k"),
        ("temperature is out of range", "temperature"),
        ("temperature may only be set to 1 when thinking is enabled", "temperature"),
        ("top_k is too large", "top_k"),
        ("image exceeds 5 MB maximum: 6000000 bytes > 5242880 bytes", IMAGES),
        ("Could not process image", IMAGES),
        ("At most 0 image(s) may be provided in one prompt.", IMAGES),
        ("'messages.2.content' : value must be a string", IMAGES),
    ],
)
def test_a_refused_value_is_left_out_once(refusal, name):
    """A field whose value is refused is left out of this request, and sent with the next ones."""
    learned = learn(refusal)
    assert learned is not None
    assert learned.dropped_once == {name}
    assert learned.lasting().left_out == frozenset()


@pytest.mark.parametrize(
    ("refusal", "quirk"),
    [
        (
            "thinking is enabled but reasoning_content is missing in "
            "assistant tool call message at index 1",
            Quirk.REASONING_EXPECTED,
        ),
        (
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
            Quirk.REASONING_EXPECTED,
        ),
        ("Missing reasoning_content in assistant message", Quirk.REASONING_EXPECTED),
        ("messages[1].reasoning_content: field required", Quirk.REASONING_EXPECTED),
        ("assistant message without reasoning_content", Quirk.REASONING_EXPECTED),
        (
            "Reasoning is mandatory for this endpoint and cannot be disabled.",
            Quirk.REASONING_ALWAYS,
        ),
        ("reasoning cannot be disabled for this model", Quirk.REASONING_ALWAYS),
        ("This model does not support disabling thinking", Quirk.REASONING_ALWAYS),
        ("Thinking must be enabled for this model", Quirk.REASONING_ALWAYS),
        ("THINKING CANNOT BE TURNED OFF", Quirk.REASONING_ALWAYS),
        ("Invalid `signature` in `thinking` block", Quirk.OWN_THOUGHTS_ONLY),
        ("thinking block: signature is required", Quirk.OWN_THOUGHTS_ONLY),
        ("messages.1.content.0.thinking.signature: Invalid signature", Quirk.OWN_THOUGHTS_ONLY),
        (
            "The value of the enable_thinking parameter is restricted to True.",
            Quirk.REASONING_ALWAYS,
        ),
        (
            "After the optional system message, conversation roles must alternate user and "
            "assistant roles except for tool calls and results.",
            Quirk.ALTERNATE,
        ),
        (
            "Only user, assistant and tool roles are supported, got role system.",
            Quirk.SYSTEM_AS_USER,
        ),
        ("tool_call_id must be at most 40 characters", Quirk.SHORT_TOOL_IDS),
        ("Unexpected role 'user' after role 'tool'", Quirk.ALTERNATE),
        ("roles must alternate user/assistant/user/assistant/...", Quirk.ALTERNATE),
        ("Consecutive user messages are not allowed", Quirk.ALTERNATE),
        ("Jinja Exception: Conversation roles must alternate user and assistant", Quirk.ALTERNATE),
        ("two successive messages of role user", Quirk.ALTERNATE),
        ("System role not supported", Quirk.SYSTEM_AS_USER),
        ("Developer instruction is not enabled for models/m", Quirk.SYSTEM_IN_FIRST_TURN),
        ("unknown content block type: document", Quirk.FEW_BLOCKS),
        ("messages.3.content.0: Input tag 'tool_reference' found using 'type'", Quirk.FEW_BLOCKS),
        ("Unsupported content type: server_tool_use", Quirk.FEW_BLOCKS),
        ("system message must be at the beginning", Quirk.SYSTEM_AS_USER),
        (
            "Invalid 'messages[1].tool_calls[0].id': string too long. "
            "Expected a string with maximum length "
            "40",
            Quirk.SHORT_TOOL_IDS,
        ),
        ("Use `max_completion_tokens` instead", Quirk.MAX_COMPLETION_TOKENS),
    ],
)
def test_a_form_that_is_needed(refusal, quirk):
    """A refusal that asks for another form of the request teaches that form, and drops nothing."""
    learned = learn(refusal)
    assert learned is not None
    assert (learned.known, learned.left_out) == ({quirk}, frozenset())


@pytest.mark.parametrize(
    ("refusal", "limit"),
    [
        ("Invalid 'stop': array too long. Expected an array with maximum length 4, but got 5", 4),
        ("stop: at most 4 sequences are allowed", 4),
        ("'stop' supports up to 2 sequences", 2),
        ("Too many stop sequences: stop takes a maximum of 3", 3),
        ("stop accepts no more than 1 sequence", 1),
        ("At most 4 stop sequences are allowed", 4),
        ("max of 16 stop strings", 16),
    ],
)
def test_how_many_stop_sequences(refusal, limit):
    """A limit of the number of stop sequences is learned; the field itself stays."""
    learned = learn(refusal)
    assert learned is not None
    assert (learned.max_stop_sequences, learned.left_out) == (limit, frozenset())


@pytest.mark.parametrize(
    "details", [{"loc": ["body", "max_tokens"]}, {"param": "max_tokens"}, {"param": "/max_tokens"}]
)
def test_a_limit_whose_field_is_named_beside_the_words(details):
    """The error object may name the field of a limit, and the words only the limit."""
    learned = learn("Input should be less than or equal to 8192", details)
    assert learned is not None
    assert (learned.max_output_tokens, learned.left_out) == (8192, frozenset())


def test_a_field_that_did_not_help_is_not_learned_again():
    """A field without which the server refused the request all the same is not proposed again."""
    refusal = "top_k or top_p is not supported"
    first = learn(refusal)
    assert first is not None
    again = Quirks().learn(refusal, SENT, {}, first.dropped)
    assert again is not None
    assert first.dropped | again.dropped == {"top_k", "top_p"}


@pytest.mark.parametrize(
    "refusal",
    [
        "System role not supported",
        "system messages are not allowed",
        "This model does not support system prompts",
        "The role `system` is not accepted: system messages are unsupported",
        "system instructions are not enabled for this model",
    ],
)
def test_no_system_message_at_all(refusal):
    """A server that refuses the system prompt too gets it in the first turn of the user."""
    learned = Quirks(frozenset({Quirk.SYSTEM_AS_USER})).learn(refusal, SENT)
    assert learned is not None
    assert Quirk.SYSTEM_IN_FIRST_TURN in learned.known


def test_without_images_nothing_is_learned_of_them():
    """Words about images teach nothing if the request has none."""
    sent = {**SENT, "messages": [{"role": "user", "content": "an image"}]}
    assert Quirks().learn("images are not supported", sent) is None


def test_lessons_are_described():
    """Status shows each lesson in a line of its own."""
    quirks = Quirks(frozenset({Quirk.ALTERNATE}), frozenset({"top_k"}), max_output_tokens=8192)
    assert quirks.describe() == ["max_tokens at most 8192", "needs alternate", "refuses top_k"]


def test_lessons_expire():
    """After `learned_seconds` a server is asked again what it refuses."""
    now = 1000.0
    settings = UpstreamSettings(base_url="http://127.0.0.1:1", learned_seconds=60)
    upstream = Upstream("it", settings, Key("it", settings, ""), clock=lambda: now)
    upstream.learn(Quirks(dropped=frozenset({"top_k"})))
    upstream.learn(Quirks(dropped=frozenset({"top_p"})))
    assert upstream.quirks.dropped == {"top_k", "top_p"}
    now += 59
    assert upstream.status().learned == ["refuses top_k", "refuses top_p"]
    now += 2
    assert upstream.quirks == Quirks()
