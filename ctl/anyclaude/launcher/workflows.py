"""The workflows that the chooser offers: their purpose, the facts about their modes, suggestions.

All facts come from the daemon; nothing is measured here. A suggestion uses known facts only: an
unknown window does not count as too small, nor a model's unknown abilities as missing.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.duration_pb2 import Duration

from anyclaude.cli.units import counted, format_seconds
from anyclaude.control.v1 import control_pb2
from anyclaude.messages.windows import window_problem
from anyclaude.worker.v1 import worker_pb2

# The key of the service's own mode, when no workflow has it.
AS_SET: Final = "service"
_WHAT_FOR: Final[Mapping[str, tuple[str, str]]] = {
    "analysis": ("Analysis", "code review, questions, documentation, planning"),
    "edit": ("Edit", "editing files, refactoring, git operations"),
    "cloud": ("Cloud", "the real Claude, paid: critical work, maximum capability"),
}


@dataclass(frozen=True)
class Workflow:
    """One entry of the menu."""

    # Written to the file that remembers the choice.
    key: str
    title: str
    what_for: str
    mode: control_pb2.Mode


@dataclass(frozen=True)
class Kept:
    """The totals of our own caches."""

    conversations: int
    tokens: int


def workflows(
    answer: control_pb2.GetModeResponse, config: control_pb2.GetConfigResponse
) -> list[Workflow]:
    """The three workflows of the settings, and the service's mode if it is none of them."""
    modes = {mode.name: mode for mode in answer.modes}
    values = {entry.key: entry.value_json for entry in config.entries}
    found = [
        Workflow(key, title, what_for, modes[name])
        for key, (title, what_for) in _WHAT_FOR.items()
        if (name := json.loads(values.get(f"chooser.{key}", '""'))) in modes
    ]
    if answer.mode in modes and answer.mode not in {flow.mode.name for flow in found}:
        mode = modes[answer.mode]
        found.append(Workflow(AS_SET, "As set", f"mode {mode.name} of the service", mode))
    return found


def describe(number: int, flow: Workflow, kept: Kept | None) -> str:
    """Up to three lines: the purpose, the model and where prompts go, speed and caches."""
    title, mode = f"{number}. {flow.title} - {flow.what_for}", flow.mode
    if not mode.ready:
        return f"{title}\n   {mode.name}: not ready. {mode.reason}".rstrip()
    facts = [f"{mode.name}: {_model(mode.model)}; {_privacy(mode)}"]
    details = [_speed(mode), _kept(mode, kept)]
    facts += [", ".join(filter(None, details))] if any(details) else []
    return "\n   ".join([title, *facts])


def _model(model: worker_pb2.ModelInfo) -> str:
    if not model.id:
        return "the model that the client asks for"
    window = model.context_window_tokens
    facts = [model.id, f"{window:,} tokens" if window else "window not known"]
    if window_problem(window):
        facts.append("too small for Claude Code")
    if model.HasField("has_tools"):
        facts.append("calls tools" if model.has_tools else "cannot call tools")
    return ", ".join(facts)


def _kept(mode: control_pb2.Mode, kept: Kept | None) -> str:
    if not mode.keeps_caches or kept is None:
        return ""
    return f"{counted(kept.conversations, 'conversation')} kept ({kept.tokens:,} tokens)"


def _speed(mode: control_pb2.Mode) -> str:
    if not mode.HasField("speed"):
        return ""
    speed = mode.speed
    figures = []
    if speed.HasField("warm_time_to_first_token"):
        figures.append(f"first token warm {_seconds(speed.warm_time_to_first_token)}")
    if speed.HasField("cold_time_to_first_token"):
        figures.append(f"first token cold {_seconds(speed.cold_time_to_first_token)}")
    if speed.HasField("tokens_per_second"):
        figures.append(f"{speed.tokens_per_second:.0f} tokens/s")
    return ", ".join(figures)


def _seconds(duration: Duration) -> str:
    return format_seconds(duration.ToTimedelta().total_seconds())


def _privacy(mode: control_pb2.Mode) -> str:
    return "prompts leave this machine" if mode.is_remote else "nothing leaves this machine"


@dataclass(frozen=True)
class Suggestion:
    # What the chosen workflow lacks, one sentence each.
    reasons: tuple[str, ...]
    # None: no other ready workflow has it.
    other: Workflow | None


def suggest(
    chosen: Workflow, offered: Iterable[Workflow], needs: control_pb2.Needs
) -> Suggestion | None:
    """Returns None when the chosen workflow lacks nothing, else the first one that fits.

    A workflow whose server is on this machine is preferred.
    """
    reasons = lacking(chosen.mode, needs)
    if not reasons:
        return None
    fitting = [flow for flow in offered if flow.mode.ready and not lacking(flow.mode, needs)]
    fitting.sort(key=lambda flow: flow.mode.is_remote)
    return Suggestion(reasons, next(iter(fitting), None))


def lacking(mode: control_pb2.Mode, needs: control_pb2.Needs) -> tuple[str, ...]:
    """What recent requests needed and what `mode` is known not to have."""
    model, reasons = mode.model, []
    if needs.tools and model.HasField("has_tools") and not model.has_tools:
        reasons.append("Recent answers called tools, which its model cannot.")
    window, longest = model.context_window_tokens, needs.longest_prompt_tokens
    if problem := window_problem(window):
        reasons.append(problem)
    elif 0 < window < longest:
        reasons.append(
            f"Recent prompts were up to {longest:,} tokens long; its window holds {window:,}."
        )
    if needs.images and model.HasField("takes_images") and not model.takes_images:
        reasons.append("Recent prompts contained images, which its model does not accept.")
    return tuple(reasons)
