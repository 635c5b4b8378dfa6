"""Writes tiny models to disk in the layout that mlx-lm loads."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from tests.models import tiny
from tests.models.tokenizers import tokenizer

# A service answers more slowly than the models that tests run themselves, so that requests overlap.
_SERVED = {"num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}


def save(
    folder: Path,
    family: tiny.Family = tiny.Family.DENSE,
    *,
    template: str = "chatml",
    seed: int = 0,
    endless: bool = False,
    **changes: Any,
) -> Path:
    """Makes `folder` a model folder: config, weights, tokenizer, chat template.

    Args:
        template: a family of `tests.models.templates`.
        endless: whether a greedy answer ends only at a limit.
        changes: entries of config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = tokenizer(template)
    words.save_pretrained(folder)
    end = words.convert_tokens_to_ids("<|im_end|>")
    size = _SERVED if family is tiny.Family.DENSE else {}
    values = {"eos_token_id": end, **size, **changes}
    model = tiny.build(family, len(words), seed=seed, **values)
    if endless:
        _never_end(model, words.eos_token_ids | {end})
    (folder / "config.json").write_text(json.dumps(tiny.config(family, len(words), **values)))
    mx.save_safetensors(
        str(folder / "model.safetensors"),
        dict(tree_flatten(model.parameters())),
        metadata={"format": "mlx"},
    )
    return folder


def _never_end(model: Any, end_ids: set[int]) -> None:
    """Makes the logit of end tokens 0, which is never the highest, through their tied embedding."""
    weight = model.model.embed_tokens.weight
    weight[mx.array(sorted(end_ids))] = 0
    mx.eval(weight)


def with_two_heads(source: Path, folder: Path) -> Path:
    """Copies a model of one attention head as one of two, which two ranks can share out.

    Both heads compute the same, and each gives half of the output, so the answers are the same.
    """
    shutil.copytree(source, folder, dirs_exist_ok=True)
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    for name, weight in weights.items():
        if name.endswith("o_proj.weight"):
            weights[name] = mx.concatenate([weight / 2] * 2, axis=1)
        elif name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            weights[name] = mx.concatenate([weight] * 2)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    config = json.loads((folder / "config.json").read_text())
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    (folder / "config.json").write_text(json.dumps(config | heads))
    return folder
