"""Random conversations: they append, edit anywhere, repeat, fork and begin anew."""

import random

from tests.unit.mlx.kv.kv_engine import words

# The prefix takes more than one chunk and passes every window. The longest prompt needs more than
# the 256 tokens that mlx-lm's caches first make space for.
STABLE = 70
LONGEST = 280


class Conversations:
    """Random sessions over one shared prefix."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.stable = words(self.rng, STABLE)
        self.prompts = {"a": self.stable + words(self.rng, 20)}

    def next(self) -> tuple[str, list[int]]:
        rng = self.rng
        session = rng.choice(list(self.prompts))
        prompt = self.prompts[session]
        action = rng.choice(["append", "append", "append", "edit", "repeat", "fork", "new"])
        if action == "append":
            prompt = prompt + words(rng, rng.randrange(1, 40))
        elif action == "edit":
            at = rng.randrange(len(prompt))
            prompt = prompt[:at] + words(rng, 1) + prompt[at + 1 :]
        elif action == "fork":
            session = f"s{rng.randrange(4)}"
            prompt = prompt[: rng.randrange(1, len(prompt) + 1)] + words(rng, 10)
        elif action == "new":
            session = f"s{rng.randrange(4)}"
            prompt = self.stable + words(rng, 20)
        self.prompts[session] = prompt[:LONGEST]
        return session, self.prompts[session]
