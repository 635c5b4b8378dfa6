"""The tests and examples of OpenAI's client for Python, as its source distribution has them."""

from own import SERVED, replace, run_examples, run_tests
from report import BASE_URL, report

_URL = f"{BASE_URL}/v1"
_TESTS = "tests/api_resources/"
_EXAMPLES = ["demo", "async_demo", "parsing", "parsing_stream", "parsing_tools_stream"]
_LEFT_OUT = "create_with_all_params or _retrieve or _update or _list or _delete"
_NOT_RUN = {
    "tests `create_with_all_params`": "they set `logprobs`, `audio` and others that are a 400",
    "tests of stored completions and of the deletion of models": "completions are not stored, and "
    "models are not deleted by a request",
    "tests of the other APIs": "they are not served",
    "example `parsing_tools`": "it demands a call of `query`; the demo model calls `Bash` only",
    "examples `streaming`, `picture` and those of other APIs": "these APIs are not served",
    "examples `module_client`, `azure*`, `bedrock`, `mtls_*`": "they name another server",
}


def chat_tests() -> str:
    """its API tests of chat completions (`create`)"""
    return run_tests([f"{_TESTS}chat/test_completions.py"], _LEFT_OUT, base_url=_URL)


def model_tests() -> str:
    """its API tests of models with a served id for `gpt-4o-mini`"""
    file = f"{_TESTS}test_models.py"
    replace(file, '"gpt-4o-mini"', SERVED)
    return run_tests([file], "_delete", base_url=_URL)


def examples() -> None:
    run_examples(_EXAMPLES, _URL)


examples.__doc__ = "its examples: " + ", ".join(f"`{name}`" for name in _EXAMPLES)
report(["openai"], chat_tests, model_tests, examples, not_run=_NOT_RUN)
