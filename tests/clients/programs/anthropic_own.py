"""The tests and examples of the official client for Python, as its source distribution has them."""

from own import SERVED, replace, run_examples, run_tests
from report import CALLING, report

_TESTS = "tests/api_resources/"
_EXAMPLES = [
    "messages", "messages_stream", "thinking", "thinking_stream", "tools_runner_search_tool",
    "web_search", "web_search_stream", "images", "fallbacks",
]  # fmt: skip
_WITH_CALLS = ["tools", "tools_stream", "tools_runner", "tools_runner_deferred_streaming"]
_NOT_RUN = {
    "example `message_threads`": "it demands that conversations are stored (a 400, see `thread`)",
    "tests of batches, files, skills, agents and the organisation": "these APIs are not served",
    "examples `structured_outputs`, `structured_outputs_streaming`": "the demo model fills a "
    "string that has no length limit until `max_tokens` cuts it",
    "example `mcp_tool_runner`": "it downloads an MCP server",
}


def api_tests() -> str:
    """its API tests of messages and models, without `thread` and with a served id for `model_id`"""
    files = [f"{_TESTS}{name}.py" for name in ("test_messages", "beta/test_messages")]
    models = [f"{_TESTS}{name}.py" for name in ("test_models", "beta/test_models")]
    for file in models:
        replace(file, '"model_id"', SERVED)
    replace(files[-1], 'thread={"type": "create"},', "")
    return run_tests(files + models, options=["-p", "tests._alias_httpx"])


def examples() -> None:
    run_examples(_EXAMPLES)


def examples_with_calls() -> None:
    run_examples(_WITH_CALLS, headers=CALLING)


examples_with_calls.__doc__ = (
    "its examples, behind the relay a server that calls their tools: "
    + ", ".join(f"`{name}`" for name in _WITH_CALLS)
)
examples.__doc__ = "its examples: " + ", ".join(f"`{name}`" for name in _EXAMPLES)
report(["anthropic"], api_tests, examples, examples_with_calls, not_run=_NOT_RUN)
