"""Encoding piece by piece: the ids of encoding all at once, and each piece only once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import AddedToken, normalizers

from anyclaude.mlx.prompt.control_tokens import ControlTokens
from anyclaude.mlx.prompt.pieces import PieceEncoder
from tests.models.templates import CHATML
from tests.models.tokenizers import Style, byte_level, control_texts, tokenizer, wrap


def _encoder(wrapper: TokenizerWrapper, cache_bytes: int = 1 << 20) -> PieceEncoder:
    added = wrapper.added_tokens_decoder.values()
    return PieceEncoder(wrapper, ControlTokens(added), cache_bytes)


def _at_once(wrapper: TokenizerWrapper, text: str) -> list[int]:
    ids: list[int] = wrapper.encode(text, add_special_tokens=False)
    return ids


_WORDS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["def render(messages):\n", "  ", "\n\n", " the quick", "'s", "🦊", "e\u0301", "▁", "123"]
)
_RENDERED = st.lists(_WORDS | st.sampled_from(control_texts("chatml"))).map("".join)


@pytest.mark.parametrize("style", ["byte_level", "metaspace"])
@given(rendered=_RENDERED)
@settings(deadline=None, database=None)
def test_piecewise_is_exact(style: Style, rendered: str) -> None:
    """The ids are those that the tokenizer gives for the whole text."""
    wrapper = tokenizer("chatml", style)
    assert _encoder(wrapper).encode(rendered).token_ids.tolist() == _at_once(wrapper, rendered)


def test_tokens_that_swallow_space_are_exact() -> None:
    """Whitespace that an added token removes is encoded with the token."""
    wrapper = wrap(byte_level(), CHATML, ("<s>", "</s>"))
    wrapper.add_tokens([AddedToken("<|user|>", rstrip=True), AddedToken("<mask>", lstrip=True)])
    rendered = "a <|user|> \n hi there <mask> you <mask>"
    assert _encoder(wrapper).encode(rendered).token_ids.tolist() == _at_once(wrapper, rendered)


def test_starts_are_the_tokens_before_each_piece() -> None:
    """Every piece begins where the tokens of the pieces before it end."""
    wrapper = tokenizer("chatml")
    encoded = _encoder(wrapper).encode("<|im_start|>user\nhello there<|im_end|>\n")
    assert encoded.pieces == ["", "<|im_start|>", "user\nhello there", "<|im_end|>", "\n"]
    parts = zip(encoded.pieces, encoded.starts, encoded.starts[1:], strict=False)
    for piece, start, end in parts:
        assert encoded.token_ids[start:end].tolist() == _at_once(wrapper, piece)
    assert encoded.starts[-1] == len(encoded.token_ids)


def test_a_normalizer_cannot_make_control_tokens() -> None:
    """Text that the tokenizer itself rewrites into an added token stays text."""
    built = byte_level()
    built.normalizer = normalizers.NFKC()
    wrapper = wrap(built, CHATML, ("<s>", "</s>"))
    wrapper.add_tokens([AddedToken("<mask>", normalized=True)])
    mask = wrapper.convert_tokens_to_ids("<mask>")
    wide = "say \uff1cmask\uff1e now"
    assert mask in _at_once(wrapper, wide)
    assert mask not in _encoder(wrapper).encode(wide).token_ids.tolist()


class _Counting(TokenizerWrapper):
    """Records the texts that were encoded."""

    def encode(self, text: str, **options: bool) -> list[int]:
        self._encoded = [*getattr(self, "_encoded", []), text]
        ids: list[int] = self._tokenizer.encode(text, **options)
        return ids

    def encoded(self) -> list[str]:
        texts, self._encoded = list(self._encoded), []
        return texts


def test_a_piece_is_encoded_once() -> None:
    """A prompt that has grown costs only its new pieces."""
    wrapper = _Counting(tokenizer("chatml")._tokenizer)
    encoder = _encoder(wrapper)
    history = "<|im_start|>user\nquestion<|im_end|>\n"
    encoder.encode(history)
    wrapper.encoded()
    encoder.encode(history + "<|im_start|>user\nanother<|im_end|>\n")
    assert wrapper.encoded() == ["user\nanother"]


def test_the_cache_is_bounded_in_bytes() -> None:
    """Over the limit, the least recently used piece is evicted and encoded again later."""
    wrapper = _Counting(tokenizer("chatml")._tokenizer)
    encoder = _encoder(wrapper, cache_bytes=2_000)
    encoder.encode("first" * 20)
    encoder.encode("second" * 20)
    encoder.encode("first" * 20)
    encoder.encode("third" * 20)
    wrapper.encoded()
    encoder.encode("first" * 20)
    assert wrapper.encoded() == []
    encoder.encode("second" * 20)
    assert wrapper.encoded() == ["second" * 20]
