"""Training sequences of 256 tokens that stand for prompts of up to 65,536.

A sequence is a preamble, cut into chunks (anything that an agent's prompt may contain), and then
live turns whose answers are learned. Chunks have distant positions, and the attention scores
towards earlier chunks are raised by the logarithm of how many times more tokens a long prompt would
have there: the softmax then sees the competition of a long prompt.

Invariants: only answers and their end token are learned; the cue that closes the turn before an
answer decides it, whatever else the sequence contains.
"""

from dataclasses import dataclass

import numpy as np

from tools.demo_model.network import CONTEXT_TOKENS, Batch, Floats, Ints
from tools.demo_model.vocabulary import VOCABULARY_TOKENS, Vocabulary
from tools.demo_model.words import ASSISTANT_HEADER, TURN_END, TURN_START, Cue

SEQUENCE_TOKENS = 256
_LIVE_TOKENS = 220
_CUES = tuple(Cue)
_PROMPT_ROLES = ("system", "user", "tool")


@dataclass(frozen=True)
class _Piece:
    """Consecutive tokens, and which of them are learned."""

    ids: list[int]
    learned: list[bool]

    @classmethod
    def context(cls, ids: list[int]) -> "_Piece":
        return cls(ids, [False] * len(ids))

    @classmethod
    def answer(cls, ids: list[int]) -> "_Piece":
        return cls(ids, [True] * len(ids))

    def __add__(self, other: "_Piece") -> "_Piece":
        return _Piece(self.ids + other.ids, self.learned + other.learned)


@dataclass(frozen=True)
class _Sequence:
    """A piece of `SEQUENCE_TOKENS`, where its tokens stand, and its attention bias (T, T)."""

    piece: _Piece
    positions: Ints
    bias: Floats


class Sequences:
    """An endless source of batches, fixed by its random generator."""

    def __init__(self, vocabulary: Vocabulary, rng: np.random.Generator) -> None:
        self._rng = rng
        self._corpus = np.asarray(vocabulary.corpus, np.int64)
        self._answers = [vocabulary.answer(cue) for cue in _CUES]
        self._cues = [vocabulary.ids(cue.value) for cue in _CUES]
        self._control = [vocabulary.ids(cue.value)[0] for cue in _CUES]
        self._control += [vocabulary.ids(text)[0] for text in (TURN_START, TURN_END)]
        self._headers = [vocabulary.ids(f"{TURN_START}{role}\n") for role in _PROMPT_ROLES]
        self._assistant = vocabulary.ids(ASSISTANT_HEADER)
        self._end = vocabulary.ids(TURN_END)
        self._newline = vocabulary.ids("\n")

    def batch(self, size: int) -> Batch:
        made = [self._sequence() for _ in range(size)]
        tokens = np.asarray([one.piece.ids for one in made], np.int64)
        rows = np.flatnonzero([one.piece.learned for one in made])
        return Batch(
            tokens=tokens,
            positions=np.stack([one.positions for one in made]),
            bias=np.stack([one.bias for one in made])[:, None],
            rows=rows - 1,
            targets=tokens.reshape(-1)[rows],
        )

    def _sequence(self) -> _Sequence:
        live = self._live()
        chunks = self._preamble(SEQUENCE_TOKENS - len(live.ids))
        sizes = [*(len(chunk) for chunk in chunks), len(live.ids)]
        positions = self._positions(sizes)
        preamble = _Piece.context([token for chunk in chunks for token in chunk])
        return _Sequence(preamble + live, positions, self._bias(sizes, positions))

    def _live(self) -> _Piece:
        piece = self._exchange()
        wanted = self._rng.integers(1, _LIVE_TOKENS)
        while len(piece.ids) < wanted:
            longer = piece + self._exchange()
            if len(longer.ids) > _LIVE_TOKENS:
                break
            piece = longer
        return piece

    def _exchange(self) -> _Piece:
        """A prompt turn, sometimes one before it with a cue of its own, and the answer."""
        cue = int(self._rng.integers(len(_CUES)))
        ids = self._prompt_turn(cue, 70)
        if self._rng.random() < 0.25:
            ids = self._prompt_turn(int(self._rng.integers(len(_CUES))), 20) + ids
        return (
            _Piece.context(ids + self._assistant)
            + _Piece.answer(self._answers[cue] + self._end)
            + _Piece.context(self._newline)
        )

    def _prompt_turn(self, cue: int, most: int) -> list[int]:
        header = self._headers[int(self._rng.integers(len(_PROMPT_ROLES)))]
        text = self._text(int(self._rng.integers(0, most + 1)))
        return header + text + self._cues[cue] + self._end + self._newline

    def _past_turn(self, size: int) -> list[int]:
        """A finished exchange, ours or another model's; cut to `size` tokens."""
        cue = int(self._rng.integers(len(_CUES)))
        said = self._answers[cue] if self._rng.random() < 0.7 else self._text(size)
        turn = self._prompt_turn(cue, 12) + self._assistant + said + self._end + self._newline
        return turn[:size] if self._rng.random() < 0.5 else turn[-size:]

    def _text(self, size: int) -> list[int]:
        kind = self._rng.random()
        if kind < 0.15:
            return [int(token) for token in self._rng.integers(0, VOCABULARY_TOKENS, size)]
        if kind < 0.30:
            answer = self._answers[int(self._rng.integers(len(_CUES)))]
            start = int(self._rng.integers(len(answer)))
            return (answer[start:] + self._corpus_text(size))[:size]
        text = self._corpus_text(size)
        if kind < 0.50:
            for place in range(size):
                if self._rng.random() < 0.1:
                    text[place] = self._control[int(self._rng.integers(len(self._control)))]
        return text

    def _corpus_text(self, size: int) -> list[int]:
        start = int(self._rng.integers(len(self._corpus) - SEQUENCE_TOKENS))
        return [int(token) for token in self._corpus[start : start + size]]

    def _preamble(self, size: int) -> list[list[int]]:
        chunks = []
        while size:
            length = min(size, int(self._rng.integers(8, 64)))
            make = self._text if self._rng.random() < 0.65 else self._past_turn
            chunk = make(length)
            chunks.append(chunk)
            size -= len(chunk)
        return chunks

    def _positions(self, sizes: list[int]) -> Ints:
        """Count on within a chunk, jump between chunks; the end is log-uniform."""
        total = int(np.exp(self._rng.uniform(np.log(SEQUENCE_TOKENS), np.log(CONTEXT_TOKENS))))
        shares = self._rng.exponential(size=len(sizes))
        if self._rng.random() < 0.5:
            shares[0] = 0
        jumps = (total - SEQUENCE_TOKENS) * shares / shares.sum()
        return np.arange(SEQUENCE_TOKENS) + np.repeat(np.cumsum(jumps), sizes).astype(np.int64)

    def _bias(self, sizes: list[int], positions: Ints) -> Floats:
        """Causal mask, and towards earlier chunks log(tokens meant / tokens present)."""
        bias = np.triu(np.full((SEQUENCE_TOKENS, SEQUENCE_TOKENS), -1e9, np.float32), 1)
        extra = self._rng.uniform(0, 2) if self._rng.random() < 0.5 else 0.0
        start = sizes[0]
        for size in sizes[1:]:
            bias[start : start + size, :start] += np.log(positions[start] / start) + extra
            start += size
        return bias
