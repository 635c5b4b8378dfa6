"""Tries, when the model is loaded, whether its template's renderings can be continued.

Random conversations of every kind of turn grow message by message, with a digest as short as can
be, and each continued text is compared with the whole rendering. One difference, and this model's
conversations are always rendered whole.
"""

import random
from collections.abc import Iterator
from typing import Final

from anyclaude.mlx.prompt.canonical import Conversation, TemplateMessage
from anyclaude.mlx.prompt.continuation import Continuation, Rendering, Shaped
from anyclaude.mlx.prompt.dialect import Dialect
from anyclaude.mlx.prompt.probe import TOOL, calls, result, said
from anyclaude.mlx.prompt.template import TemplateRefused

# As short as a digest gets: conversations of the trial need not be long.
TRIAL_DIGEST_MESSAGES: Final = 4
_TRIALS: Final = 4
_TURNS: Final = 9


def can_continue(continuation: Continuation, dialect: Dialect) -> bool:
    """Whether every continued text is that of a whole rendering."""
    return all(
        _is_exact(continuation, dialect, random.Random(seed), thinking=bool(seed % 2))  # noqa: S311 - no secret
        for seed in range(_TRIALS)
    )


def _is_exact(
    continuation: Continuation, dialect: Dialect, rng: random.Random, thinking: bool
) -> bool:
    messages: list[TemplateMessage] = [said("user", "trial-ask")]
    before: Rendering | None = None
    for turn in range(_TURNS):
        conversation = Conversation(("trial-system",), tuple(messages), ())
        shaped = Shaped.of(dialect.shape(conversation))
        try:
            whole = continuation.whole(shaped, [TOOL], thinking)
        except TemplateRefused:
            return True
        going_on = before and continuation.continued(before, shaped, [TOOL], thinking)
        if going_on and going_on.text != whole.text:
            return False
        before = going_on or whole
        messages += _turn(rng, turn)
    return True


def _turn(rng: random.Random, turn: int) -> Iterator[TemplateMessage]:
    """An answer and what follows it."""
    words = f"trial-{turn}"
    thoughts = {"reasoning_content": f"{words}-thought"} if rng.random() < 0.5 else {}
    if rng.random() < 0.4:
        yield {"role": "assistant", "content": f"{words}-answer", **thoughts}
        yield said("user", f"{words}-more")
    else:
        numbers = [2 * turn, 2 * turn + 1][: rng.randint(1, 2)]
        yield calls(*numbers, content=rng.choice(["", f"{words}-words"]), **thoughts)
        for number in numbers:
            yield result(number, f"{words}-result-{number}", name="lookup")
        if rng.random() < 0.2:
            yield said("user", f"{words}-interruption")
    if rng.random() < 0.2:
        yield said("system", f"{words}-late")
