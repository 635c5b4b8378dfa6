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
    assert hybrid.layers == {"recurrent": 3, "full_attention": 1}
    # One layer, keys and values, 2 heads of 16, 2 bytes each.
    assert hybrid.kv_bytes_per_token == 2 * 2 * 16 * 2


def test_a_template_without_tools_and_a_small_window_are_pointed_out(tmp_path: Path) -> None:
    """Each property that makes Claude Code useless or slow gets one sentence."""
    path = saved.save(tmp_path / "m", template="chatml", max_position_embeddings=8192)
    advice = " ".join(check(str(path)).advice)
    assert "No tool calls" in advice
    assert "8192 tokens leaves little" in advice


def test_calls_without_a_grammar_are_pointed_out(tmp_path: Path) -> None:
    """A family whose calls no grammar describes is reported."""
    path = saved.save(tmp_path / "m", template="qwen3")
    settings = path / "tokenizer_config.json"
    known = json.loads(settings.read_text()) | {"tool_parser_type": "muse_spark"}
    settings.write_text(json.dumps(known))
    report = check(str(path))
    assert report.tools
    assert not report.tools_held
    assert any("but not constrained to their schemas" in advice for advice in report.advice)


def test_a_template_that_drops_thinking_is_measured(tmp_path: Path) -> None:
    """The tokens lost because a template drops earlier thinking are counted."""
    report = check(str(saved.save(tmp_path / "m", template="qwen3")))
    assert not report.new_question.stable
    assert 0 < report.new_question.kept_tokens < report.new_question.prompt_tokens


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """The error names the folder and what is missing."""
    with pytest.raises(ModelMissingError, match="holds no config"):
        check(str(tmp_path))
