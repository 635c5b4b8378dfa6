"""Gives a chat template what its renderer denies it, and the same date in every prompt.

- A date that a template reads from the clock changes at midnight, and with it all that comes after
  it. `strftime_now` therefore becomes a macro that prints the date of the conversation.
- The sandbox refuses a template that changes its lists; here it may (`adapter.allow_list_changes`).
"""

import contextlib
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any, Final

from jinja2 import TemplateError

from anyclaude.mlx.adapter import TokenizerWrapper, allow_list_changes, template_source

# The name of the variable with the texts of the date, by format.
DATES: Final = "dates_of_the_conversation"
_CLOCK: Final = "strftime_now"
_FORMAT: Final = re.compile(rf"""{_CLOCK}\(\s*(['"])(.*?)\1\s*\)""")
_MACRO: Final = (
    f"{{%- set current_{_CLOCK} = {_CLOCK} -%}}"
    f"{{%- macro {_CLOCK}(format) -%}}"
    f"{{{{- {DATES}[format] if format in {DATES} else current_{_CLOCK}(format) -}}}}"
    # Without the plus, the first newline of the template would be removed.
    "{%- endmacro +%}"
)


class TemplateSource:
    """The template of one tokenizer, which may have one for tools beside the default."""

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._original: str | dict[str, str] = tokenizer.chat_template or ""
        self.text = template_source(tokenizer)
        self.reads_clock = _CLOCK in self.text
        self._formats = {found[2] for found in _FORMAT.finditer(self.text)}
        self._rewritten = {name: _rewritten(source) for name, source in self._sources().items()}
        for source in self._rewritten.values():
            # A template with an error in its syntax is refused when it renders.
            with contextlib.suppress(TemplateError):
                allow_list_changes(source)

    def _sources(self) -> Mapping[str, str]:
        if isinstance(self._original, Mapping):
            return self._original
        return {"": self._original}

    def variables(self, today: date | None, *, tools: bool) -> dict[str, Any]:
        """What `apply_chat_template` has to be given to write the date `today`."""
        if not self.reads_clock:
            return {}
        name = next(iter(self._rewritten))
        if isinstance(self._original, Mapping):
            name = "tool_use" if tools and "tool_use" in self._original else "default"
        moment = datetime.combine(today or date.today(), time())
        dates = {format_: moment.strftime(format_) for format_ in self._formats}
        return {"chat_template": self._rewritten[name], DATES: dates}


def _rewritten(source: str) -> str:
    return f"{_MACRO}{source}" if _CLOCK in source else source
