"""Which drafts are proposed, and when they are worth a pass."""

import random

import pytest

from anyclaude.mlx.engine.drafts import (
    Drafter,
    DraftLimits,
    Match,
    PassCosts,
    latest_match,
)
from anyclaude.mlx.tokens import token_array

LIMITS = DraftLimits(most_tokens=15, least_match=3)


def costs(**multiples: float) -> PassCosts:
    """Measured costs, as multiples of one token's, for passes such as `of2`."""
    measured = PassCosts()
    for name, multiple in {"of1": 1.0, **multiples}.items():
        for _ in range(4):
            measured.add(int(name.removeprefix("of")), multiple)
    return measured


CHEAP = {"of2": 1.02, "of4": 1.05, "of8": 1.1, "of16": 1.2}
# A processor whose passes cost almost as much as their tokens.
DEAR = {"of2": 2.0, "of4": 4.0, "of8": 8.0, "of16": 20.0}


def drafted(drafter: Drafter, text: list[int], begin: int) -> list[int]:
    """How many drafts each token of `text` from `begin` on would get, behind those before it."""
    numbers = []
    for length in range(begin, len(text)):
        drafter.observe(token_array(text[:length]))
        promising = drafter.is_promising
        drafts = drafter.drafts(token_array(text[:length]), text[length], 15) if promising else []
        numbers.append(len(drafts))
    return numbers


@pytest.mark.parametrize(
    ("text", "least", "match"),
    [
        ([1, 2, 3, 9, 1, 2, 3], 3, Match(3, 3)),
        ([1, 2, 3, 9, 1, 2, 3], 4, None),
        # The longest run of equal tokens wins, and the latest of equally long ones.
        ([7, 1, 2, 3, 4, 1, 2, 5, 7, 1, 2], 2, Match(3, 3)),
        ([1, 2, 3, 1, 2, 4, 1, 2], 2, Match(5, 2)),
        # A run may overlap with the last tokens.
        ([5, 5, 5, 5], 2, Match(3, 3)),
        ([1, 2, 3], 1, None),
        ([1], 1, None),
    ],
)
def test_the_longest_and_latest_match_is_found(
    text: list[int], least: int, match: Match | None
) -> None:
    """Prompt lookup finds where the last tokens came before."""
    assert latest_match(token_array(text), least) == match


def test_a_copy_gets_long_drafts() -> None:
    """What is copied from the prompt is drafted up to the limit where passes are cheap."""
    text = random.Random(1).choices(range(1000), k=80)
    numbers = drafted(Drafter(LIMITS, costs(**CHEAP)), text + text, 80)
    assert max(numbers) == LIMITS.most_tokens
    assert sum(number > 0 for number in numbers) > 60


def test_prose_stops_the_drafts_and_a_copy_resumes_them() -> None:
    """Matches that go on differently stop drafts; right guesses bring them back."""
    rng = random.Random(2)
    phrase, file = [1, 2, 3], [rng.randrange(10, 1000) for _ in range(80)]
    prose = [
        token for _ in range(40) for token in (*phrase, *(rng.choices(range(1000, 9000), k=3)))
    ]
    drafter = Drafter(LIMITS, costs(of2=1.4, of4=1.8, of8=2.5, of16=4.0))
    numbers = drafted(drafter, file + prose + file, len(file))
    behind_prose = numbers[len(prose) // 2 : len(prose)]
    assert not any(behind_prose)
    assert max(numbers[len(prose) :]) == LIMITS.most_tokens


def test_nothing_is_drafted_where_passes_cost_as_much_as_their_tokens() -> None:
    """The measured cost of a pass switches drafts off, however good the guesses are."""
    text = random.Random(3).choices(range(1000), k=60)
    assert not any(drafted(Drafter(LIMITS, costs(**DEAR)), text + text, 60))


def test_unknown_costs_are_tried_from_small_to_large() -> None:
    """A size that was never measured is tried only if the next smaller one was worth it."""
    text = random.Random(4).choices(range(1000), k=60)
    measured = costs(of2=2.0, of4=4.0)
    assert not any(drafted(Drafter(LIMITS, measured), text + text, 60))
    measured = costs(of2=1.1, of4=1.2)
    assert max(drafted(Drafter(LIMITS, measured), text + text, 60)) > 3


def test_the_first_pass_of_a_size_is_not_measured() -> None:
    """The first pass compiles kernels, so it says nothing about the cost."""
    measured = PassCosts()
    for tokens, seconds in [(1, 9.0), (1, 1.0), (1, 1.0), (4, 50.0), (4, 1.5), (4, 1.5)]:
        measured.add(tokens, seconds)
    assert measured.of(3) == measured.of(4) == 1.5


class Forcing:
    """A grammar that forces some tokens, and allows no copied token above a bound."""

    def __init__(self, forced: list[int], bound: int) -> None:
        self._forced, self._bound = forced, bound

    def advance(self) -> None:
        """Knows everything."""

    def forced(self) -> list[int]:
        return self._forced

    def allowed(self, token_ids: list[int]) -> int:
        return next((n for n, t in enumerate(token_ids) if t > self._bound), len(token_ids))


def test_forced_tokens_are_drafted_first() -> None:
    """Tokens that the grammar forces are drafted without any match."""
    drafter = Drafter(LIMITS, costs(**CHEAP), Forcing([4, 5, 6], 99))
    assert drafter.drafts(token_array([1, 2, 3]), 9, 15) == [4, 5, 6]


def test_a_text_that_repeats_itself_is_drafted_beyond_its_end() -> None:
    """The last tokens are part of a repetition, whose next rounds are drafted."""
    drafter = Drafter(LIMITS, costs(**CHEAP))
    assert drafter.drafts(token_array([1, 2, 3, 1, 2]), 3, 15)[:7] == [1, 2, 3, 1, 2, 3, 1]


def test_drafts_end_where_the_grammar_forbids_them() -> None:
    """A copied text is drafted up to its first token that the grammar does not allow."""
    drafter = Drafter(LIMITS, costs(**CHEAP), Forcing([], 10))
    text = [1, 2, 3, 4, 5, 60, 7, 1, 2]
    assert drafter.drafts(token_array(text), 3, 15) == [4, 5]
