"""`model check`: what Claude Code can expect of a model, before it is served."""

import json
from pathlib import Path

import pytest

from anyclaude.mlx.check import check
from anyclaude.mlx.model import ModelMissingError
from tests.models import saved, tiny


def test_a_model_without_problems_gets_no_advice() -> None:
    """A model with tools, a wide window and an appending template gets no advice."""
    report = check("")
    assert report.tools
    assert report.tool_parser == "json_tools"
    assert report.tools_held
    assert report.tool_loop.stable
    assert report.new_question.stable
    assert report.advice == []


def test_layers_are_reported_by_kind(tmp_path: Path) -> None:
    """Sliding windows and recurrent layers, which limit cuts, are reported."""
    sliding = check(str(saved.save(tmp_path / "s", tiny.Family.SLIDING, template="qwen3")))
    hybrid = check(str(saved.save(tmp_path / "h", tiny.Family.HYBRID, template="qwen3")))
    assert sliding.layers == {"sliding_window": 2, "full_attention": 2}
    assert hybrid.layers == {"recurrent": 2, "full_attention": 2}
    # Two layers, keys and values, 2 heads of 8, 2 bytes each.
    assert hybrid.kv_bytes_per_token == 2 * 2 * 2 * 8 * 2


def test_a_template_without_tools_and_a_small_window_are_pointed_out(tmp_path: Path) -> None:
    """Each property that makes Claude Code useless or slow gets one sentence."""
    path = saved.save(tmp_path / "m", template="chatml", max_position_embeddings=8192)
    advice = " ".join(check(str(path)).advice)
    assert "No tool calls" in advice
    assert "8,192 tokens is too small for Claude Code" in advice


def test_a_window_with_little_room_is_pointed_out(tmp_path: Path) -> None:
    """A window that holds Claude Code's prompt and little else is named too."""
    path = saved.save(tmp_path / "m", template="qwen3", max_position_embeddings=20_000)
    assert "20,000 tokens leaves little" in " ".join(check(str(path)).advice)


@pytest.mark.parametrize(
    ("template", "offers"),
    [("gemma2", False), ("bare", False), ("mistral", True), ("glm", True)],
)
def test_a_template_that_offers_no_tools_is_told_apart(
    template: str, offers: bool, tmp_path: Path
) -> None:
    """The check ends with a report, whatever the template refuses, and says what it lacks."""
    advice = " ".join(check(str(saved.save(tmp_path / "m", template=template))).advice)
    assert ("does not describe tools" in advice) == (not offers)


def test_a_refusal_of_a_tool_loop_is_quoted(tmp_path: Path) -> None:
    """The advice has the template's own words, and nothing is measured."""
    path = saved.save(tmp_path / "m", template="qwen3")
    (path / "chat_template.jinja").write_text(
        "{%- for m in messages -%}{%- if loop.index > 3 -%}"
        "{{- raise_exception('loops are not for me') -}}{%- endif -%}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{%- endfor -%}"
        "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
    )
    report = check(str(path))
    assert not report.tool_loop.stable
    assert "loops are not for me" in report.tool_loop.refusal
    assert any("loops are not for me" in words for words in report.advice)


def test_a_template_whose_calls_are_unknown_is_pointed_out(tmp_path: Path) -> None:
    """Tools in the template are not enough, if nobody here knows how the model calls them."""
    path = saved.save(tmp_path / "m", template="chatml")
    source = (path / "chat_template.jinja").read_text()
    (path / "chat_template.jinja").write_text("{{- tools | tojson if tools else '' -}}" + source)
    report = check(str(path))
    assert not report.tools
    assert any("is not known here" in words for words in report.advice)


def test_weights_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """The error says by which method the weights are quantised, and what to do."""
    path = saved.save(tmp_path / "m", template="qwen3")
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 3, "group_size": 128}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelMissingError, match=r"the method gptq.*mlx_lm\.convert"):
        check(str(path))


def test_calls_without_a_grammar_are_pointed_out(tmp_path: Path) -> None:
    """A family whose calls no grammar describes is reported."""
    path = saved.save(tmp_path / "m", template="qwen3")
    settings = path / "tokenizer_config.json"
    known = json.loads(settings.read_text()) | {"tool_parser_type": "minicpm5"}
    settings.write_text(json.dumps(known))
    report = check(str(path))
    assert report.tools
    assert not report.tools_held
    assert any("but not constrained to their schemas" in advice for advice in report.advice)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"repetition_penalty": 1.05, "presence_penalty": 0.0}, ["repetition_penalty 1.05"]),
        (
            {"presence_penalty": 1.5, "frequency_penalty": 0.2},
            ["presence_penalty 1.5", "frequency_penalty 0.2"],
        ),
        ({"repetition_penalty": 1.0, "temperature": 0.7, "frequency_penalty": None}, []),
    ],
)
def test_penalties_that_are_not_applied_are_named(
    asked: dict[str, float | None], named: list[str], tmp_path: Path
) -> None:
    """A penalty of the model's generation_config.json is reported, unless it changes nothing."""
    path = saved.save(tmp_path / "m", template="qwen3")
    (path / "generation_config.json").write_text(json.dumps(asked))
    advice = " ".join(check(str(path)).advice)
    assert all(penalty in advice for penalty in named)
    assert ("is not applied" in advice) == bool(named)


def test_a_damaged_generation_config_is_named(tmp_path: Path) -> None:
    """The error says which file cannot be read, as it does when the worker loads the model."""
    path = saved.save(tmp_path / "m", template="qwen3")
    (path / "generation_config.json").write_text("{")
    with pytest.raises(ModelMissingError, match=r"m/generation_config\.json is not valid JSON"):
        check(str(path))


def test_a_template_that_drops_thinking_is_measured(tmp_path: Path) -> None:
    """The tokens lost because a template drops earlier thinking are counted."""
    report = check(str(saved.save(tmp_path / "m", template="qwen3")))
    assert not report.new_question.stable
    assert 0 < report.new_question.kept_tokens < report.new_question.prompt_tokens


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """The error names the folder and what is missing."""
    with pytest.raises(ModelMissingError, match="holds no config"):
        check(str(tmp_path))
