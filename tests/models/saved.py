"""Writes tiny models to disk in the layout that mlx-lm loads."""

import json
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
