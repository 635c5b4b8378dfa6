"""gpt-oss: messages with headers, channels, recipients, and the tokens that end an answer."""

import pytest

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.decode.constraint import AnswerGrammar, ConstraintCompiler
from tests.models.answers import answer
from tests.models.constrained_answers import tokens_in
from tests.models.families import encode, encode_bytes, tokenizer

HARMONY = tokenizer("harmony")
CALL = '{"command": "ls"}'
MADE = ("tool_use", "Bash", '{"command":"ls"}')
NEXT = "<|end|><|start|>assistant"


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>commentary to=functions.Bash <|constrain|>json<|message|>",
        "<|channel|>commentary to=functions.Bash json<|message|>",
        "<|channel|>commentary to=functions.Bash<|message|>",
        " to=functions.Bash<|channel|>commentary json<|message|>",
        " to=functions.Bash<|channel|>commentary <|constrain|>json<|message|>",
        "<|channel|>analysis to=functions.Bash code<|message|>",
        "<|channel|>commentary to=Bash <|constrain|>json<|message|>",
    ],
)
@pytest.mark.parametrize("end", ["<|call|>", "", "<|end|>"])
def test_every_header_of_a_call_is_read(header: str, end: str, bytewise: bool) -> None:
    """The recipient may stand before or behind the channel, and the content type may vary."""
    tokens = (encode_bytes if bytewise else encode)(HARMONY, header + CALL + end)
    assert answer(HARMONY, tokens).brief() == [MADE]


def test_channels_become_blocks() -> None:
    """Analysis is thinking; final and commentary without a recipient are text."""
    text = (
        f"<|channel|>analysis<|message|>Look first.{NEXT}<|channel|>commentary<|message|>I look."
        f"{NEXT}<|channel|>commentary to=functions.Bash <|constrain|>json<|message|>{CALL}<|call|>"
    )
    assert answer(HARMONY, text).brief() == [
        ("thinking", "", "Look first."),
        ("text", "", "I look."),
        MADE,
    ]
    easy = f"<|channel|>analysis<|message|>Easy.{NEXT}<|channel|>final<|message|>Four."
    assert answer(HARMONY, easy).brief() == [("thinking", "", "Easy."), ("text", "", "Four.")]


def test_a_forgotten_end_still_begins_the_next_message() -> None:
    """A message that the next header ends loses nothing, and its markup is not shown."""
    text = (
        "<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Four."
        f"<|start|>assistant<|channel|>commentary to=functions.Bash<|message|>{CALL}"
    )
    assert answer(HARMONY, text).brief() == [("thinking", "", "Hm."), ("text", "", "Four."), MADE]


def test_several_calls_and_words_behind_them() -> None:
    """Calls that the model does not stop at are all made, and a final message behind them stays."""
    one = f"<|channel|>commentary to=functions.Bash json<|message|>{CALL}"
    text = f"{one}<|call|><|start|>assistant{one}{NEXT}<|channel|>final<|message|>Done."
    assert answer(HARMONY, text).brief() == [MADE, MADE, ("text", "", "Done.")]


def test_the_tokens_that_end_an_answer() -> None:
    """An answer ends at a call and at its return, also if the config names neither."""
    ends = {HARMONY.decode([token]) for token in HARMONY.eos_token_ids}
    assert {"<|call|>", "<|return|>"} <= ends


def test_without_tools_a_header_is_no_text() -> None:
    """Where no tool is offered, thinking and final are read as before."""
    text = f"<|channel|>analysis<|message|>Hm.{NEXT}<|channel|>final<|message|>Four."
    assert answer(HARMONY, text, tools=()).kinds() == ["thinking", "text"]


COMPILER = ConstraintCompiler(HARMONY)
SCHEMA = {
    "type": "object",
    "properties": {"command": {"type": "string"}, "timeout": {"type": "integer"}},
    "required": ["command"],
    "additionalProperties": False,
}
TO_BASH = "<|channel|>commentary to=functions.Bash"
BASH = f"{TO_BASH} <|constrain|>json<|message|>"
LOOKED = f"<|channel|>analysis<|message|>Look to=first.{NEXT}"


def grammar(choice: str = "auto", *, thinks: bool = True, output: bool = False) -> AnswerGrammar:
    tools = [Tool(name="Bash", input_schema=SCHEMA), Tool(name="Status", input_schema={})]
    made = COMPILER.compile(
        tools,
        ToolChoice(type=choice),
        SCHEMA if output else None,
        in_thinking=False,
        may_think=thinks,
    )
    assert made is not None
    return made


def is_allowed(made: AnswerGrammar, text: str) -> bool:
    """Whether an answer may be written token by token, and may end there."""
    for token in [*encode(HARMONY, text), HARMONY.convert_tokens_to_ids("<|call|>")]:
        if made.constraint.is_active and token not in tokens_in(made.constraint.mask()):
            return False
        made.constraint.observe(token)
    return True


@pytest.mark.parametrize(
    "before", ["", LOOKED, f"{LOOKED}<|channel|>commentary<|message|>Now.{NEXT}"]
)
@pytest.mark.parametrize(
    "header",
    [
        BASH,
        f"{TO_BASH} json<|message|>",
        f"{TO_BASH}<|constrain|>json<|message|>",
        f"{TO_BASH}<|message|>",
        " to=functions.Bash<|channel|>commentary json<|message|>",
        " to=functions.Bash<|channel|>commentary <|constrain|>json<|message|>",
    ],
)
@pytest.mark.parametrize(
    "arguments", ['{"command": "ls", "timeout": 5}', '{"timeout":5,"command":"ls"}']
)
def test_the_grammar_allows_every_header(before: str, header: str, arguments: str) -> None:
    """Thinking and words may come before a call, and its JSON may have spaces or none."""
    assert is_allowed(grammar(), before + header + arguments)
    made = answer(HARMONY, encode(HARMONY, before + header + arguments), grammar=grammar())
    (call,) = [block for block in made.blocks if block.kind == "tool_use"]
    assert call.input == {"command": "ls", "timeout": 5}


@pytest.mark.parametrize("before", ["", LOOKED])
@pytest.mark.parametrize(
    "call",
    [
        "<|channel|>commentary to=functions.Delete <|constrain|>json<|message|>{}",
        " to=functions.Delete<|channel|>commentary json<|message|>{}",
        f"{BASH}{{}}",
        f'{BASH}{{"command": 5}}',
        f'{BASH}{{"command": "ls", "other": 1}}',
        f'{BASH}{{"command": "ls"}}{NEXT}<|channel|>final<|message|>Done.',
    ],
)
def test_the_grammar_forbids_what_is_no_call_of_a_tool(before: str, call: str) -> None:
    """The tool was offered, the arguments fit its schema, and the answer ends with the call."""
    assert not is_allowed(grammar(), before + call)


@pytest.mark.parametrize("channel", ["final", "commentary"])
def test_words_are_free_unless_a_call_is_demanded(channel: str) -> None:
    """With tool_choice `any`, the only messages before the call are thinking."""
    words = f"<|channel|>{channel}<|message|>Done, see <x> to=1."
    assert is_allowed(grammar(), words)
    assert not is_allowed(grammar("any"), words)
    assert is_allowed(grammar("any"), f'{LOOKED}{BASH}{{"command": "ls"}}')
    assert not is_allowed(grammar("any", thinks=False), LOOKED)


def test_a_document_is_the_last_message() -> None:
    """A schema of the output holds the final message, not its header."""
    document = '{"command": "ls"}'
    assert is_allowed(grammar(output=True), f"{LOOKED}<|channel|>final<|message|>{document}")
    assert not is_allowed(grammar(output=True), "<|channel|>final<|message|>Done.")
