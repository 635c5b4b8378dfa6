"""Mode auto: which modes may serve a request."""

import re

import pytest

from anyclaude.messages.requests import CountTokensRequest
from anyclaude.proxy.auto import Policy
from anyclaude.runtime.loading import load
from anyclaude.runtime.settings import Settings
from anyclaude.supervisor import modes
from anyclaude.supervisor.modes import UnknownModeError
from anyclaude.worker.v1 import worker_pb2 as worker
from tests.checkout import ROOT

RULES = """
[[auto.rules]]
classes = ["utility"]
use = ["ollama"]
[[auto.rules]]
tools_offered = false
over_tokens = 1000
use = ["claude", "mlx-lm"]
[[auto.rules]]
tools_offered = true
use = ["mlx-lm", "lmstudio"]
"""
MAIN = worker.Identity(request_class=worker.REQUEST_CLASS_MAIN)
UTILITY = worker.Identity(request_class=worker.REQUEST_CLASS_UTILITY)


def loaded(tmp_path, text):
    file = tmp_path / "config.toml"
    file.write_text(text)
    return load(file, {}, {})


def request(*, tools=False):
    offered = [{"name": "Bash"}] if tools else []
    turns = [{"role": "user", "content": "hi"}]
    return CountTokensRequest.model_validate({"model": "m", "messages": turns, "tools": offered})


def test_the_first_rule_that_fits_decides(tmp_path):
    """The first rule that matches class, tools and length decides, and the reason names it."""
    policy = Policy(loaded(tmp_path, RULES).settings)
    assert policy.choose(request(tools=True), UTILITY, 10, {}).modes == ("ollama",)
    assert policy.choose(request(), MAIN, 40_000, {}).modes == ("claude", "mlx-lm")
    tools = policy.choose(request(tools=True), MAIN, 40_000, {})
    assert tools.modes == ("mlx-lm", "lmstudio")
    assert tools.reason == "rule 3 (class main, 1 tools, 0 calls, about 10000 tokens)"


def test_a_rule_may_require_tools_used(tmp_path):
    """`tools_used` matches a call in the history, not a tool that is merely offered."""
    text = '[[auto.rules]]\ntools_used = true\nuse = ["lmstudio"]\n'
    policy = Policy(loaded(tmp_path, text).settings)
    offered = request(tools=True)
    assert policy.choose(offered, MAIN, 40, {}).modes[0] == "mlx-lm"
    call = {"type": "tool_use", "id": "t", "name": "Bash", "input": {}}
    turn = {"role": "assistant", "content": [call]}
    used = CountTokensRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}, turn]}
    )
    choice = policy.choose(used, MAIN, 40, {})
    assert choice.modes == ("lmstudio",)
    assert choice.reason == "rule 1 (class main, 0 tools, 1 calls, about 10 tokens)"


def test_a_mode_with_too_short_a_window_comes_last(tmp_path):
    """Modes whose window is too short are tried last, with a rule or without one."""
    windows = {"mlx-lm": 8_000, "lmstudio": 32_000, "ollama": 0}
    policy = Policy(loaded(tmp_path, RULES).settings)
    choice = policy.choose(request(tools=True), MAIN, 40_000, windows)
    assert choice.modes == ("lmstudio", "mlx-lm")
    assert choice.reason.endswith("tokens); window of mlx-lm is 8000")
    assert policy.choose(request(tools=True), MAIN, 4_000, windows).modes == ("mlx-lm", "lmstudio")
    default = Policy(Settings()).choose(request(), MAIN, 40_000, windows).modes
    assert default == ("lmstudio", "vllm", "llama-cpp", "ollama", "mlx-lm")


def test_without_a_rule_nothing_leaves_the_machine(tmp_path):
    """Without a rule only servers of this machine are used, our own worker first."""
    far = '[upstreams.lmstudio]\nbase_url = "http://10.0.0.9:1234"\n'
    for text in ("", far, far + RULES):
        settings = loaded(tmp_path, text).settings
        found = Policy(settings).choose(request(), MAIN, 10, {}).modes
        assert found[0] == "mlx-lm"
        table = settings.upstreams
        assert all(table[name].is_loopback for name in found[1:])
    assert Policy(Settings()).choose(request(), MAIN, 10, {}).modes == (
        *("mlx-lm", "lmstudio", "vllm", "llama-cpp", "ollama"),
    )


@pytest.mark.parametrize("word", ["lmstudoi", "auto"])
def test_a_rule_names_modes_that_exist(tmp_path, word):
    """A rule with an unknown mode stops the daemon at its start."""
    text = f'[[auto.rules]]\nuse = ["{word}"]'
    with pytest.raises(UnknownModeError, match=r"auto\.rules"):
        modes.initial(loaded(tmp_path, text), tmp_path / "mode.json")


def test_the_rules_of_the_page_load(tmp_path):
    """The example rules of docs/operating.md are valid."""
    page = (ROOT / "docs" / "operating.md").read_text()
    (example,) = re.findall(r"```toml\n(mode = \"auto\".*?)```", page, re.DOTALL)
    found = loaded(tmp_path, example)
    assert modes.initial(found, tmp_path / "mode.json").name == "auto"
    assert len(found.settings.auto.rules) == 2
