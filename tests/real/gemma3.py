"""Gemma 3 270M as an MLX model folder, made of the GGUF file that four packages carry in parts.

The weights are expanded to dense bfloat16, since MLX does not read this quantisation (Q4_K), and
its quantised product with bfloat16 scales is wrong by several per cent on Linux CPUs. The tokenizer
is Gemma's own, from another package.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
import mlx_lm
import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

WINDOW_TOKENS: Final = 512
_NAMES: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load(parts: Path, tokenizer: Path, folder: Path) -> tuple[Any, Any]:
    """The model and its tokenizer, by way of the model folder `folder`.

    Args:
        parts: the folder with the parts of the GGUF file, in folders of their own.
        tokenizer: the folder with Gemma's tokenizer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "model.gguf"
    with whole.open("wb") as file:
        for part in sorted(parts.rglob("*.part0*"), key=lambda path: path.name):
            file.write(part.read_bytes())
    convert(whole, folder)
    whole.unlink()
    for path in tokenizer.iterdir():
        shutil.copy(path, folder)
    # Typed too loosely in mlx-lm: it returns these two.
    model, words = mlx_lm.load(str(folder))  # type: ignore[misc]
    return model, words


def convert(gguf: Path, folder: Path) -> None:
    """Writes weights and config as mlx-lm loads them."""
    reader = GGUFReader(gguf)
    arrays = {}
    for tensor in reader.tensors:
        *block, part, kind = tensor.name.split(".")
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if part.endswith("norm"):
            # llama.cpp stores the factor; Gemma's own weights are the factor minus one.
            values = values - 1
        prefix = f"model.layers.{block[1]}." if block else ""
        name = f"{prefix}{_NAMES[part]}.{kind}"
        arrays[name] = mx.array(values).astype(mx.bfloat16)
        mx.eval(arrays[name])
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(_config(reader)), encoding="utf-8")


def _config(reader: GGUFReader) -> dict[str, Any]:
    def fact(name: str) -> Any:
        field = reader.fields[f"gemma3.{name}"]
        return field.parts[field.data[0]][0].item()

    return {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_size": fact("embedding_length"),
        "num_hidden_layers": fact("block_count"),
        "intermediate_size": fact("feed_forward_length"),
        "num_attention_heads": fact("attention.head_count"),
        "num_key_value_heads": fact("attention.head_count_kv"),
        "head_dim": fact("attention.key_length"),
        "rms_norm_eps": fact("attention.layer_norm_rms_epsilon"),
        "rope_theta": fact("rope.freq_base"),
        "rope_local_base_freq": 10_000.0,
        "query_pre_attn_scalar": fact("attention.key_length"),
        "sliding_window": fact("attention.sliding_window"),
        "sliding_window_pattern": 6,
        "max_position_embeddings": fact("context_length"),
        "vocab_size": 262_144,
        "eos_token_id": [1, 106],
    }
