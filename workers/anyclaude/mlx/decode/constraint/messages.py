"""The grammar of the messages of an answer whose headers say what each of them is (gpt-oss).

A header names a channel: `analysis` is thinking, and `commentary` and `final` are words for the
user. If it also names a tool, the message is a call, and the call ends the answer. The tool stands
before or behind the channel. The grammar is active in headers, in calls and in a document; the text
of other messages is free. (OpenAI harmony response format, "Message format" and "Function calling")
"""

from collections.abc import Sequence
from typing import Final

from anyclaude.mlx.decode.constraint.lark import Lark

# The token after which a message's text begins.
HEADER_END: Final = "<|message|>"
# The tokens with which a header may begin. A model that forgets the first begins with the second.
HEADER_STARTS: Final = ("<|start|>", "<|channel|>")
_START, _CHANNEL = HEADER_STARTS


def message_rules(
    lark: Lark, call: str, document: str, *, channels: Sequence[str], content_type: str
) -> str:
    """What may follow the prompt: the rest of a header, or a whole one.

    Args:
        call: the rule for a call from its recipient to its end; "" if there is none.
        document: the rule for a document as the last message; "" if there is none.
        channels: the channels of messages with free text.
        content_type: the rule for the type of a message's content.
    """
    channel, end = lark.literal(_CHANNEL), lark.literal(HEADER_END)
    options = [f"{channel} {lark.literal(name)} {end}" for name in channels]
    if call:
        options.append(f"{channel} {lark.literal('commentary to=')} {call}")
        options.append(f"{lark.literal(' to=')} {call}")
    if document:
        options.append(f"{channel} {lark.literal('final')} {content_type} {end} {document}")
    header = lark.alternatives(options)
    return f"({lark.literal(_START + 'assistant')})? {header}"
