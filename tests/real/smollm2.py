"""SmolLM2-135M-Instruct as an MLX model folder, made of the GGUF file that a package carries.

The weights stay as they are quantised (4 bits, groups of 32), with scales in float32: MLX's
quantised product with bfloat16 scales is wrong by several per cent on Linux CPUs.
"""

import json
from pathlib import Path
from typing import Any, Final, cast

import mlx.core as mx
import mlx_lm
from mlx.utils import tree_map
from mlx_lm.utils import dequantize_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

GROUP_SIZE: Final = 32
BITS: Final = 4
# `tokenizer.ggml.token_type` of a control token (GGUF specification, "Tokenizer").
_CONTROL: Final = 3
_NAMES: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load(material: Path, folder: Path) -> tuple[Any, Any]:
    """The model and its tokenizer, by way of the model folder `folder`.

    Its weights are expanded to bfloat16: as exact for what is compared, and twice as fast here.
    """
    (gguf,) = material.glob("*.gguf")
    convert(gguf, folder)
    model, tokenizer = mlx_lm.load(str(folder))[:2]
    model = dequantize_model(model)
    model.update(tree_map(lambda weight: weight.astype(mx.bfloat16), model.parameters()))
    mx.eval(model.parameters())
    return model, tokenizer


def convert(gguf: Path, folder: Path) -> None:
    """Writes the model folder that mlx-lm loads."""
    # Two values where metadata is asked for, which the annotation of MLX does not say.
    weights, facts = cast(Any, mx.load(str(gguf), return_metadata=True))
    folder.mkdir(parents=True, exist_ok=True)
    heads = {
        "attn_q": int(facts["llama.attention.head_count"]),
        "attn_k": int(facts["llama.attention.head_count_kv"]),
    }
    arrays = {}
    for name, array in weights.items():
        *block, part, kind = name.split(".")
        if part in heads:
            array = _halves_apart(array, heads[part])
        if array.dtype == mx.float16:
            array = array.astype(mx.float32)
        prefix = f"model.layers.{block[1]}." if block else ""
        arrays[f"{prefix}{_NAMES[part]}.{kind}"] = array
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, {"format": "mlx"})
    _write_json(folder / "config.json", _config(facts))
    _write_tokenizer(folder, facts)


def _halves_apart(rows: mx.array, heads: int) -> mx.array:
    """Undoes llama.cpp's order of rows in q and k, which interleaves the halves of each head."""
    shape = rows.shape
    return rows.reshape(heads, -1, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": int(facts["llama.embedding_length"]),
        "num_hidden_layers": int(facts["llama.block_count"]),
        "intermediate_size": int(facts["llama.feed_forward_length"]),
        "num_attention_heads": int(facts["llama.attention.head_count"]),
        "num_key_value_heads": int(facts["llama.attention.head_count_kv"]),
        "rms_norm_eps": float(facts["llama.attention.layer_norm_rms_epsilon"]),
        "vocab_size": int(facts["llama.vocab_size"]),
        "rope_theta": float(facts["llama.rope.freq_base"]),
        "max_position_embeddings": int(facts["llama.context_length"]),
        "tie_word_embeddings": True,
        "eos_token_id": int(facts["tokenizer.ggml.eos_token_id"]),
        "quantization": {"group_size": GROUP_SIZE, "bits": BITS},
    }


def _write_tokenizer(folder: Path, facts: dict[str, Any]) -> None:
    tokens: list[str] = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    # What llama.cpp calls the pre-tokeniser "smollm": digits one by one, then GPT-2's bytes.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = facts["tokenizer.ggml.token_type"].tolist()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _CONTROL
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    eos = tokens[int(facts["tokenizer.ggml.eos_token_id"])]
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": eos,
            "pad_token": eos,
            "chat_template": facts["tokenizer.chat_template"],
            "model_max_length": int(facts["llama.context_length"]),
            "clean_up_tokenization_spaces": False,
        },
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
