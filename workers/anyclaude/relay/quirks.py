"""What one server refuses, learned from its refusals.

Servers differ, also by version, in what they support beyond the core of their dialect. Nothing is
left out in advance: after a refusal the request is sent again in another form, and if the server
takes it, later requests have that form.

Invariants:
- A field is left out only if the refusal says that it is refused. A field that is missing, or whose
  value is refused, is not a field that is refused: what is missing is added, and a refused value is
  left out of that request only.
- A lesson that did not help is not kept (`anyclaude.relay.generation` sees to it).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from anyclaude.relay.overflow import longest_answer


class Quirk(Enum):
    """A form that requests to this server need. The value recognises the refusal that says so."""

    # `reasoning_content` is expected in every earlier turn of the assistant.
    REASONING_EXPECTED = (
        r"reasoning_content\W.{0,80}(missing|must|required|expected|passed back|empty|not (found|"
        r"provided))|(missing|requires?|required|without|expects?|expected).{0,60}reasoning_content"
    )
    # The model always thinks, so turning it off is refused.
    REASONING_ALWAYS = (
        r"(reasoning|thinking).{0,60}(mandatory|(cannot|can't|can not|must not) be (disabled|off|"
        r"turned off|none)|(must|has to) be (enabled|on|true)|always|restricted to "
        r"true)|(cannot|can't|unable to|not support|not allow).{0,20}disabl\w+ (reasoning|thinking)"
    )
    # Thinking blocks of another server are refused because of their signatures.
    OWN_THOUGHTS_ONLY = (
        r"invalid.{0,20}signature.{0,40}thinking|thinking.{0,60}signature.{0,40}(invalid|missing|"
        r"required|not valid|verif)|signature.{0,30}(in|of|for).{0,3}thinking"
    )
    # System messages inside the conversation become user turns; adjacent user turns are merged.
    SYSTEM_AS_USER = (
        r"^(?!.*must alternate).*(system (message|role|prompt)|role.{0,30}system|jinja|"
        r"raise_exception|no user query|chat.?template(?!_kwargs))"
    )
    # No message is of the system: its prompt begins the first turn of the user.
    SYSTEM_IN_FIRST_TURN = (
        r"system.{0,20}(role|message|prompt|instruction).{0,30}(\bnot|un)[ -]?(support|allow|"
        r"accept|enabled)|(developer|system) instruction is not enabled|not support (a )?system"
    )
    # Blocks of types that only the real API knows become text.
    FEW_BLOCKS = (
        r"input tag '(?!image)|^(?!.*image).*(unknown variant|content block type|"
        r"(unknown|unsupported|unexpected|invalid|unrecogni[sz]ed) (content|block|part)\b)"
    )
    # User and assistant alternate: words after a tool result are appended to it, adjacent turns of
    # one role are merged, and system messages inside the conversation become user turns.
    ALTERNATE = (
        r"must alternate|alternat\w+ (user|role)|unexpected role|(consecutive|adjacent|successive)"
        r".{0,30}(user|role|messages)|after role|message.?order|user.{0,30}after.{0,30}tool"
    )
    # tool_choice must be a string; one tool is forced by offering no other.
    TOOL_CHOICE_WORD = r"tool_choice"
    # Mistral's chat templates accept tool call ids of nine characters only, OpenAI at most 40.
    SHORT_TOOL_IDS = r"tool.?calls?(\[\d+\])?.{0,4}id.*(length|9|too long|at most|characters)"
    # OpenAI's newer name of max_tokens.
    MAX_COMPLETION_TOKENS = r"use [`'\"]?max_completion_tokens"

    def is_shown_by(self, refusal: str, sent: Mapping[str, Any]) -> bool:
        is_word = isinstance(sent.get("tool_choice"), str)
        if self is Quirk.TOOL_CHOICE_WORD and (is_word or _MISSING.search(refusal)):
            return False
        if self is Quirk.REASONING_EXPECTED and _REFUSED.search(refusal):
            return False
        return bool(re.search(self.value, refusal, re.IGNORECASE | re.DOTALL))


# Stands for all images of a request: the model reads in their place that they are there.
IMAGES: Final = "image"
# Fields that may be left out: a worse answer is better than none.
OPTIONAL_FIELDS: Final = (
    "cache_control",
    "chat_template_kwargs",
    "context_management",
    "extra_content",
    IMAGES,
    "metadata",
    "output_config",
    "parallel_tool_calls",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "response_format",
    "stop",
    "stop_sequences",
    "stream_options",
    "temperature",
    "thinking",
    "tool_choice",
    "top_k",
    "top_p",
)
# Without these there is no request.
_ESSENTIAL: Final = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "stream", "system", "tools"}
)
# Without these there is no tool.
_ESSENTIAL_OF_TOOLS: Final = frozenset(
    {"name", "type", "description", "input_schema", "function", "parameters"}
)
# Servers that read text only refuse an image also as a content that is no string.
_NAMED_OTHERWISE: Final = {
    "chat_template_kwargs": r"chat_template_kwargs|enable_thinking",
    IMAGES: r"images?(_url|s)?|vision|multi-?modal|(must be|expected) a string|a valid string|"
    r"only .?text.? content",
}
_REFUSED: Final = re.compile(
    r"unsupported|not (supported|permitted|allowed|available|accepted|recogni[sz]ed|implemented|"
    r"enabled|compatible|a valid (field|param\w*|argument|key))|unrecogni[sz]ed|unknown|unexpected|"
    r"\bextra\b|extra_forbidden|do(es)?(n't| not) (support|accept|allow|take|recogni[sz]e|have)|"
    r"cannot (?:both )?be (used|set|specified|passed|sent|combined)|deprecated|forbidden|no longer|"
    r"incompatible|remove|omit|reject|no such|has no|missing data",
    re.IGNORECASE,
)
_MISSING: Final = re.compile(
    r"missing|field required|is required|are required|must be (passed|provided|present|set|"
    r"included|specified|given|non-?empty|preserved)|not (provided|present|set|passed)|"
    r"passed back|expected but|requires? (a |the |that )?",
    re.IGNORECASE,
)
_VALUE: Final = re.compile(
    r"must be|should be|(may|can) only|out of range|\brange\b|at (most|least)|"
    r"(less|greater|more|larger|smaller) than|too (large|high|low|small|long|many|short)|maximum|"
    r"minimum|invalid value|one of|could not|unable to|failed to|[<>]=?",
    re.IGNORECASE,
)
_MAX_STOPS: Final = re.compile(
    r"\bstop\b.{0,120}?(?:maximum length|at most|up to|max(?:imum)?(?: of)?|no more than) ?(\d+)|"
    r"(?:at most|up to|max(?:imum)?(?: of)?|no more than|only) (\d+) stop\b",
    re.IGNORECASE | re.DOTALL,
)
_SENTENCE_END: Final = re.compile(r"(?<!\d)[.;](?=\s|$)|[.;](?=\s)|\n")


class _Verdict(Enum):
    REFUSED = 0
    VALUE = 1
    # It is named, and the words around it are not known.
    NAMED = 2


@dataclass(frozen=True)
class Quirks:
    """What was learned about one server so far."""

    known: frozenset[Quirk] = frozenset()
    # Fields that the server does not take.
    dropped: frozenset[str] = frozenset()
    # Fields whose value in this request it does not take.
    dropped_once: frozenset[str] = frozenset()
    # The limit of max_tokens; 0 means unknown.
    max_output_tokens: int = 0
    # How many stop sequences it takes; 0 means unknown.
    max_stop_sequences: int = 0

    @property
    def left_out(self) -> frozenset[str]:
        return self.dropped | self.dropped_once

    def lasting(self) -> "Quirks":
        """What also holds for other requests."""
        return replace(self, dropped_once=frozenset())

    def joined(self, other: "Quirks") -> "Quirks":
        return Quirks(
            self.known | other.known,
            self.dropped | other.dropped,
            max_output_tokens=other.max_output_tokens or self.max_output_tokens,
            max_stop_sequences=other.max_stop_sequences or self.max_stop_sequences,
        )

    def describe(self) -> list[str]:
        """One line for each lesson, for `anyclaudectl status`."""
        lines = [f"needs {quirk.name.lower().replace('_', ' ')}" for quirk in self.known]
        lines += [f"refuses {name}" for name in self.dropped]
        if self.max_output_tokens:
            lines.append(f"max_tokens at most {self.max_output_tokens}")
        if self.max_stop_sequences:
            lines.append(f"at most {self.max_stop_sequences} stop sequences")
        return sorted(lines)

    def learn(
        self,
        refusal: str,
        sent: Mapping[str, Any],
        details: Mapping[str, Any] | None = None,
        unhelpful: frozenset[str] = frozenset(),
    ) -> "Quirks | None":
        """The quirks including what a refusal of the body `sent` shows; None if nothing is new.

        `details` is the server's error object. Leaving out `unhelpful` fields did not help.
        """
        place = ".".join(_place(details or {}))
        requested = sent.get("max_tokens") or sent.get("max_completion_tokens") or 0
        longest = longest_answer(f"{place}: {refusal}", requested)
        if longest and longest != self.max_output_tokens:
            return replace(self, max_output_tokens=longest)
        found = _MAX_STOPS.search(refusal)
        if found and (stops := int(found[1] or found[2])) != self.max_stop_sequences:
            return replace(self, max_stop_sequences=stops)
        for quirk in Quirk:
            if quirk not in self.known and quirk.is_shown_by(refusal, sent):
                return replace(self, known=self.known | {quirk})
        names = _names(sent) - unhelpful
        match _refused_field(refusal, details or {}, names):
            case "", _:
                return None
            case name, _Verdict.VALUE:
                return replace(self, dropped_once=self.dropped_once | {name})
            case name, _:
                return replace(self, dropped=self.dropped | {name})
        return None


def _names(sent: Mapping[str, Any]) -> frozenset[str]:
    """What may be left out of a body: its own fields, those of its tools, and inner ones."""
    inner = set(_inner_names(sent.get("messages"))) | set(_inner_names(sent.get("system")))
    of_tools = set(_inner_names(sent.get("tools"))) - _ESSENTIAL_OF_TOOLS
    return frozenset(sent) - _ESSENTIAL | of_tools | (inner & set(OPTIONAL_FIELDS))


def _inner_names(value: Any) -> Iterator[str]:
    for entry in value if isinstance(value, list) else []:
        if isinstance(entry, dict):
            yield from entry
            if entry.get("type") in ("image", "image_url"):
                yield IMAGES
            for key in ("content", "tool_calls"):
                yield from _inner_names(entry.get(key))


def _refused_field(
    refusal: str, details: Mapping[str, Any], names: frozenset[str]
) -> tuple[str, _Verdict]:
    """The field that a refusal is about; empty if there is none."""
    if name := _pointed_at(details, names):
        verdict = _verdict(refusal)
        return ("", _Verdict.NAMED) if verdict is None else (name, verdict)
    found: list[tuple[int, int, str, _Verdict]] = []
    start = 0
    for sentence in _SENTENCE_END.split(refusal):
        if sentence and (verdict := _verdict(sentence)) is not None:
            found += [
                (verdict.value, start + place.start(), name, verdict)
                for name in names
                if (place := _pattern(name).search(sentence))
            ]
        start += len(sentence or "") + 1
    # Of fields that are only named, one alone is surely meant, if it may be left out at all.
    named = {name for _, _, name, verdict in found if verdict is _Verdict.NAMED}
    surely = {"", *(named if len(named) == 1 and named <= set(OPTIONAL_FIELDS) else ())}
    for _, _, name, verdict in sorted(found, key=lambda hit: hit[:2]):
        if verdict is not _Verdict.NAMED or name in surely:
            return name, verdict
    return "", _Verdict.NAMED


def _verdict(sentence: str) -> _Verdict | None:
    """What a sentence says about the fields that it names; None if they are missing."""
    if _REFUSED.search(sentence):
        return _Verdict.REFUSED
    if _MISSING.search(sentence):
        return None
    return _Verdict.VALUE if _VALUE.search(sentence) else _Verdict.NAMED


def _pattern(name: str) -> re.Pattern[str]:
    """The name as servers write it: `top_k`, `topK`, `Top K`."""
    written = _NAMED_OTHERWISE.get(name) or name.replace("_", "[_ -]?")
    return re.compile(rf"(?<![a-z_])({written})(?![a-z_])", re.IGNORECASE)


def _pointed_at(details: Mapping[str, Any], names: frozenset[str]) -> str:
    """The field that the error object names: OpenAI's `param`, FastAPI's `loc`."""
    return next((word for word in reversed(_place(details)) if word in names), "")


def _place(details: Mapping[str, Any]) -> list[str]:
    place = details.get("loc")
    if isinstance(place, list):
        return [part for part in place if isinstance(part, str)]
    return re.split(r"[.\[\]]+", str(details.get("param") or ""))
