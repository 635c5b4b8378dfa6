"""The environment for Claude Code."""

import pytest

from anyclaude.cli.bundle import Endpoint, contradicting, environment_for, launch_mode_of
from anyclaude.cli.command import CommandError, ExitCode


def _endpoint(**changes: object) -> Endpoint:
    values: dict[str, object] = {
        "base_url": "http://127.0.0.1:1",
        "mode": "mlx-lm",
        "launch_mode": "",
        "model_id": "anyclaude-x",
        "context_window_tokens": 65_536,
        "auth_token": "",
    }
    return Endpoint(**(values | changes))  # type: ignore[arg-type]


def test_one_model_for_every_role() -> None:
    """The main role, the subagent and every family name use the resident model."""
    bundle = environment_for(_endpoint(), {})

    models = {name: value for name, value in bundle.items() if name.endswith("_MODEL")}
    assert len(models) == 6
    assert set(models.values()) == {"anyclaude-x"}


@pytest.mark.parametrize(
    ("window", "output"), [(16_384, "4096"), (65_536, "8192"), (262_144, "16384")]
)
def test_output_limit_follows_the_window(window: int, output: str) -> None:
    """In a small window most tokens stay available for the prompt."""
    bundle = environment_for(_endpoint(context_window_tokens=window), {})

    assert bundle["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == str(window)
    assert bundle["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == output


def test_a_model_that_is_not_known_is_not_named() -> None:
    """Until the worker reports its model, no model is set."""
    bundle = environment_for(_endpoint(model_id="", context_window_tokens=0), {})

    assert "ANTHROPIC_MODEL" not in bundle
    assert "CLAUDE_CODE_MAX_CONTEXT_TOKENS" not in bundle
    assert bundle["ANTHROPIC_AUTH_TOKEN"] == "anyclaude"


def test_mode_header_replaces_an_older_one() -> None:
    """A mode header inherited from an outer launch is replaced."""
    shell = {"ANTHROPIC_CUSTOM_HEADERS": "a: 1\nX-Anyclaude-Mode: claude\n"}

    bundle = environment_for(_endpoint(launch_mode="lmstudio"), shell)

    assert bundle["ANTHROPIC_CUSTOM_HEADERS"] == "a: 1\nx-anyclaude-mode: lmstudio"


@pytest.mark.parametrize(("word", "mode"), [("", ""), ("local", "mlx-lm"), ("claude", "claude")])
def test_launch_mode_is_todays_name(word: str, mode: str) -> None:
    """A historic mode name is replaced by the current one before it becomes a header."""
    assert launch_mode_of({"ANYCLAUDE_MODE": word}, ["mlx-lm", "claude"]) == mode


def test_a_server_may_have_a_historic_name() -> None:
    """A server that the configuration names "local" is what ANYCLAUDE_MODE=local means."""
    assert launch_mode_of({"ANYCLAUDE_MODE": "local"}, ["mlx-lm", "local"]) == "local"


def test_mode_that_would_smuggle_a_header_is_refused() -> None:
    """A line break in the mode word is a usage error."""
    with pytest.raises(CommandError) as caught:
        launch_mode_of({"ANYCLAUDE_MODE": "x\nauthorization: y"}, [])

    assert caught.value.code is ExitCode.USAGE


def test_passthrough_changes_the_address_and_its_proxy_alone() -> None:
    """In mode claude the user's credentials and models are neither set nor removed."""
    endpoint = _endpoint(mode="claude")

    bundle = environment_for(endpoint, {})

    assert bundle.pop("ANTHROPIC_BASE_URL") == "http://127.0.0.1:1"
    assert bundle.keys() == {"NO_PROXY", "no_proxy"}
    assert "ANTHROPIC_API_KEY" not in contradicting(endpoint)
    assert "ANTHROPIC_API_KEY" in contradicting(_endpoint())


@pytest.mark.parametrize("mode", ["mlx-lm", "claude"])
@pytest.mark.parametrize(
    ("shell", "hosts"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a.example, b.example"}, "a.example,b.example,127.0.0.1,localhost,::1"),
        ({"no_proxy": "a.example"}, "a.example,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a", "no_proxy": "b,a"}, "a,b,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "localhost,"}, "localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "*"}, "*,127.0.0.1,localhost,::1"),
    ],
)
def test_no_proxy_is_used_for_the_service(mode: str, shell: dict[str, str], hosts: str) -> None:
    """Loopback is exempt from the user's proxy, in both spellings; the user's own hosts stay so."""
    bundle = environment_for(_endpoint(mode=mode), shell)

    assert {bundle["NO_PROXY"], bundle["no_proxy"]} == {hosts}
