"""The demo model's build: its network, its training sequences, and a short rebuild."""

from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tokenizers import Tokenizer

from anyclaude.mlx import demo
from tools.demo_model import build, network
from tools.demo_model.sequences import SEQUENCE_TOKENS, Sequences
from tools.demo_model.train import train
from tools.demo_model.vocabulary import VOCABULARY_TOKENS, Vocabulary
from tools.demo_model.words import ASSISTANT_HEADER, TURN_END, Cue


@pytest.fixture
def batch() -> network.Batch:
    """Random tokens at ordinary positions under a plain causal mask."""
    rng, length = np.random.default_rng(3), 24
    tokens = rng.integers(0, VOCABULARY_TOKENS, (2, length))
    mask = np.triu(np.full((length, length), -1e9, np.float32), 1)
    rows = np.flatnonzero(np.arange(2 * length) % length < length - 1)
    return network.Batch(
        tokens=tokens,
        positions=np.tile(np.arange(length), (2, 1)),
        bias=np.tile(mask, (2, 1, 1, 1)),
        rows=rows,
        targets=tokens.reshape(-1)[rows + 1],
    )


def test_forward_pass_is_mlx_lms(batch: network.Batch) -> None:
    """At ordinary positions training computes what mlx-lm computes: the logits agree."""
    trained = network.Network(np.random.default_rng(7))
    model = mlx_lm.load(str(demo.MODEL_PATH))[0]
    model.load_weights(tree_flatten(trained.parameters()))

    theirs = np.array(model(mx.array(batch.tokens))).reshape(-1, VOCABULARY_TOKENS)[batch.rows]

    np.testing.assert_allclose(np.array(trained.logits(batch)), theirs, atol=2e-4)


def test_training_learns(batch: network.Batch) -> None:
    """A few steps on the same sequences lower the loss each time."""

    class Same:
        def batch(self, _: int) -> network.Batch:
            return batch

    losses: list[float] = []
    train(Same(), np.random.default_rng(7), 6, lambda _, loss: losses.append(loss))

    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


@pytest.fixture
def vocabulary() -> Vocabulary:
    """The committed tokenizer over a short corpus."""
    tokenizer = Tokenizer.from_file(str(demo.MODEL_PATH / "tokenizer.json"))
    return Vocabulary.of(tokenizer, [Path(network.__file__).read_text(encoding="utf-8")])


def test_sequences_teach_the_rule(vocabulary: Vocabulary) -> None:
    """Every learned run is the answer to the cue that closes the turn before it, and its end."""
    batch = Sequences(vocabulary, np.random.default_rng(5)).batch(32)
    flat = batch.tokens.reshape(-1)
    runs = np.split(batch.rows, np.flatnonzero(np.diff(batch.rows) > 1) + 1)
    end = vocabulary.ids(TURN_END)
    header = vocabulary.ids(TURN_END + "\n" + ASSISTANT_HEADER)
    by_cue = {vocabulary.ids(cue.value)[0]: vocabulary.answer(cue) + end for cue in Cue}
    for run in runs:
        start = run[0] + 1
        assert flat[start - len(header) : start].tolist() == header
        assert flat[run + 1].tolist() == by_cue[int(flat[start - len(header) - 1])]
    assert len({int(flat[run[0] - len(header)]) for run in runs}) == len(Cue)


def test_sequences_stand_for_long_prompts(vocabulary: Vocabulary) -> None:
    """Positions rise without repeating and reach the context window; no token looks ahead."""
    batch = Sequences(vocabulary, np.random.default_rng(5)).batch(64)
    assert batch.tokens.shape == (64, SEQUENCE_TOKENS)
    assert (np.diff(batch.positions, axis=1) >= 1).all()
    assert batch.positions.max() < network.CONTEXT_TOKENS
    assert batch.positions[:, -1].max() > 40_000
    ahead = np.triu(np.ones((SEQUENCE_TOKENS, SEQUENCE_TOKENS), np.bool), 1)
    assert (batch.bias[:, 0][:, ahead] <= -1e8).all()
    assert (batch.bias[:, 0][:, ~ahead] >= 0).all()


def test_rebuild_writes_a_loadable_folder(tmp_path: Path) -> None:
    """The build runs from nothing but the Python install and writes what mlx-lm loads."""
    build.build(tmp_path / "model", steps=1, seed=1)
    _, tokenizer, *_ = mlx_lm.load(str(tmp_path / "model"))
    assert len(tokenizer) == VOCABULARY_TOKENS
    written = {path.name for path in (tmp_path / "model").iterdir()}
    assert written == {path.name for path in demo.MODEL_PATH.iterdir()}
