"""Why llguidance refuses a grammar or gives up on it, without a word of schema or answer."""

from typing import Final

from llguidance import LLMatcher

# What its messages say, by a part of them.
_REASONS: Final = {
    "look-around": "a pattern with look-around",
    "backreferences": "a pattern with back-references",
    "regex parse error": "a pattern that is not valid here",
    "too many": "too large to be enforced",
    "too big": "too large to be enforced",
    "too large": "too large to be enforced",
    "oo many items": "too large to be enforced",
    "too complex": "too large to be enforced",
    "recursion limit": "nested too deeply",
    "nsatisfiable": "no value fits",
    "NoExtension": "no value fits",
    "Unimplemented keys": "a keyword that cannot be enforced",
}


def reason_of(matcher: LLMatcher) -> str:
    """Why a matcher is in an error state; empty if it is not."""
    error = str(matcher.get_error())
    found = (reason for sign, reason in _REASONS.items() if sign in error)
    return next(found, "llguidance refuses it") if error else ""
