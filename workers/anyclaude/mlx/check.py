"""`python -m anyclaude.mlx.check PATH` reports what Claude Code can expect of a model.

It reads config, tokenizer and template; the weights are mapped into memory, but not read. It prints
one JSON document. If the folder contains no usable model, it prints one line on standard error and
exits with code 1.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from anyclaude.messages.errors import ApiError
from anyclaude.messages.requests import MessagesRequest
from anyclaude.messages.windows import CLAUDE_CODE_PROMPT_TOKENS, window_problem
from anyclaude.mlx.adapter import (
    LanguageModel,
    load_tokenizer_from,
    map_weights,
    parser_family,
)
from anyclaude.mlx.decode.constraint import can_constrain_calls
from anyclaude.mlx.kv import layers as kinds
from anyclaude.mlx.kv.window import WindowKVCache
from anyclaude.mlx.memory import working_set_bytes
from anyclaude.mlx.model import (
    LOAD_ERRORS,
    ModelMissingError,
    cannot_load,
    find_folder,
    generation_config,
    window_tokens,
)
from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.mlx.tokens import common_prefix, token_array
from anyclaude.runtime.settings import ModelSettings

MIN_WINDOW_TOKENS: Final = 32_768
# Penalties of a generation_config.json, each with the value that changes nothing.
_PENALTIES: Final = {"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
_TOOL: Final = {"name": "Bash", "input_schema": {"type": "object", "properties": {}}}


@dataclass(frozen=True)
class Stability:
    """Whether the next request of a conversation extends the prompt of the one before."""

    stable: bool
    # The tokens of the earlier prompt that the next one repeats, and the length of the earlier one.
    kept_tokens: int
    prompt_tokens: int
    why: str
    # The template's own words, if it refuses such a conversation.
    refusal: str = ""


@dataclass(frozen=True)
class Report:
    """What a model folder offers. Bytes are estimated from shapes."""

    folder: str
    architecture: str
    context_window_tokens: int
    tools: bool
    tool_parser: str
    # Whether a grammar constrains calls to the schemas of their tools.
    tools_held: bool
    thinking: bool
    layers: dict[str, int]
    weights_bytes: int
    kv_bytes_per_token: int
    kv_bytes_at_claude_code_prompt: int
    # The most that Metal recommends for one process; 0 without Metal.
    working_set_bytes: int
    tool_loop: Stability
    new_question: Stability
    advice: list[str]


def check(path: str) -> Report:
    """Examines the model that `path` names.

    Raises:
        ModelMissingError: there is no usable model.
    """
    folder = find_folder(path)
    try:
        model, config = map_weights(folder)
        tokenizer = load_tokenizer_from(folder, config)
        renderer = PromptRenderer(tokenizer)
    except LOAD_ERRORS as error:
        raise cannot_load(folder, error) from error
    per_token = _kv_bytes_per_token(model, config)
    window = window_tokens(ModelSettings(), config)
    tools, constrained = bool(tokenizer.has_tool_calling), can_constrain_calls(tokenizer)
    loop = _stability(renderer, _tool_loop())
    return Report(
        folder=str(folder),
        architecture=str(config.get("model_type", "")),
        context_window_tokens=window,
        tools=tools,
        tool_parser=parser_family(tokenizer),
        tools_held=constrained,
        thinking=bool(tokenizer.has_thinking),
        layers=_layer_kinds(model),
        weights_bytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        kv_bytes_per_token=per_token,
        kv_bytes_at_claude_code_prompt=per_token * CLAUDE_CODE_PROMPT_TOKENS,
        working_set_bytes=working_set_bytes(),
        tool_loop=loop,
        new_question=_stability(renderer, _questions()),
        advice=[
            *_advice_on_calls(_offers_tools(renderer), tools, constrained),
            *_advice_on_window(window),
            *_advice_on_history(loop),
            *_advice_on_penalties(generation_config(folder)),
        ],
    )


def _advice_on_calls(offered: bool, are_read: bool, constrained: bool) -> Iterator[str]:
    if not offered:
        yield (
            "No tool calls: its chat template does not describe tools, so Claude Code can talk to "
            "it but not let it read or change anything. Choose a model whose template does."
        )
    elif not are_read:
        yield (
            "No tool calls: its chat template describes tools, but how the model writes calls is "
            "not known here, so its calls would be answered as text. Choose another model."
        )
    elif not constrained:
        yield (
            "Tool calls are read and repaired, but not constrained to their schemas: a malformed "
            "call becomes a sentence in the answer, and a call that the client demands may be "
            "missing."
        )


def _advice_on_window(window: int) -> Iterator[str]:
    if problem := window_problem(window):
        yield problem
    elif window < MIN_WINDOW_TOKENS:
        yield (
            f"The window of {window:,} tokens leaves little beside Claude Code's "
            f"{CLAUDE_CODE_PROMPT_TOKENS:,}; choose a model with at least {MIN_WINDOW_TOKENS:,}."
        )


def _advice_on_history(loop: Stability) -> Iterator[str]:
    if loop.refusal:
        yield (
            "Its chat template refuses a conversation with tool calls, so Claude Code cannot work "
            f"with it: {loop.refusal}. Choose another model, or a newer build of this one."
        )
        return
    if not loop.stable:
        yield (
            "Its template rewrites history inside a tool loop, so turns are computed again with "
            "each step. Choose another model if its steps are slow."
        )


def _advice_on_penalties(own: Mapping[str, Any]) -> Iterator[str]:
    asked = [
        f"{name} {own[name]}"
        for name, neutral in _PENALTIES.items()
        if own.get(name) not in (None, neutral)
    ]
    if asked:
        yield (
            f"Its generation_config.json asks for {' and '.join(asked)}, which is not applied: a "
            "penalty makes what the prompt already contains less likely, such as the text that "
            "Edit has to copy exactly. Loops are ended by answers.end_loops instead."
        )


def _offers_tools(renderer: PromptRenderer) -> bool:
    """Whether the description of a tool is part of a prompt."""
    ask = [{"role": "user", "content": "list the files"}]
    try:
        return len(_render(renderer, ask)) > len(_render(renderer, ask, tools=[]))
    except ApiError:
        return False


def _layer_kinds(model: LanguageModel) -> dict[str, int]:
    counts: dict[str, int] = {}
    for leaf in kinds.leaves(kinds.new_layers(model)):
        kind = (
            "full_attention"
            if kinds.is_full_attention(leaf)
            else "sliding_window"
            if isinstance(leaf, WindowKVCache)
            else "recurrent"
        )
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _kv_bytes_per_token(model: LanguageModel, config: dict[str, Any]) -> int:
    """The bytes of keys and values per token, two bytes per value; exact for plain attention."""
    text = config.get("text_config") or config
    heads = text.get("num_attention_heads") or 1
    head_dim = text.get("head_dim") or text.get("hidden_size", 0) // heads
    kv_heads = text.get("num_key_value_heads") or heads
    return int(2 * 2 * kv_heads * head_dim * _layer_kinds(model).get("full_attention", 0))


def _stability(renderer: PromptRenderer, turns: tuple[list[Any], list[Any]]) -> Stability:
    try:
        before, after = (token_array(_render(renderer, messages)) for messages in turns)
    except ApiError as error:
        refusal = error.message.removeprefix("messages: ")
        return Stability(False, 0, 0, "the template refuses the conversation", refusal)
    kept = common_prefix(before, after)
    # Only the header of the next answer, at the end of the earlier prompt, may differ.
    stable = kept >= len(before) - 8
    why = "" if stable else "the template renders earlier turns anew when later ones are added"
    return Stability(stable, kept, len(before), why)


def _render(
    renderer: PromptRenderer, messages: list[Any], tools: Sequence[Mapping[str, Any]] = (_TOOL,)
) -> Any:
    return renderer.render(
        MessagesRequest(
            model="",
            max_tokens=1,
            messages=messages,
            system="You help with code.",
            tools=list(tools),
            thinking={"type": "adaptive"},
        )
    ).token_ids


def _tool_loop() -> tuple[list[Any], list[Any]]:
    first = [{"role": "user", "content": "list the files"}, *_call("a")]
    return first, [*first, *_call("b")]


def _questions() -> tuple[list[Any], list[Any]]:
    first = [{"role": "user", "content": "list the files"}, *_call("a")]
    answer = {"role": "assistant", "content": [_thought(), {"type": "text", "text": "Two."}]}
    return first, [*first, answer, {"role": "user", "content": "and the tests?"}]


def _call(name: str) -> list[Any]:
    use = {"type": "tool_use", "id": name, "name": "Bash", "input": {"command": "ls"}}
    result = {"type": "tool_result", "tool_use_id": name, "content": "a.py b.py"}
    return [
        {"role": "assistant", "content": [_thought(), use]},
        {"role": "user", "content": [result]},
    ]


def _thought() -> dict[str, str]:
    return {"type": "thinking", "thinking": "I should look.", "signature": "x"}


def main() -> None:
    try:
        report = check(sys.argv[1] if len(sys.argv) > 1 else "")
    except ModelMissingError as error:
        sys.exit(str(error))
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()
