"""Outputs of every family that are malformed or tricky, with the blocks that each one means.

`python -m tests.unit.mlx.decode.tricky_outputs [--seed N]` reads all of them in tokens cut at
random and prints a table: each kind, how many outputs were read as meant, and what became of the
others.
"""

import argparse
import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any, Final

import structlog

from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.decode.call_writer import unreadable_name
from tests.models.answers import TOOLS, Answer, answer
from tests.models.families import CALLS, FAMILIES, THINKING, encode, encode_bytes, tokenizer

# What a block means: its kind, and its text or the name and the input of its call.
Meant = tuple[str, Any]

WORDS: Final = "The file is there."
STATUS: Final[Meant] = ("tool_use", ("Status", {}))
# The arguments of the first call, in families that write them as one JSON object.
_OBJECT: Final = '{"command": "ls", "timeout": 5}'
_COMMAND: Final = re.compile(r'"ls"|(?<![A-Za-z_])ls(?![A-Za-z_])')
_NESTED: Final = {"a": {"b": [1, {"c": "} ]"}]}, "d": []}
# Nested values in families that do not write them as JSON.
_NESTED_TEXTS: Final = {
    "gemma4": '{a:{b:[1,{c:<|"|>} ]<|"|>}]},d:[]}',
    "function_gemma": "{a:{b:[1,{c:<escape>} ]<escape>}]},d:[]}",
}
# Families that write the type of a value, though not as JSON.
_TYPED: Final = {"pythonic", "gemma4", "function_gemma", "kimi_k3", "deepseek_dsml"}
# What begins and ends a text before a call, in families whose messages have headers, and what
# stands between words behind a call and the next call.
_SAID: Final = {
    "harmony": ("<|channel|>final<|message|>", "<|end|><|start|>assistant"),
    "solar": ("<|content|>", "<|end|><|begin|>assistant"),
    "muse_spark": ("to=user<|message|>", "<|eom|>"),
    "llama3": ("", "<|python_tag|>"),
}
_THOUGHT: Final = {
    "harmony": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
    "solar": ("<|think|>", "<|end|><|begin|>assistant"),
    "muse_spark": ("to=self<|message|>", "<|eom|>"),
}


class Outcome(Enum):
    """What became of an output. The values are the words of the table."""

    RIGHT = "right"
    # The model is told that its call could not be read, with all that it wrote.
    REPORTED = "reported to the model"
    VALUE_CHANGED = "a value changed"
    QUOTE_MADE = "a quoted call made"
    CALL_LOST = "a call lost"
    TEXT_CHANGED = "text or thinking changed"


@dataclass(frozen=True)
class Part:
    text: str
    # Whether it is written in ordinary tokens, markers too.
    spelled: bool = False


@dataclass(frozen=True)
class Output:
    family: str
    kind: str
    parts: tuple[Part, ...]
    meant: tuple[Meant, ...]
    cut: bool = False
    # The calls that may be complete before the cut.
    before_cut: tuple[Meant, ...] = ()
    # Whether the call may be reported to the model, since it cannot be read without a guess.
    may_be_reported: bool = False

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)


def outputs() -> Iterator[Output]:
    for family in CALLS:
        yield from _of_family(_Family(family))


def outcome(output: Output, seed: int) -> Outcome:
    """Reads an output in tokens cut at random, and compares it with what it means."""
    wrapper = tokenizer(output.family, thinking=True)
    tokens = _tokens(wrapper, output, Random(f"{seed} {output.family} {output.kind}"))
    return _compared(output, answer(wrapper, tokens, cut=output.cut))


def table(seed: int) -> dict[str, Counter[Outcome]]:
    """How many outputs of each kind had each outcome."""
    found: dict[str, Counter[Outcome]] = defaultdict(Counter)
    for output in outputs():
        found[output.kind][outcome(output, seed)] += 1
    return found


class _Family:
    def __init__(self, name: str) -> None:
        self.name = name
        wrapper = tokenizer(name, thinking=True)
        self.start = str(wrapper.tool_call_start)
        self.end = str(wrapper.tool_call_end or "")
        self.thinking = (str(wrapper.think_start), str(wrapper.think_end))
        self.has_token = len(wrapper.tool_call_start_tokens or ()) == 1
        self.calls = CALLS[name]
        self.json = _OBJECT in self.calls

    def before_marker(self, at: int) -> int:
        """The place `at` in the calls, or that of the marker in which it lies."""
        markers = {self.start, self.end, *FAMILIES[self.name].markers} - {""}
        divider = re.compile("|".join(map(re.escape, sorted(markers, key=len, reverse=True))))
        within = (m.start() for m in divider.finditer(self.calls) if m.start() < at < m.end())
        return next(within, at)

    def with_command(self, command: str, *, ascii_only: bool = False) -> str:
        """Both calls, with another command in the first."""

        def written(match: re.Match[str]) -> str:
            quoted = match[0].startswith('"')
            return json.dumps(command, ensure_ascii=ascii_only) if quoted else command

        return _COMMAND.sub(written, self.calls, count=1)

    def with_nested(self) -> str:
        nested = _NESTED_TEXTS.get(self.name, json.dumps(_NESTED))
        calls = self.calls.replace('type="number"', 'type="object"').replace("timeout", "env")
        return re.sub(r"(?<![\w=])5(?=\W)|(?<=env=)5", lambda _: nested, calls, count=1)

    def said(self, text: str) -> str:
        before, behind = _SAID.get(self.name, ("", ""))
        return f"{before}{text}{behind}"

    def behind(self, text: str) -> str:
        """Words behind a call, before the next one."""
        return text + _SAID.get(self.name, ("", ""))[1]

    @property
    def thought(self) -> tuple[str, str]:
        """What begins and what ends a thought."""
        return _THOUGHT.get(self.name, self.thinking)

    def told(self, text: str) -> str:
        """The last words of an answer."""
        return _SAID.get(self.name, ("", ""))[0] + text


def _bash(**arguments: Any) -> Meant:
    return ("tool_use", ("Bash", arguments))


def _of_family(family: _Family) -> Iterator[Output]:
    for kinds in (_words, _quotes, _values, _damages, _thoughts):
        for kind, parts, meant, *options in kinds(family):
            pieces = tuple(Part(part) if isinstance(part, str) else part for part in parts)
            yield Output(family.name, kind, pieces, tuple(meant), **(options[0] if options else {}))


def _words(family: _Family) -> Iterator[Any]:
    both = [_bash(command="ls", timeout=5), STATUS]
    yield "words before calls", [family.said(WORDS), family.calls], [("text", WORDS), *both]
    yield "words behind calls", [f"{family.calls}\n\n{WORDS}"], [*both, ("text", WORDS)]
    if family.end:
        unended = family.calls.removesuffix(family.end)
        yield (
            "words behind calls without an end marker",
            [f"{unended}\n\n{WORDS}"],
            [*both, ("text", WORDS)],
            {"may_be_reported": True},
        )
    yield (
        "calls with words between",
        [f"{family.calls}\n\n{family.behind(WORDS)}{family.calls}"],
        [*both, ("text", WORDS), *both],
    )
    yield "calls in ordinary tokens", [Part(family.calls, spelled=True)], both


def _quotes(family: _Family) -> Iterator[Any]:
    told = family.told("")
    for kind, text in {
        "a marker named in prose": f"The text {family.start} begins a call, as you know.",
        "a marker in inline code": f"Use `{family.start}` to call Bash.",
        "a marker in a code block": f"Write:\n```\n{family.start}\n```\nand so on.",
        "calls in inline code": f"Write `{family.calls.replace(chr(10), ' ')}` for that.",
        "calls in a code block": f"Write:\n```\n{family.calls}\n```\nand so on.",
        "calls in a code block with a language": f"So:\n\n```xml\n{family.calls}\n```",
        "calls in a block of tildes": f"So:\n~~~\n{family.calls}\n~~~\nthere.",
        "calls in a block within a block": f"So:\n````\n```\n{family.calls}\n```\n````\nthere.",
        "calls in nested blocks": f"So:\n```md\n```xml\n{family.calls}\n```\n```\nthere.",
        "calls in two backquotes": f"Write ``{family.calls.replace(chr(10), ' ')}`` for that.",
        "calls in quoted lines": "He:\n> " + family.calls.replace("\n", "\n> ") + "\n\nso.",
    }.items():
        yield kind, [told, Part(text, spelled=True)], [("text", text)]
    if family.name != "llama3":
        both = [_bash(command="ls", timeout=5), STATUS]
        text = f"First `{family.start}`, in code:"
        parts = [told, Part(text, spelled=True), family.behind(""), family.calls]
        yield "calls behind a quoted marker", parts, [("text", text), *both]
        text = "```md\n```sh\nls\n```\n```"
        parts = [told, Part(f"{text}\n", spelled=True), family.behind(""), family.calls]
        yield "calls behind nested blocks", parts, [("text", text), *both]


def _values(family: _Family) -> Iterator[Any]:
    for kind, command in {
        "an end marker in a value": f"echo '{family.end or family.start}' && ls",
        "a start marker in a value": f"grep '{family.start}' log",
        "thinking markers in a value": f"echo '{family.thinking[0]} {family.thinking[1]}'",
        "quotes and brackets in a value": 'echo "a" \'b\' \\n {"c": [1, 2}',
        "line ends in a value": "cat <<E\n\n  one\n\ttwo\nE",
        "unicode in a value": "echo größe 🦊👍🏽 \u2028 日本語 é",
        "markup in a value": "<a href='x'></a> </p> <b> [x] (y) = z, -n=1",
    }.items():
        at = family.with_command("\0")
        for ascii_only in (False, True):
            calls = family.with_command(command, ascii_only=ascii_only)
            if ascii_only and (calls == family.with_command(command)):
                continue
            before = at.index("\0") if "\0" in at else at.index("\\u0000")
            length = len(calls) - (len(at) - (1 if "\0" in at else 6))
            value = calls[before : before + length]
            parts = [calls[:before], Part(value, spelled=True), calls[before + length :]]
            yield kind, parts, [_bash(command=command, timeout=5), STATUS], {}
    meant = [_bash(command="ls", env=_NESTED), STATUS]
    yield "nested JSON", [family.with_nested()], meant


def _damages(family: _Family) -> Iterator[Any]:
    whole = [_bash(command="ls", timeout=5), STATUS]
    for third in (1, 2):
        at = family.before_marker(len(family.calls) * third // 3)
        header = [family.said(WORDS)]
        yield (
            f"cut at {third}/3",
            [*header, family.calls[:at]],
            [("text", WORDS)],
            {"cut": True, "before_cut": (whole[0],)},
        )
    unknown = family.calls.replace("Bash", "Launch")
    if not unknown.startswith(family.start) and family.name == "llama3":
        unknown = family.start + unknown
    # Where values are written without a type, the schema of the tool is missing.
    timeout = 5 if family.json or family.name in _TYPED else "5"
    meant = [("tool_use", ("Launch", {"command": "ls", "timeout": timeout})), STATUS]
    yield "an unknown tool", [unknown], meant, {"may_be_reported": True}
    if not family.json:
        return
    literals = '{"command": "ls", "quiet": True, "note": None}'
    for written in ("functions.Bash", "bash", "Bash:0"):
        if family.name not in ("harmony", "llama3"):
            kind = f"a name written as {written}"
            yield kind, [family.calls.replace("Bash", written, 1)], whole
    for kind, arguments, input_ in (
        ("a trailing comma", '{"command": "ls", "timeout": 5,}', None),
        ("single quotes", "{'command': 'ls', 'timeout': 5}", None),
        ("arguments as a string", json.dumps(_OBJECT), None),
        ("a number as a string", '{"command": "ls", "timeout": "5"}', None),
        ("a line end in a string", _OBJECT.replace("ls", "a\nb"), {"command": "a\nb"}),
        ("Python literals", literals, {"command": "ls", "quiet": True, "note": None}),
        ("spaces and line ends", '{\n  "command":"ls",\n  "timeout" : 5\n}', None),
    ):
        wanted = {"timeout": 5, **input_} if input_ and "quiet" not in input_ else input_
        first = _bash(**wanted) if wanted else whole[0]
        calls = family.calls.replace(_OBJECT, arguments)
        yield kind, [calls], [first, STATUS], {"may_be_reported": True}


def _thoughts(family: _Family) -> Iterator[Any]:
    both = [_bash(command="ls", timeout=5), STATUS]
    start, end = family.thought
    thought, told = "I look first.", family.told(WORDS)
    hm: Meant = ("thinking", thought)
    yield "thinking, words", [f"{start}{thought}{end}{told}"], [hm, ("text", WORDS)]
    yield "thinking, calls", [f"{start}{thought}{end}{family.calls}"], [hm, *both]
    yield "thinking never closed", [start + thought], [hm]
    if family.name != "llama3":
        parts = [family.said(WORDS), f"{start}{thought}{end}{told}"]
        yield "words before thinking", parts, [("text", WORDS), hm, ("text", WORDS)]
    twice = f"{start}{thought}{end}{family.thinking[1]}{told}"
    yield "thinking closed twice", [twice], [hm, ("text", WORDS)]
    quotes = {"a quoted end of thinking": f"The text {family.thinking[1]} ends this, I think."}
    if family.has_token:
        quotes["calls quoted in thinking"] = f"I could write {family.calls} here, or not."
    quotes["calls in code in thinking"] = f"So:\n```\n{family.calls}\n```\nor not."
    for kind, quote in quotes.items():
        parts = [start, Part(quote, spelled=True), end + told]
        yield kind, parts, [("thinking", quote), ("text", WORDS)]
    if family.name not in _SAID:
        quote = f"Write `{family.thinking[0]}`, then think, then `{family.thinking[1]}`."
        yield "thinking markers in code", [Part(quote, spelled=True)], [("text", quote)]


def _tokens(wrapper: TokenizerWrapper, output: Output, random: Random) -> list[int]:
    """The output in tokens: markers are tokens of their own, unless they are spelled out."""
    markers = [*FAMILIES[output.family].markers, *THINKING]
    divider = re.compile("|".join(map(re.escape, sorted(markers, key=len, reverse=True))))
    tokens: list[int] = []
    for part in output.parts:
        if part.spelled:
            tokens += encode_bytes(wrapper, part.text)
            continue
        at = 0
        for match in divider.finditer(part.text):
            tokens += _cut(wrapper, part.text[at : match.start()], random)
            tokens += encode(wrapper, match[0])
            at = match.end()
        tokens += _cut(wrapper, part.text[at:], random)
    return tokens


def _cut(wrapper: TokenizerWrapper, text: str, random: Random) -> list[int]:
    tokens: list[int] = []
    while text:
        length = random.randrange(1, 12)
        piece, text = text[:length], text[length:]
        tokens += random.choice((encode, encode_bytes))(wrapper, piece)
    return tokens


def _compared(output: Output, result: Answer) -> Outcome:
    found: list[Meant] = [
        (block.kind, (block.name, block.input))
        if block.kind == "tool_use"
        else (block.kind, block.text.strip())
        for block in result.blocks
    ]
    meant = list(output.meant)
    # A call that was closed before the cut is made.
    if found in (meant, [*meant, *output.before_cut]):
        return Outcome.RIGHT
    calls = [meant for meant in output.meant if meant[0] == "tool_use"]
    offered = {tool.name for tool in TOOLS}
    made = [call for kind, call in found if kind == "tool_use" and call[0] in offered]
    wrong = [call for call in made if ("tool_use", call) not in calls]
    if wrong or len(made) > len(calls):
        return Outcome.VALUE_CHANGED if calls else Outcome.QUOTE_MADE
    if _is_reported(output, found):
        return Outcome.REPORTED
    return Outcome.CALL_LOST if len(made) < len(calls) else Outcome.TEXT_CHANGED


def _is_reported(output: Output, found: Sequence[Meant]) -> bool:
    """Whether a call was reported as unreadable, with everything that is missing otherwise."""
    reported = [
        str(call[1].get("written"))
        for kind, call in found
        if kind == "tool_use" and call[0].startswith(unreadable_name(None))
    ]
    texts = "".join(text for kind, text in found if kind != "tool_use")
    meant = [text for kind, text in output.meant if kind != "tool_use"]
    return bool(reported) and all(text in texts + "".join(reported) for text in meant)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", action="store_true", help="print each output read otherwise")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rows = table(options.seed)
    print(f"{'kind':<45} {'outputs':>7} {'right':>6}  otherwise")
    for kind, counts in rows.items():
        others = ", ".join(f"{n} {one.value}" for one, n in counts.items() if one != Outcome.RIGHT)
        print(f"{kind:<45} {counts.total():>7} {counts[Outcome.RIGHT]:>6}  {others}")
    total = sum(rows.values(), Counter[Outcome]())
    print(f"{'all':<45} {total.total():>7} {total[Outcome.RIGHT]:>6}")
    if options.each:
        for output in outputs():
            found = outcome(output, options.seed)
            if found is not Outcome.RIGHT:
                print(f"\n{output.kind} / {output.family}: {found.value}\n  {output.text!r}")


if __name__ == "__main__":
    main()
