"""Mode auto: which modes a request may take, in order, by a policy that people can read.

A mode is used only when the policy names it, so nothing leaves this machine unless its owner wrote
so; without rules of their own, the servers of this machine are all there is.
"""

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
        self, request: CountTokensRequest, identity: worker.Identity, body_bytes: int
    ) -> Choice:
        """The first rule that fits, else the servers of this machine."""
        tokens = body_bytes // _BYTES_PER_TOKEN
        kind = worker.RequestClass.Name(identity.request_class)
        name = kind.removeprefix("REQUEST_CLASS_").lower()
        facts = f"class {name}, {len(request.tools)} tools, about {tokens} tokens"
        for number, rule in enumerate(self._rules, 1):
            if _fits(rule, name, has_tools=bool(request.tools), tokens=tokens):
                return Choice(tuple(rule.use), f"rule {number} ({facts})")
        return Choice(self._default, f"no rule, servers of this machine ({facts})")


def _fits(rule: AutoRule, name: str, *, has_tools: bool, tokens: int) -> bool:
    return (
        (not rule.classes or name in rule.classes)
        and rule.tools_offered in (None, has_tools)
        and tokens >= rule.over_tokens
    )
