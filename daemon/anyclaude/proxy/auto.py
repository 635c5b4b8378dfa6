"""Mode auto: the modes that may serve a request, in order, by a policy that people can read.

A mode is used only when the policy names it, so nothing leaves this machine unless its owner
configured that. Without rules the policy names the servers of this machine, `mlx-lm` first for
every class: its model is loaded, and a utility call never evicts a main conversation's cache.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from anyclaude.messages.requests import CountTokensRequest
from anyclaude.runtime.settings import AutoRule, Settings
from anyclaude.worker.v1 import worker_pb2 as worker

AUTO: Final = "auto"
# An average of English text and code, since the front end does not tokenise.
_BYTES_PER_TOKEN: Final = 4


@dataclass(frozen=True)
class Choice:
    """The modes to try, in order, and why; the reason is empty when no policy chose."""

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
        """The modes of the first rule that matches, else the servers of this machine.

        Modes whose window (in tokens, if it is known) is shorter than the prompt come last: the
        estimate may be wrong, and the last server's own refusal makes the client shorten its
        conversation.
        """
        facts = _facts(request, identity, body_bytes)
        numbered = (n for n, rule in enumerate(self._rules, 1) if _fits(rule, facts))
        if number := next(numbered, 0):
            return _ordered(tuple(self._rules[number - 1].use), f"rule {number}", facts, windows)
        return _ordered(self._default, "no rule, servers of this machine", facts, windows)


@dataclass(frozen=True)
class _Facts:
    """The properties of a request that rules can match."""

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
    long = tuple(mode for mode in modes if mode not in short)
    notes = "".join(f"; window of {mode} is {windows[mode]}" for mode in short)
    return Choice(long + short, f"{why} ({facts}){notes}")
