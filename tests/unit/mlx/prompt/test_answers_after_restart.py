"""Spliced answers and pinned dates after a restart: the same prompts as without one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anyclaude.messages.requests import Message
from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.mlx.prompt.kept_answers import AnswerEnd, KeptAnswers, digest
from anyclaude.mlx.prompt.stored_folder import StoredFolder
from anyclaude.mlx.tokens import token_array
from tests.models.requests import BASH, Block, assistant, request, text, thinking, user
from tests.models.tokenizers import tokenizer

_BYTES = 1 << 20
_ENDS = {"gemma4": "<turn|>", "glm": "<|user|>", "llama3": "<|eot_id|>"}
_KEEP = {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}


class _Process:
    """The renderer of one process, and its folder."""

    def __init__(self, family: str, root: Path, spliced_bytes: int = _BYTES, **more: Any) -> None:
        self.end = tokenizer(family).get_vocab()[_ENDS.get(family, "<|im_end|>")]
        self.stored = StoredFolder(root, family, spliced_bytes)
        self.renderer = PromptRenderer(
            tokenizer(family), spliced_bytes=spliced_bytes, stored=self.stored, **more
        )

    def ids(self, messages: list[Block], **fields: Any) -> list[int]:
        body = request(*messages, tools=[BASH], system="You help.", **fields)
        return [int(token) for token in self.renderer.render(body).token_ids]

    def talk(self, name: str, turns: int = 3) -> list[Block]:
        """A conversation whose answers no tokenizer writes like this."""
        messages = [user(f"Hello from {name}.")]
        for turn in range(turns):
            prompt = self.renderer.render(
                request(*messages, tools=[BASH], system="You help.", **_KEEP)
            )
            answer = assistant(thinking(f"Hm {turn}."), text(f"It is {turn}."))
            assert prompt.answer_position is not None
            self.renderer.keep_answer(
                prompt.answer_position,
                token_array([*range(100, 130), self.end]),
                Message.model_validate(answer),
            )
            messages += [answer, user(f"And {turn}?")]
        return messages

    def ended(self) -> None:
        self.stored.close(60.0)


@pytest.mark.parametrize(
    "family", ["chatml", "gemma4", "glm", "llama3", "qwen3", "qwen3_5", "qwen3_coder"]
)
def test_a_restart_changes_no_token(family: str, tmp_path: Path) -> None:
    """The prompts of two conversations are the same before and after, and not just rendered."""
    first = _Process(family, tmp_path)
    talks = [first.talk(name) for name in ("one", "two")]
    before = [first.ids(messages) for messages in talks]
    first.ended()

    assert [_Process(family, tmp_path).ids(messages) for messages in talks] == before
    plain = PromptRenderer(tokenizer(family))
    body = request(*talks[0], tools=[BASH], system="You help.")
    assert plain.render(body).token_ids.tolist() != before[0]


def test_a_conversation_has_one_file(tmp_path: Path) -> None:
    """Later answers of a conversation replace the file of the earlier ones."""
    first = _Process("qwen3", tmp_path)
    for name in ("one", "two"):
        first.talk(name, turns=5)
    first.ended()

    assert len(list((tmp_path / "qwen3").iterdir())) == 2


def test_the_files_keep_to_the_limit(tmp_path: Path) -> None:
    """What is displaced from memory leaves the disk; the newest conversations stay."""
    first = _Process("qwen3", tmp_path, spliced_bytes=4000)
    talks = [first.talk(f"talk {number}") for number in range(12)]
    last = first.ids(talks[-1])
    first.ended()
    files = list((tmp_path / "qwen3").iterdir())

    assert 1 <= len(files) < 12
    assert sum(file.stat().st_size for file in files) <= 4000
    assert _Process("qwen3", tmp_path, spliced_bytes=4000).ids(talks[-1]) == last


def test_forgotten_answers_leave_the_disk(tmp_path: Path) -> None:
    """A conversation that is forgotten is rendered, before and after a restart."""
    first = _Process("qwen3", tmp_path)
    messages = first.talk("one")
    assert first.renderer.spliced is not None
    first.renderer.spliced.forget(lambda kept: True)
    rendered = first.ids(messages)
    first.ended()

    assert not list((tmp_path / "qwen3").iterdir())
    assert _Process("qwen3", tmp_path).ids(messages) == rendered


@pytest.mark.parametrize("answered", [True, False])
def test_counting_agrees_with_what_will_be_sent(answered: bool, tmp_path: Path) -> None:
    """A count without `context_management` counts the prompt that Claude Code will send with it."""
    process = _Process("qwen3", tmp_path, spliced_on_request=True)
    messages = process.talk("one") if answered else [user("Hello.")]
    body = request(*messages, tools=[BASH], system="You help.")
    counted = process.renderer.render(body, counting=True)

    assert counted.token_ids.tolist() == process.ids(messages, **_KEEP)
    assert (counted.token_ids.tolist() != process.ids(messages)) is answered


def _end(messages: int = 2, tokens: int = 5) -> AnswerEnd:
    return AnswerEnd(messages, 1, "<header>", tokens, True)


def _kept(**changes: Any) -> KeptAnswers:
    parts: dict[str, Any] = {
        "start": digest(b"start"),
        "items": [digest(b"one"), digest(b"two")],
        "token_ids": token_array([1, 2, 3, 4, 2**31 - 1]),
        "cut_points": (1, 3),
        "answers": (_end(),),
    }
    return KeptAnswers(**parts | changes)


def test_kept_answers_are_read_as_they_were_written() -> None:
    """Bytes and back give the same conversation under the same name."""
    kept = _kept()
    read = KeptAnswers.from_bytes(kept.to_bytes())

    assert (read.name, read.cut_points, read.answers) == (kept.name, (1, 3), kept.answers)
    assert list(read.items) == kept.items
    assert read.token_ids.tolist() == kept.token_ids.tolist()


_Change = Callable[[bytes], bytes]


def _without(key: str) -> _Change:
    def change(content: bytes) -> bytes:
        line, _, rest = content.partition(b"\n")
        return json.dumps({**json.loads(line), key: None}).encode() + b"\n" + rest

    return change


@pytest.mark.parametrize(
    "content",
    [
        _without("start")(_kept().to_bytes()),
        _without("answers")(_kept().to_bytes()),
        _kept().to_bytes()[:-4],
        _kept().to_bytes()[:-1],
        _kept().to_bytes() + b"1234",
        _kept(answers=()).to_bytes(),
        _kept(answers=(_end(messages=1),)).to_bytes(),
        _kept(answers=(_end(1, 5), _end(2, 5))).to_bytes(),
        _kept(cut_points=(3, 1)).to_bytes(),
        _kept(cut_points=(0, 1)).to_bytes(),
        _kept(items=[digest(b"one")]).to_bytes(),
        b"",
        b"[]\n",
    ],
)
def test_what_contradicts_itself_is_not_believed(content: bytes, tmp_path: Path) -> None:
    """Content with the right checksum and wrong parts is counted and removed."""
    with pytest.raises(ValueError, match=r".+"):
        KeptAnswers.from_bytes(content)
    name = _kept().name

    class _Stored:
        def to_bytes(self) -> bytes:
            return content

    folder = StoredFolder(tmp_path, "chatml", _BYTES)
    folder.update({name: _Stored()})
    folder.close(60.0)
    process = _Process("chatml", tmp_path)

    assert process.stored.damaged == 1
    process.talk("one")
    process.ended()
    assert name not in [file.name for file in (tmp_path / "chatml").iterdir()]


def test_a_renamed_file_is_not_believed(tmp_path: Path) -> None:
    """A file under the name of another conversation is damaged."""
    first = _Process("chatml", tmp_path)
    first.talk("one")
    first.ended()
    (file,) = (tmp_path / "chatml").iterdir()
    file.rename(file.with_name(_kept().name))

    assert _Process("chatml", tmp_path).stored.damaged == 1
