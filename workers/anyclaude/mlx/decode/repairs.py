"""What is repaired in answers, counted by kind; `/metrics` shows the counts."""

from collections import Counter
from enum import Enum


class Repair(Enum):
    """Something that a model wrote wrong, and what became of it. The values are labels."""

    # Repaired without a guess.
    MISSING_START_MARKER = "missing_start_marker"
    MISSING_END_MARKER = "missing_end_marker"
    OTHER_NOTATION = "other_notation"
    MALFORMED_JSON = "malformed_json"
    WRONG_TYPE = "wrong_type"
    # A marker that the model only mentioned: it stayed text.
    MENTIONED_MARKER = "mentioned_marker"
    # Not repairable: the model gets an error for the call.
    UNREADABLE_CALL = "unreadable_call"
    UNKNOWN_TOOL = "unknown_tool"
    # A second call, where the client asked for one at a time.
    SECOND_CALL = "second_call"
    # The answer was ended, because it repeated itself.
    REPEATED_TEXT = "repeated_text"
    REPEATED_CALL = "repeated_call"


RepairCounts = Counter[Repair]
