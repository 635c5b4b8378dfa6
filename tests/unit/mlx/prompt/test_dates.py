"""A date that a template writes stays the same for the life of a conversation."""

from datetime import date
from pathlib import Path

import pytest

from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.mlx.prompt.stored_folder import StoredFolder
from tests.models.requests import BASH, Block, assistant, request, thinking, user
from tests.models.templates import CHATML
from tests.models.tokenizers import byte_level, wrap

_MONDAY, _TUESDAY, _FRIDAY = date(2026, 11, 30), date(2026, 12, 1), date(2027, 2, 5)
# How templates of Mistral, Llama, Granite, gpt-oss and Solar ask for the date.
_DATES = {
    "direct": '{{- "<|im_start|>" ~ strftime_now("%Y-%m-%d") ~ "<|im_end|>" -}}',
    "if defined": (
        "{%- if strftime_now is defined %}{%- set day = strftime_now('%d %b %Y') %}"
        "{%- else %}{%- set day = 'never' %}{%- endif %}"
        "{{- '<|im_start|>' ~ day ~ '<|im_end|>' -}}"
    ),
    "in a macro": (
        "{%- macro today() -%}{{ strftime_now( '%B %d, %Y' ) }}{%- endmacro -%}"
        "{{- '<|im_start|>' ~ today() ~ '<|im_end|>' -}}"
    ),
    "default": (
        '{%- if not day is defined %}{%- set day = strftime_now("%A") %}{%- endif %}'
        "{{- '<|im_start|>' ~ day ~ '<|im_end|>' -}}"
    ),
    "as if": (
        "{%- set day = strftime_now('%Y') if strftime_now else '' -%}"
        "{%- set month = strftime_now('%m') -%}"
        "{{- '<|im_start|>' ~ day ~ '/' ~ month ~ '<|im_end|>' -}}"
    ),
}
_WRITTEN = {
    "direct": ("2026-11-30", "2026-12-01"),
    "if defined": ("30 Nov 2026", "01 Dec 2026"),
    "in a macro": ("November 30, 2026", "December 01, 2026"),
    "default": ("Monday", "Tuesday"),
    "as if": ("2026/11", "2026/12"),
}


class _Clock:
    """A renderer whose day a test sets."""

    def __init__(self, template: str = "direct", stored: StoredFolder | None = None) -> None:
        self.today = _MONDAY
        special = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
        self._tokens = wrap(byte_level(), _DATES[template] + CHATML, special)
        self._renderer = PromptRenderer(self._tokens, stored=stored, clock=lambda: self.today)

    def day(self, *messages: Block, **fields: object) -> str:
        """The date in a prompt, which the stable prefix contains."""
        body = request(*messages, **{"system": "S", "tools": [BASH], **fields})
        prompt = self._renderer.render(body)
        text = str(self._tokens.decode(prompt.token_ids.tolist()))
        shared = str(self._tokens.decode(prompt.token_ids[: prompt.stable_tokens].tolist()))
        assert shared.endswith("<|im_end|>\n")
        assert text.startswith(shared)
        return shared.removeprefix("<|im_start|>").partition("<|im_end|>")[0]


_TALK = [user("Hi."), assistant("Yes?"), user("The day?")]


@pytest.mark.parametrize("template", _DATES)
def test_a_conversation_keeps_its_date(template: str) -> None:
    """A conversation that began on Monday has Monday's date on Tuesday; a new one has Tuesday's."""
    monday, tuesday = _WRITTEN[template]
    clock = _Clock(template)
    assert clock.day(*_TALK[:1]) == clock.day(*_TALK) == monday
    clock.today = _TUESDAY

    assert clock.day(*_TALK) == monday
    assert clock.day(*_TALK, assistant("Monday."), user("And now?")) == monday
    assert clock.day(user("Good morning.")) == tuesday


def test_equal_first_messages_do_not_share_a_date() -> None:
    """A new conversation that begins like an old one has a date of its own."""
    clock = _Clock()
    clock.day(*_TALK[:1])
    clock.day(*_TALK)
    clock.today = _TUESDAY

    assert clock.day(*_TALK[:1]) == "2026-12-01"
    assert clock.day(_TALK[0], assistant("Well?"), user("The day?")) == "2026-12-01"
    assert clock.day(*_TALK) == "2026-11-30"


def test_a_conversation_that_is_not_known_has_the_date_of_the_clock() -> None:
    """What began elsewhere gets the day on which it is seen first, and keeps it."""
    clock = _Clock()
    assert clock.day(*_TALK) == "2026-11-30"
    clock.today = _TUESDAY
    assert clock.day(*_TALK) == "2026-11-30"


def test_midnight_between_question_and_result() -> None:
    """The date of the first request is that of the conversation."""
    clock = _Clock()
    clock.day(*_TALK[:1])
    clock.today = _TUESDAY

    assert clock.day(*_TALK) == "2026-11-30"


def test_cleared_thinking_changes_no_date() -> None:
    """The first answer is recognised without its thinking."""
    clock = _Clock()
    clock.day(_TALK[0], assistant(thinking("Hm."), "Yes?"), _TALK[2])
    clock.today = _TUESDAY

    assert clock.day(*_TALK) == "2026-11-30"


def test_a_restart_changes_no_date(tmp_path: Path) -> None:
    """Dates are stored; a damaged file of them is not believed."""
    stored = StoredFolder(tmp_path, "model", 1 << 20)
    clock = _Clock(stored=stored)
    clock.day(*_TALK)
    stored.close(60.0)

    stored = StoredFolder(tmp_path, "model", 1 << 20)
    again = _Clock(stored=stored)
    again.today = _FRIDAY
    assert again.day(*_TALK) == "2026-11-30"
    assert again.day(user("Hello.")) == "2027-02-05"
    stored.close(60.0)

    (file,) = (tmp_path / "model").iterdir()
    file.write_bytes(file.read_bytes().replace(b"2026", b"1926"))
    damaged = StoredFolder(tmp_path, "model", 1 << 20)
    last = _Clock(stored=damaged)
    last.today = _FRIDAY
    assert last.day(*_TALK) == "2027-02-05"
    assert damaged.damaged == 1
