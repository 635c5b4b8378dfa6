"""The chooser's text and rules, computed from a daemon's answers."""

import json

import pytest

from anyclaude.control.v1 import control_pb2
from anyclaude.launcher.chooser import advise, menu, should_ask
from anyclaude.launcher.settings import split_arguments
from anyclaude.launcher.workflows import Kept, suggest, workflows
from anyclaude.worker.v1 import worker_pb2

CONFIG = control_pb2.GetConfigResponse(
    entries=[
        control_pb2.ConfigEntry(key=f"chooser.{key}", value_json=json.dumps(mode))
        for key, mode in (("analysis", "mlx-lm"), ("edit", "lmstudio"), ("cloud", "claude"))
    ]
)
KEPT = Kept(conversations=3, tokens=45_310)


def model(window=32_768, **facts):
    facts = {"id": "anyclaude-m", "has_tools": True, "takes_images": False} | facts
    return worker_pb2.ModelInfo(context_window_tokens=window, **facts)


def modes(*more, current="mlx-lm", own=None, far=None):
    """The daemon's modes: the local model, LM Studio, the real API, and more."""
    return control_pb2.GetModeResponse(
        mode=current,
        modes=[
            control_pb2.Mode(name="mlx-lm", ready=True, keeps_caches=True, model=own or model()),
            control_pb2.Mode(name="lmstudio", ready=True, model=far or model(65_536)),
            control_pb2.Mode(name="claude", ready=True, is_remote=True),
            *more,
        ],
    )


def test_the_menu_shows_purpose_and_facts():
    """Each workflow has its model, what leaves the machine, and warm and cold speeds apart."""
    answer = modes()
    speed = answer.modes[0].speed
    speed.requests, speed.tokens_per_second = 12, 41.6
    speed.warm_time_to_first_token.FromMilliseconds(310)
    speed.cold_time_to_first_token.FromMilliseconds(31_000)
    answer.modes[1].ready, answer.modes[1].reason = False, "Nobody listens there."

    page = menu(workflows(answer, CONFIG), KEPT)

    assert page == (
        "Choose your workflow:\n"
        "1. Analysis - code review, questions, documentation, planning\n"
        "   mlx-lm: anyclaude-m, 32,768 tokens, calls tools; nothing leaves this machine\n"
        "   first token warm 0.31 s, first token cold 31 s, 42 tokens/s, "
        "3 conversations kept (45,310 tokens)\n"
        "2. Edit - editing files, refactoring, git operations\n"
        "   lmstudio: not ready. Nobody listens there.\n"
        "3. Cloud - the real Claude, paid: critical work, maximum capability\n"
        "   claude: the model that the client asks for; prompts leave this machine"
    )


def test_the_mode_of_the_service_is_offered_too():
    """A mode that no workflow has gets an entry of its own, but only then."""
    answer = modes(control_pb2.Mode(name="vllm", ready=True), current="vllm")
    assert [flow.mode.name for flow in workflows(answer, CONFIG)][3:] == ["vllm"]
    assert len(workflows(modes(), CONFIG)) == 3


def suggested(chosen, answer, **needs):
    offered = workflows(answer, CONFIG)
    return suggest(offered[chosen], offered, control_pb2.Needs(**needs))


def test_nothing_is_suggested_when_nothing_is_lacking():
    """Without recent requests, or if all fit the mode, nothing is suggested."""
    assert suggested(0, modes()) is None
    assert suggested(0, modes(), longest_prompt_tokens=32_768, tools=True) is None


def test_unknown_abilities_are_not_called_missing():
    """A server that does not report tools or images gets no warning."""
    silent = worker_pb2.ModelInfo(id="anyclaude-m", context_window_tokens=32_768)
    assert suggested(0, modes(own=silent), tools=True, images=True) is None
    page = menu(workflows(modes(own=silent), CONFIG), KEPT)
    assert "anyclaude-m, 32,768 tokens; nothing" in page


@pytest.mark.parametrize(
    ("own", "needs", "said"),
    [
        (model(has_tools=False), {"tools": True}, "called tools, which its model cannot"),
        (model(), {"longest_prompt_tokens": 40_000}, "40,000 tokens long; its window holds 32,768"),
        (model(), {"images": True}, "contained images, which its model does not accept"),
        (model(8_192), {}, "8,192 tokens is too small for Claude Code"),
    ],
)
def test_another_mode_is_suggested_for_what_is_lacking(own, needs, said):
    """Tools, window and images are each compared with what recent requests needed."""
    answer = modes(own=own, far=worker_pb2.ModelInfo(id="far", has_tools=True))
    advice = suggested(0, answer, **needs)
    assert said in advice.reasons[0]
    assert advice.other.key == "edit"
    offered = workflows(answer, CONFIG)
    told = advise(offered[0], advice, offered)
    assert told.startswith("Analysis (mlx-lm) may not be enough.")
    assert told.endswith("2, Edit (lmstudio), has it.")


def test_ready_modes_of_this_machine_are_suggested_first():
    """The cloud is suggested only without a fitting local mode, and nothing without either."""
    answer = modes()
    needs = {"longest_prompt_tokens": 50_000}
    assert suggested(0, answer, **needs).other.key == "edit"
    answer.modes[1].ready = False
    assert suggested(0, answer, **needs).other.key == "cloud"
    answer.modes[2].ready = False
    assert suggested(0, answer, **needs).other is None


def test_unknown_models_are_not_called_lacking():
    """A mode without a known model, window or image support gets no warning."""
    needs = {"longest_prompt_tokens": 10**6, "tools": True, "images": True}
    assert suggested(2, modes(), **needs) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["-p", "hi"],
        ["hi", "--print"],
        ["-cp", "hi"],
        ["--version"],
        ["mcp", "list"],
        ["--no-chooser"],
    ],
)
def test_scripts_are_not_asked(arguments):
    """Print runs, subcommands and the flag skip the question."""
    assert not should_ask(split_arguments(arguments), {}, is_terminal=True)


def test_people_at_a_terminal_without_a_mode_are_asked():
    """A terminal is needed, a mode prevents it, and words after -- do not count as options."""
    arguments = split_arguments(["--model", "x", "--", "-p"])
    assert should_ask(arguments, {}, is_terminal=True)
    assert not should_ask(arguments, {}, is_terminal=False)
    assert not should_ask(arguments, {"ANYCLAUDE_MODE": "mlx-lm"}, is_terminal=True)
    assert should_ask(arguments, {"ANYCLAUDE_MODE": ""}, is_terminal=True)
