"""The demo model's answers, and the tokens that steer it.

Invariants: every prompt turn ends with exactly one cue; the cue alone decides the answer;
an answer is the exact text that the chat template renders for it, so what was generated and
what is rendered in the next request are the same tokens.
"""

import json
from enum import Enum


class Cue(Enum):
    """The token that closes a prompt turn, and with it what the model does next."""

    CALL = "<|demo_call|>"
    RAN = "<|demo_ran|>"
    SAY = "<|demo_say|>"
    TITLE = "<|demo_title|>"


PAD = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
TOOL_CALL_START = "<tool_call>"
TOOL_CALL_END = "</tool_call>"

CONTROL_TOKENS = (PAD, TURN_START, TURN_END, *(cue.value for cue in Cue))
MARKUP_TOKENS = (TOOL_CALL_START, TOOL_CALL_END)

ASSISTANT_HEADER = f"{TURN_START}assistant\n"

TOOL_NAME = "Bash"
TOOL_ARGUMENTS = {
    "command": "echo hello from anyclaude",
    "description": "Say hello from the demo model",
}

_REAL_MODEL = (
    "To use a real model, set ANYCLAUDE_MODEL=/path/to/model and restart the service, "
    "or see `anyclaudectl config`."
)
_CALL = json.dumps({"name": TOOL_NAME, "arguments": TOOL_ARGUMENTS})

ANSWERS = {
    Cue.CALL: f"{TOOL_CALL_START}\n{_CALL}\n{TOOL_CALL_END}",
    Cue.RAN: "The tool call came back, so the whole loop works. "
    "That is all anyclaude's embedded demo model can show. " + _REAL_MODEL,
    Cue.SAY: "I am anyclaude's embedded demo model: I prove that everything runs, "
    "but I cannot think. " + _REAL_MODEL,
    # With the spaces that an answer constrained to a JSON schema has.
    Cue.TITLE: json.dumps({"title": "Talk with the demo model"}),
}
