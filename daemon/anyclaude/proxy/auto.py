"""Mode auto: which modes a request may take, in order, by a policy that people can read.

A mode is used only when the policy names it, so nothing leaves this machine unless its owner wrote
so; without rules of their own, the servers of this machine are all there is. `mlx-lm` leads there
for every class: its model is resident, so that even a utility call loads nothing, costs nothing,
and never pushes out a main conversation's cache.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from anyclaude.messages.requests import CountTokensRequest
from anyclaude.runtime.settings import AutoRule, Settings
from anyclaude.worker.v1 import worker_pb2 as worker

AUTO: Final = "auto"
# Of English text and code; the front end does not tokenise.
_BYTES_PER_TOKEN: Final = 4


@dataclass(frozen=True)
class Choice:
    # In the order in which they are tried.
    modes: tuple[str, ...]
    reason: str


class Policy:
    def __init__(self, settings: Settings) -> None:
        self._rules = settings.auto.rules
        near = (name for name, table in settings.upstreams.items() if table.is_loopback)
        self._default = ("mlx-lm", *(name for name in near if name != "mlx-lm"))

    def choose(
        self,
        request: CountTokensRequest,
        identity: worker.Identity,
        body_bytes: int,
        windows: Mapping[str, int],
    ) -> Choice:
        """The modes of the first rule that fits, else the servers of this machine.

        Those whose window is known to be shorter than the prompt come last: an estimate may be
        wrong, and the last server's own refusal is what makes the client shorten its conversation.

        Args:
            windows: the context window of each mode in tokens; 0, or nothing, where unknown.
        """
        facts = _facts(request, identity, body_bytes)
        numbered = (n for n, rule in enumerate(self._rules, 1) if _fits(rule, facts))
        if number := next(numbered, 0):
            return _ordered(tuple(self._rules[number - 1].use), f"rule {number}", facts, windows)
        return _ordered(self._default, "no rule, servers of this machine", facts, windows)


@dataclass(frozen=True)
class _Facts:
    """What rules can ask about."""

    request_class: str
    tools_offered: int
    tools_used: int
    tokens: int

    def __str__(self) -> str:
        return (
            f"class {self.request_class}, {self.tools_offered} tools, {self.tools_used} calls, "
            f"about {self.tokens} tokens"
        )


def _facts(request: CountTokensRequest, identity: worker.Identity, body_bytes: int) -> _Facts:
    blocks = (block for message in request.messages for block in message.blocks())
    return _Facts(
        worker.RequestClass.Name(identity.request_class).removeprefix("REQUEST_CLASS_").lower(),
        len(request.tools),
        sum(block["type"] == "tool_use" for block in blocks),
        body_bytes // _BYTES_PER_TOKEN,
    )


def _fits(rule: AutoRule, facts: _Facts) -> bool:
    return (
        (not rule.classes or facts.request_class in rule.classes)
        and rule.tools_offered in (None, facts.tools_offered > 0)
        and rule.tools_used in (None, facts.tools_used > 0)
        and facts.tokens >= rule.over_tokens
    )


def _ordered(modes: tuple[str, ...], why: str, facts: _Facts, windows: Mapping[str, int]) -> Choice:
    short = tuple(mode for mode in modes if 0 < windows.get(mode, 0) < facts.tokens)
    roomy = tuple(mode for mode in modes if mode not in short)
    told = "".join(f"; window of {mode} is {windows[mode]}" for mode in short)
    return Choice(roomy + short, f"{why} ({facts}){told}")
