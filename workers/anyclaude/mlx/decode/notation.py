"""The kinds of notation in which models write tool calls; `notations.py` says who uses which."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pattern:
    """A part of a call that varies without a meaning, such as its number."""

    regex: str


@dataclass(frozen=True)
class Perhaps:
    """A part of a call that may be missing."""

    text: str


Parts = tuple[str | Pattern | Perhaps, ...]


@dataclass(frozen=True)
class Section:
    """Several calls between one start marker and one end marker."""

    before_first: str = ""
    between: str = ""
    after_last: str = ""


@dataclass(frozen=True)
class JsonNotation:
    """A call whose arguments are one JSON object."""

    before_name: str
    before_arguments: Parts
    after_arguments: Parts
    # None if one call stands between a start marker and an end marker.
    section: Section | None = None
    # Whether a space behind a comma or a colon may be missing.
    compact: bool = False
    # What stands before `before_name` and varies, such as the call's number.
    before_all: Parts = ()
    # Whether a call is a message with a header, which ends the answer (`constraint/messages.py`).
    is_message: bool = False


@dataclass(frozen=True)
class TaggedNotation:
    """A call in which each argument stands between texts of its own."""

    before_name: str
    after_name: Parts
    before_key: str
    # `{type}` stands for the argument's JSON type, and `{string}` for whether it is a string.
    after_key: str
    after_value: str
    after_arguments: str
    separator: str = ""
    # Whether strings are written without quotes and escapes.
    plain_strings: bool = True
    # Whether a closing tag ends a string whatever follows the tag.
    ends_at_first_tag: bool = False
    section: Section | None = None

    @property
    def marks_strings(self) -> bool:
        """Whether each argument says of itself whether it is a string."""
        return "{string}" in self.after_key


@dataclass(frozen=True)
class BareKeyNotation:
    """A call whose arguments are one object that is like JSON, but has keys without quotes.

    Strings stand between quote marks of the family's own, without escapes.
    """

    before_name: str
    quote: str
    section: Section | None = None


Notation = JsonNotation | TaggedNotation | BareKeyNotation
