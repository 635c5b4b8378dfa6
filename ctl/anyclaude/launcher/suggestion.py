"""Which other workflow to suggest, where the chosen one lacks what recent requests needed.

Only known facts count: a window that nobody knows is not called too small, and a model that may
take images is not said to refuse them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from anyclaude.control.v1 import control_pb2
from anyclaude.launcher.workflows import Workflow


@dataclass(frozen=True)
class Suggestion:
    # What the chosen one lacks, a sentence each.
    reasons: tuple[str, ...]
    # None: no other one that is ready does better.
    other: Workflow | None


def suggest(
    chosen: Workflow, offered: Iterable[Workflow], needs: control_pb2.Needs
) -> Suggestion | None:
    """None where the chosen one lacks nothing; else the first that fits, one of this machine
    before any other."""
    reasons = lacking(chosen.mode, needs)
    if not reasons:
        return None
    fitting = [flow for flow in offered if flow.mode.ready and not lacking(flow.mode, needs)]
    fitting.sort(key=lambda flow: flow.mode.is_remote)
    return Suggestion(reasons, next(iter(fitting), None))


def lacking(mode: control_pb2.Mode, needs: control_pb2.Needs) -> tuple[str, ...]:
    """What recent requests needed and `mode` is known not to have."""
    model, reasons = mode.model, []
    if needs.tools and model.HasField("has_tools") and not model.has_tools:
        reasons.append("Recent answers called tools, which its model cannot.")
    window, longest = model.context_window_tokens, needs.longest_prompt_tokens
    if 0 < window < longest:
        reasons.append(
            f"Recent prompts were up to {longest:,} tokens long; its window holds {window:,}."
        )
    if needs.images and model.HasField("takes_images") and not model.takes_images:
        reasons.append("Recent prompts held images, which its model does not take.")
    return tuple(reasons)
