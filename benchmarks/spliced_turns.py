"""What `model.spliced_turns` changes for a model: its answers, and the tokens it has to compute.

    python -m benchmarks.spliced_turns [--model PATH] [--conversations N] [--turns N]

The same conversations, sampled greedily, go to two services side by side: one puts answers back in
the model's own tokens, the other as its template writes them. After answers that differ, both
continue with the latter's, so every turn compares answers to the same conversation, written in two
ways. Turn the setting on for a model whose answers agree, or get better.
"""

import argparse
import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx

from benchmarks.prompts import WORDS
from tests.integration.service import Service
from tests.models.requests import BASH, assistant, result, user

_SYSTEM = "You are a coding assistant. Use tools to look before you answer. " * 20


class Side:
    """One of the two services."""

    def __init__(self, service: Service) -> None:
        self._http = service.ready().http()
        self.computed = 0

    def ask(self, messages: list[dict[str, Any]], session: str) -> dict[str, Any]:
        body = {
            "model": "any",
            "max_tokens": 400,
            "temperature": 0,
            "system": _SYSTEM,
            "tools": [BASH],
            "messages": messages,
        }
        headers = {"x-claude-code-session-id": session}
        response = self._http.post("/v1/messages", json=body, headers=headers)
        if response.status_code != httpx.codes.OK:
            raise SystemExit(f"the model did not answer: {response.text}")
        answer: dict[str, Any] = response.json()
        usage = answer["usage"]
        self.computed += usage["input_tokens"] + usage["cache_creation_input_tokens"]
        return answer


def _says(answer: dict[str, Any]) -> str:
    """An answer without its random ids."""
    kept = [
        {key: value for key, value in block.items() if key not in ("id", "signature")}
        for block in answer["content"]
    ]
    return json.dumps(kept)


def _next(answer: dict[str, Any], rng: random.Random) -> list[dict[str, Any]]:
    """The answer as it came, and the client's next turn."""
    said = assistant(*answer["content"])
    uses = [block["id"] for block in answer["content"] if block["type"] == "tool_use"]
    words = " ".join(rng.sample(WORDS, 6))
    if uses:
        return [said, user(*(result(use, f"{words}: found") for use in uses))]
    return [said, user(f"Now run `{words.split()[0]}` and say what it shows.")]


def _conversation(
    plain: Side, spliced: Side, seed: int, turns: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yields the answers of both sides, turn by turn."""
    rng = random.Random(seed)
    told = heard = [user(f"Run `ls {rng.choice(WORDS)}` and say what is there.")]
    for turn in range(turns):
        one, other = plain.ask(told, f"plain-{seed}"), spliced.ask(heard, f"spliced-{seed}")
        yield one, other
        # Call ids are random, so each side continues with its own answer if they are equal. If they
        # differ, `spliced` continues with the other's, which is rendered.
        echo = other if _says(one) == _says(other) else one
        told = [*told, *_next(one, random.Random(f"{seed} {turn}"))]
        heard = [*heard, *_next(echo, random.Random(f"{seed} {turn}"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="", help="a model folder; the demo model without one")
    parser.add_argument("--conversations", type=int, default=10)
    parser.add_argument("--turns", type=int, default=8)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        sides = [
            Side(
                stack.enter_context(
                    Service(model=arguments.model, ANYCLAUDE__MODEL__SPLICED_TURNS=setting)
                )
            )
            for setting in ("false", "true")
        ]
        plain, spliced = sides
        pairs = [
            pair
            for seed in range(arguments.conversations)
            for pair in _conversation(plain, spliced, seed, arguments.turns)
        ]
    agreeing = sum(_says(one) == _says(other) for one, other in pairs)
    print(f"answers that agree: {agreeing} of {len(pairs)}")
    print(f"tokens computed: {plain.computed} as the template writes, {spliced.computed} spliced")


if __name__ == "__main__":
    main()
