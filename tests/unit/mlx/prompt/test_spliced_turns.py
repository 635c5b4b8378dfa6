"""Spliced answers through renderer, engine and cache: a turn costs its new tokens, exactly."""

import functools
import json
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper

from anyclaude.messages.requests import CountTokensRequest, parse_count_tokens_request
from anyclaude.mlx.adapter import load_tokenizer_from
from tests.models.requests import BASH, Block, result, user
from tests.models.tokenizers import tokenizer
from tests.unit.mlx.kv_explain.explained import Outcome, Talk, start

# As a model may write it, and no template does.
_CALL = """<tool_call>
{"arguments": {"timeout":5 ,"command" : "ls  -l"},"name":   "Bash"}
</tool_call>"""
_THOUGHTS = "<think>\nI had better look.\n</think>\n\n"
_FRESH_TOKENS = 80


@functools.cache
def _words(template: str) -> TokenizerWrapper:
    """A tokenizer whose template names `tool_call.name`, by which mlx-lm chooses the parser."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        words = tokenizer(template)
        words.save_pretrained(folder)
        file = Path(folder) / "chat_template.jinja"
        file.write_text(file.read_text() + "{#- tool_call.name #}")
        return load_tokenizer_from(Path(folder), {})


def talking(template: str = "chatml", *, spliced: bool = False, folder: Path | None = None) -> Talk:
    return Talk(words=_words(template), spliced=spliced, folder=folder)


def body(rng: random.Random, *, thinking: bool) -> Block:
    fields = {"thinking": {"type": "enabled", "budget_tokens": 1024}} if thinking else {}
    return start(rng, tools=[BASH], **fields)


def _request(asked: Block) -> CountTokensRequest:
    return parse_count_tokens_request(json.dumps(asked).encode())


def computed(outcome: Outcome) -> int:
    usage = outcome.started.usage
    return int(usage.input_tokens + usage.cache_creation_tokens)


def loop(talk: Talk, template: str) -> list[Outcome]:
    """A question, a call, its result, an answer, and another question."""
    thinks = template == "qwen3"
    thoughts = _THOUGHTS if thinks else ""
    first = talk.send(body(random.Random(1), thinking=thinks), thoughts + _CALL)
    use = next(block for block in first.content if block["type"] == "tool_use")
    assert use["input"] == {"timeout": 5, "command": "ls  -l"}
    second = talk.send(first.next(user(result(use["id"], "two files"))), thoughts + "Two files.")
    third = talk.send(second.next(user("And now?")), thoughts + "Nothing.")
    return [first, second, third]


@pytest.mark.parametrize("template", ["chatml", "qwen3"])
def test_a_turn_costs_its_new_tokens(template: str) -> None:
    """Other spaces, another order and dropped thinking cause no recomputation."""
    talk = talking(template, spliced=True)
    _, second, third = loop(talk, template)

    assert [second.cause, third.cause] == ["extended", "extended"]
    assert max(computed(second), computed(third)) < _FRESH_TOKENS


@pytest.mark.parametrize("template", ["chatml", "qwen3"])
def test_without_the_setting_it_costs_the_answer_too(template: str) -> None:
    """Without splicing the answer is computed again, and the explanation names the cause."""
    _, second, third = loop(talking(template), template)

    causes = {second.cause, third.cause}
    assert "answer_rendered_differently" in causes
    assert ("thinking_dropped" in causes) is (template == "qwen3")


def test_what_is_kept_is_what_a_fresh_run_gives() -> None:
    """Every segment of spliced prompts equals a new computation of the same tokens."""
    talk = talking("qwen3", spliced=True)
    loop(talk, "qwen3")
    run = talk.engine.verification(100_000)
    while run.step():
        pass

    assert run.findings.segments > 3
    assert not run.findings.wrong


def test_a_cut_answer_is_not_put_back() -> None:
    """An answer that was cut off is rendered by the template."""
    talk = talking(spliced=True)
    rng = random.Random(1)
    first = talk.send(body(rng, thinking=False) | {"max_tokens": 3}, "Word after word after word.")
    cut = first.next(user("Go on."))
    plain = talking().renderer.render(_request(cut))

    assert talk.renderer.render(_request(cut)).token_ids.tolist() == plain.token_ids.tolist()


def test_an_answer_that_was_changed_on_its_way_is_not_put_back() -> None:
    """An answer that reports a failed call is rendered, so that the model reads the report."""
    talk = talking(spliced=True)
    first = talk.send(body(random.Random(1), thinking=False), "<tool_call>\nnonsense\n</tool_call>")
    failed = first.content[-1]
    assert failed["name"].startswith("unreadable_call")
    result = {"type": "tool_result", "tool_use_id": failed["id"], "is_error": True}
    reported = first.next({"role": "user", "content": [{**result, "content": "No such tool."}]})
    plain = talking().renderer.render(_request(reported))

    assert talk.renderer.render(_request(reported)).token_ids.tolist() == plain.token_ids.tolist()


def test_an_edited_answer_is_rendered() -> None:
    """An answer in which the client changed a word is rendered."""
    talk = talking(spliced=True)
    first = talk.send(body(random.Random(1), thinking=False), "It   is\tdone.")
    same = first.next(user("Thanks."))
    changed = {**same, "messages": [dict(message) for message in same["messages"]]}
    changed["messages"][1]["content"] = [{"type": "text", "text": "It is not."}]
    plain = talking().renderer.render(_request(changed))

    assert talk.renderer.render(_request(changed)).token_ids.tolist() == plain.token_ids.tolist()
    assert talk.send(same).cause == "extended"


def test_counting_sees_the_prompt_that_is_computed() -> None:
    """The count of a request is the sum of its usage."""
    talk = talking("qwen3", spliced=True)
    *_, third = loop(talk, "qwen3")
    usage = third.started.usage
    total = usage.input_tokens + usage.cache_creation_tokens + usage.cache_read_tokens

    assert len(talk.renderer.render(_request(third.request)).token_ids) == total


@pytest.mark.parametrize("template", ["qwen3", "qwen3_5"])
def test_a_restart_costs_no_more_than_no_restart(template: str, tmp_path: Path) -> None:
    """After ten steps and a restart, a new question computes its own words and some markup."""
    talk = talking(template, spliced=True, folder=tmp_path)
    asked = body(random.Random(1), thinking=True)
    for step in range(10):
        outcome = talk.send(asked, _THOUGHTS + _CALL)
        use = next(block for block in outcome.content if block["type"] == "tool_use")
        asked = outcome.next(user(result(use["id"], f"two files in {step}")))
    question = "And what do the tests say about it? " * 5
    asked = talk.send(asked, _THOUGHTS + "Two   files.").next(user(question))
    own = len(talk.tokens.encode(question, add_special_tokens=False))

    again = talk.restarted()
    assert computed(again.send(asked, _THOUGHTS + "Nothing.")) <= own + 64
    again.close()


def test_a_restart_without_the_stored_answers_costs_the_loop(tmp_path: Path) -> None:
    """Without the files of its answers, the prompt is as the template renders it."""
    talk = talking("qwen3", spliced=True, folder=tmp_path)
    *_, third = loop(talk, "qwen3")
    asked = third.next(user("And then?"))
    assert talk.answers is not None
    talk.answers.close(60.0)
    shutil.rmtree(tmp_path / "answers")

    again = talk.restarted()
    plain = talking("qwen3").renderer.render(_request(asked))
    assert again.renderer.render(_request(asked)).token_ids.tolist() == plain.token_ids.tolist()
    again.close()
