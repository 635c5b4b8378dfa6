"""The demo model, or another Qwen3, as a GGUF file: same weights, tokenizer and chat template.

    python tests/upstreams/gguf_demo.py MODEL_FOLDER FILE [endless]

With `endless` its greedy answer stops at a limit alone. Runs in a virtual environment that has the
package `gguf`.
"""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

_OF_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}
_EMBEDDING = "model.embed_tokens.weight"
_OF_MODEL = {"embed_tokens": "token_embd", "norm": "output_norm"}


def write(model: Path, file: Path, *, endless: bool) -> None:
    config = json.loads((model / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "qwen3")
    _write_shape(writer, config)
    _write_tokenizer(writer, json.loads((model / "tokenizer.json").read_text()), config)
    writer.add_chat_template((model / "chat_template.jinja").read_text())
    for name, array in _tensors(model / "model.safetensors"):
        if endless and name == _EMBEDDING:
            array = _without_end(array, config)
        writer.add_tensor(_renamed(name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _without_end(embedding: Any, config: dict[str, Any]) -> Any:
    """Gives end tokens the logit 0, which is never the greatest; their embedding is tied to it."""
    changed = embedding.copy()
    changed[[config["eos_token_id"], _padding(config)]] = 0
    return changed


def _padding(config: dict[str, Any]) -> int:
    return int(config.get("pad_token_id", config["eos_token_id"]))


def _write_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_name("anyclaude demo")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _write_tokenizer(
    writer: gguf.GGUFWriter, tokenizer: dict[str, Any], config: dict[str, Any]
) -> None:
    vocabulary = {index: text for text, index in tokenizer["model"]["vocab"].items()}
    kinds = dict.fromkeys(vocabulary, gguf.TokenType.NORMAL)
    for added in tokenizer["added_tokens"]:
        vocabulary[added["id"]] = added["content"]
        kinds[added["id"]] = (
            gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        )
    order = range(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([vocabulary[index] for index in order])
    writer.add_token_types([kinds[index] for index in order])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(_padding(config))
    writer.add_add_bos_token(False)


def _tensors(file: Path) -> Iterator[tuple[str, Any]]:
    """Names and arrays; the file holds nothing but 32-bit floats."""
    content = file.read_bytes()
    (head_bytes,) = struct.unpack_from("<Q", content)
    head = json.loads(content[8 : 8 + head_bytes])
    for name, told in head.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + head_bytes + offset for offset in told["data_offsets"])
        yield name, np.frombuffer(content[begin:end], "<f4").reshape(told["shape"])


def _renamed(name: str) -> str:
    parts = name.removeprefix("model.").removesuffix(".weight").split(".")
    if parts[0] == "layers":
        return f"blk.{parts[1]}.{_OF_LAYER['.'.join(parts[2:])]}.weight"
    return f"{_OF_MODEL['.'.join(parts)]}.weight"


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), endless="endless" in sys.argv[3:])
