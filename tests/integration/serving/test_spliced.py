"""Answers that the model wrote otherwise than its template does, on the whole service."""

import stat
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tests.integration.prompts import body, session
from tests.integration.service import Service
from tests.models import saved
from tests.models.requests import assistant, user
from tests.models.tokenizers import tokenizer

_QUESTIONS = 4
# What the next question adds with its markup, and the answer's end.
_NEW_TOKENS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes at random and ends soon: its tokens are hardly ever the tokenizer's."""
    folder = saved.save(Path(tmp_path_factory.mktemp("model")))
    end = tokenizer("chatml").convert_tokens_to_ids("<|im_end|>")
    file = str(folder / "model.safetensors")
    weights: Any = mx.load(file)
    embedded = weights["model.embed_tokens.weight"]
    # A longer row is the greatest logit wherever it is positive.
    embedded[end] = 20 * embedded[end]
    mx.save_safetensors(file, weights, metadata={"format": "mlx"})
    return folder


def _ask(service: Service, name: str, messages: list[Any], **fields: Any) -> Any:
    asked = body(max_tokens=200, messages=messages, **fields)
    with service.http() as client:
        return client.post("/v1/messages", json=asked, headers=session(name)).json()


def _costs(service: Service, **fields: Any) -> list[int]:
    """Tokens that were computed for each second turn whose first answer ended by itself."""
    costs = []
    for number in range(_QUESTIONS):
        asked = [user(f"Question {number}: what now?")]
        answer = _ask(service, f"talk-{number}", asked, **fields)
        if answer["stop_reason"] != "end_turn" or not answer["content"]:
            continue
        again = [*asked, assistant(*answer["content"]), user("And now?")]
        usage = _ask(service, f"talk-{number}", again, **fields)["usage"]
        costs.append(usage["input_tokens"] + usage["cache_creation_input_tokens"])
    return costs


def test_an_answer_is_computed_once(model: Path) -> None:
    """With the setting a turn computes only its new tokens; without it, some also the answer.

    By default, a client that asks to keep all thinking gets the same.
    """
    with Service(model=model, ANYCLAUDE__MODEL__SPLICED_TURNS="true") as service:
        spliced = _costs(service.ready())
    with Service(model=model) as service:
        rendered = _costs(service.ready())
    with Service(model=model) as service:
        keep = {"type": "clear_thinking_20251015", "keep": "all"}
        asked = _costs(service.ready(), context_management={"edits": [keep]})

    assert len(spliced) == len(rendered) == len(asked) > 1
    assert max(spliced) <= _NEW_TOKENS
    assert max(asked) <= _NEW_TOKENS
    assert max(rendered) > _NEW_TOKENS
    assert sum(rendered) > sum(spliced)


def _talk(service: Service, turns: int, **fields: Any) -> list[Any]:
    """A conversation of answers that ended by themselves; other questions are taken back."""
    messages: list[Any] = []
    for number in range(4 * turns):
        if len(messages) == 2 * turns:
            break
        asked = [*messages, user(f"Question {number}: what now?")]
        answer = _ask(service, "restarted", asked, **fields)
        if answer["stop_reason"] == "end_turn" and answer["content"]:
            messages = [*asked, assistant(*answer["content"])]
    assert len(messages) == 2 * turns
    return messages


def _computed(service: Service, messages: list[Any], **fields: Any) -> int:
    usage = _ask(service, "restarted", messages, **fields)["usage"]
    return int(usage["input_tokens"] + usage["cache_creation_input_tokens"])


def test_answers_survive_a_restart_until_they_are_pruned(model: Path, tmp_path: Path) -> None:
    """After a restart a question computes its new tokens; a damaged file of answers is removed."""
    keep = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
    with Service(model=model, home=tmp_path) as service:
        messages = _talk(service.ready(), 6, context_management=keep)
        answers = service.paths.cache / "answers"
        assert service.stop() == 0
    (file,) = answers.glob("*/*.answers")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    damaged = file.with_name("00" * 16 + ".answers")
    damaged.write_bytes(file.read_bytes()[:-1])

    messages.append(user("And now?"))
    with Service(model=model, home=tmp_path) as service:
        assert _computed(service.ready(), messages, context_management=keep) <= _NEW_TOKENS
        assert service.status().disk.damaged_answers == 1
        service.poll(lambda _: not damaged.exists())
        assert _computed(service, [*messages, user("Well?")]) > _NEW_TOKENS
        assert service.control("cache", "prune", "--all", "--pinned", "--yes").code == 0
        service.poll(lambda _: not list(answers.glob("*/*.answers")))
