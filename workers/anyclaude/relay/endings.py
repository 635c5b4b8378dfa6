"""Why a model stopped, in the words of many servers, as what it means for the client.

A failure must not look like an ordinary end: the client's agent would stop in silence.
"""

import re
from enum import Enum, auto
from typing import Final


class Ending(Enum):
    ORDINARY = auto()
    # The answer was cut at its longest length.
    CUT = auto()
    # The answer was cut at the end of the context window.
    WINDOW = auto()
    # A filter stopped it.
    REFUSED = auto()
    # The server, or what it made of the answer, failed.
    FAILED = auto()


# A reason that holds none of these words is an ordinary end.
_ENDINGS: Final = tuple(
    (re.compile(pattern), ending)
    for pattern, ending in (
        # Cohere's `ERROR_TOXIC`.
        (r"toxic", Ending.REFUSED),
        (
            r"error|fail|abort|malformed|cancel|interrupt|time_?d?_?out|insufficient|overload|"
            r"unexpected|too_many|exception|crash|unavailable|missing|^other$|unload|disconnect|"
            r"unspecified|^no_image$|rate_limit|preempt|evict|oom$|out_of_memory|died|kill|^load$|"
            r"invalid",
            Ending.FAILED,
        ),
        (r"context|window|model_length|input_length|kv_cache", Ending.WINDOW),
        (r"length|max|limit|trunc|incomplete|budget|num_predict|repetition", Ending.CUT),
        (
            r"filter|safety|refus|sensitive|prohibit|block|recitation|spii|guardrail|moderat|"
            r"violat|flagged|policy|^language$|restrict|unsafe|harm|armor",
            Ending.REFUSED,
        ),
    )
)
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|[- ]")


def ending_of(reason: str) -> Ending:
    """What a finish reason or stop reason means; capitals and separators do not matter."""
    word = _HUMP.sub("_", reason).lower()
    return next((end for pattern, end in _ENDINGS if pattern.search(word)), Ending.ORDINARY)
