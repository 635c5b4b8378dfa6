"""The demo model's tokenizer: byte-level BPE, trained on the corpus and on the answers.

Invariants: control tokens come last and are not part of the BPE merges, so text that is encoded
without the added tokens never contains one; decoding returns every byte.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.demo_model.words import ANSWERS, CONTROL_TOKENS, MARKUP_TOKENS, Cue

VOCABULARY_TOKENS = 4096
# Repeated so that merges cover the answers well: fewer tokens, so less to get wrong.
_ANSWER_REPEATS = 400


def train(corpus: Sequence[str]) -> Tokenizer:
    """Train the tokenizer; its size is exactly `VOCABULARY_TOKENS`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    added = [
        *(AddedToken(text, special=True, normalized=False) for text in CONTROL_TOKENS),
        *(AddedToken(text, special=False, normalized=False) for text in MARKUP_TOKENS),
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_TOKENS - len(added),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_texts(corpus), trainer)
    tokenizer.add_tokens(added)
    if tokenizer.get_vocab_size() != VOCABULARY_TOKENS:
        raise ValueError(f"{tokenizer.get_vocab_size()} tokens trained: the corpus is too small")
    return tokenizer


def _training_texts(corpus: Sequence[str]) -> Iterator[str]:
    yield from corpus
    plain = [_without_markup(answer) for answer in ANSWERS.values()]
    for _ in range(_ANSWER_REPEATS):
        yield from plain


def _without_markup(text: str) -> str:
    for token in MARKUP_TOKENS:
        text = text.replace(token, "")
    return text


@dataclass(frozen=True)
class Vocabulary:
    """Token ids of everything that training sequences are made of."""

    tokenizer: Tokenizer
    corpus: Sequence[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer, corpus: Sequence[str]) -> "Vocabulary":
        encoded = tokenizer.encode_batch(list(corpus), add_special_tokens=False)
        return cls(tokenizer, [token for one in encoded for token in one.ids])

    def ids(self, text: str) -> list[int]:
        """Encode `text`, control tokens included."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def answer(self, cue: Cue) -> list[int]:
        return self.ids(ANSWERS[cue])
