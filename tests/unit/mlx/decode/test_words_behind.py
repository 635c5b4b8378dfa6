"""Text after a call that was closed stays text and never becomes part of an argument."""

import pytest

from tests.models.answers import answer
from tests.models.families import CALLS, encode, encode_bytes, tagged, tokenizer

ENDS = {"qwen3_coder": "\n</tool_call>", "minimax_m2": "\n</minimax:tool_call>"}
WORDS = "The file is there."
# Only the end marker ends the last call of these families.
UNCERTAIN = {"glm47", "longcat", "minicpm5"}
COMMANDS = [
    "ls",
    "cat <<E\n</parameter>\nE",
    "echo '</function>' </invoke> \"</parameter>\"\n",
    "printf '<invoke name=\"Bash\">' # <function=Bash>",
]


def call(family: str, command: str) -> str:
    """A call that its own tags close, without the end marker behind it."""
    return tagged(family, command=command).removesuffix(ENDS[family])


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("gap", ["\n\n", " ", "\n"])
@pytest.mark.parametrize("family", ENDS)
def test_words_behind_a_call_are_words(family: str, gap: str, command: str, bytewise: bool) -> None:
    """With and without the start and the end marker, the command ends where the call ends."""
    wrapper = tokenizer(family)
    made = call(family, command)
    texts = [made + gap + WORDS, made + gap + WORDS + ENDS[family]]
    if family == "qwen3_coder":
        texts += [text.removeprefix("<tool_call>\n") for text in texts]
    for text in texts:
        result = answer(wrapper, (encode_bytes if bytewise else encode)(wrapper, text))
        assert result.kinds() == ["tool_use", "text"]
        assert result.inputs == [{"command": command}]
        assert result.text.strip() == WORDS


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("family", sorted(set(CALLS) - UNCERTAIN))
def test_words_behind_the_calls_of_every_family(family: str, marked: bool, bytewise: bool) -> None:
    """Both calls end where the family's notation ends them, with or without the end marker."""
    wrapper = tokenizer(family)
    end = wrapper.tool_call_end or ""
    if end and not marked:
        text = CALLS[family].removesuffix(end) + f"\n\n{WORDS}"
    else:
        text = CALLS[family].removesuffix(end) + f"\n\n{WORDS}{end}"
    result = answer(wrapper, (encode_bytes if bytewise else encode)(wrapper, text))
    assert result.kinds() == ["tool_use", "tool_use", "text"]
    assert result.inputs == [{"command": "ls", "timeout": 5}, {}]
    assert result.text.strip() == WORDS


@pytest.mark.parametrize("family", ["json_tools", "qwen3_coder", "glm47"])
def test_words_behind_json_are_words(family: str) -> None:
    """A call in JSON is closed with its last bracket, in families with tags too."""
    text = '<tool_call>{"name": "Bash", "arguments": {"command": "a"}} and more</tool_call>'
    result = answer(tokenizer(family), text)
    assert result.inputs == [{"command": "a"}]
    assert result.text == " and more"


def test_calls_between_words_are_all_made() -> None:
    """Words behind one call do not hide the next one, or a stop sequence in them."""
    one, two = (call("qwen3_coder", name).removeprefix("<tool_call>\n") for name in ("one", "two"))
    wrapper, text = tokenizer("qwen3_coder"), f"{one}\nFirst.\n{two}\nSecond. STOP it"
    result = answer(wrapper, text, stop_sequences=["STOP"])
    assert result.kinds() == ["tool_use", "text", "tool_use", "text"]
    assert result.inputs == [{"command": "one"}, {"command": "two"}]
    assert result.text == "First.Second. "
    assert result.stream.stop_sequence == "STOP"


def test_words_behind_a_call_survive_a_cut() -> None:
    """A call that was closed before `max_tokens` ended the answer is made, and its words stay."""
    result = answer(tokenizer("qwen3_coder"), call("qwen3_coder", "ls") + "\nThe fi", cut=True)
    assert (result.inputs, result.text) == ([{"command": "ls"}], "The fi")


@pytest.mark.parametrize("marked", [False, True])
def test_a_value_that_quotes_a_whole_call_is_whole_or_reported(marked: bool) -> None:
    """A quoted call inside a value does not end the value; if words follow, nothing is guessed."""
    quoted = "Write:\n" + call("qwen3_coder", "ls").removeprefix("<tool_call>\n") + "\nand so on"
    text = call("qwen3_coder", quoted)
    text = text if marked else text.removeprefix("<tool_call>\n")
    wrapper = tokenizer("qwen3_coder")
    assert answer(wrapper, text).inputs == [{"command": quoted}]
    behind = answer(wrapper, text + "\n\nDone.")
    assert [block.name for block in behind.blocks] == ["unreadable_call_of_Bash"]


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("glm47", "<tool_call>Bash\n<arg_key>command</arg_key>\n<arg_value>ls</arg_value>\nDone."),
        (
            "qwen3_coder",
            "<tool_call>\n<function=Bash>\n<parameter=command>\nls\n</function>\nDone.",
        ),
        (
            "longcat",
            "<longcat_tool_call>Bash\n<longcat_arg_key>command</longcat_arg_key>\n"
            "<longcat_arg_value>ls</longcat_arg_value>\nDone.</longcat_tool_call>",
        ),
    ],
)
def test_an_uncertain_end_is_reported(family: str, text: str) -> None:
    """A call whose own tags do not show where its last value ends is reported, never guessed."""
    result = answer(tokenizer(family), text)
    assert [block.name for block in result.blocks] == ["unreadable_call_of_Bash"]
