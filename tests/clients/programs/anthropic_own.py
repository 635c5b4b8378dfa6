"""The tests and examples of the official client for Python, as its source distribution has them."""

from own import run_examples, run_tests, use_served_model
from report import report

_TESTS = "tests/api_resources/"
_EXAMPLES = [
    "messages", "messages_stream", "thinking", "thinking_stream", "tools_stream", "tools_runner",
    "tools_runner_deferred_streaming", "tools_runner_search_tool", "web_search",
    "web_search_stream", "images", "fallbacks",
]  # fmt: skip
_NOT_RUN = {
    "tests `beta`: `create_with_all_params`, and example `message_threads`": "they demand that "
    "conversations are stored, a 400 here",
    "tests of batches, files, skills, agents and the organisation": "these APIs are not served",
    "example `tools`": "it demands a call of `get_weather`; the demo model calls `Bash` only",
    "examples `structured_outputs`, `structured_outputs_streaming`": "the demo model fills a "
    "string that has no length limit until `max_tokens` cuts it",
    "example `mcp_tool_runner`": "it downloads an MCP server",
}


def api_tests() -> str:
    """its own API tests of messages and models (the id `model_id` replaced by a served one)"""
    files = [f"{_TESTS}{name}.py" for name in ("test_messages", "beta/test_messages")]
    models = [f"{_TESTS}{name}.py" for name in ("test_models", "beta/test_models")]
    for file in models:
        use_served_model(file, "model_id")
    with_threads = "beta and create_with_all_params"
    return run_tests(files + models, with_threads, ["-p", "tests._alias_httpx"])


def examples() -> None:
    run_examples(_EXAMPLES)


examples.__doc__ = "its own examples: " + ", ".join(f"`{name}`" for name in _EXAMPLES)
report(["anthropic"], api_tests, examples, not_run=_NOT_RUN)
