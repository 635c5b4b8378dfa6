"""Draws measurements as horizontal bars in an SVG file, one group of bars for each row.

Lengths are logarithmic, since first tokens with and without a cache differ by a factor of hundreds.
Each bar has its value beside it. The picture uses no script and no font of its own, so that any
browser and GitHub show it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

_COLOURS: Final = ("#2f6f4f", "#c26b1f", "#4a6fa5", "#8a5a83", "#777777")
_WIDTH: Final = 760
_LABEL: Final = 250
_VALUE: Final = 90
_BAR: Final = 16
_GAP: Final = 10
_HEAD: Final = 56


@dataclass(frozen=True)
class Bar:
    """A value, larger than zero, and its text."""

    value: float
    text: str


def draw(title: str, groups: Mapping[str, Mapping[str, Bar]]) -> str:
    """An SVG document. `groups` maps the name of a row to its bars, by the name of their series."""
    series = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    values = [bar.value for bars in groups.values() for bar in bars.values()]
    scale = _Scale(min(values), max(values))
    parts = [_text(0, 18, title, weight="bold"), *_legend(series)]
    top = _HEAD
    for name, bars in groups.items():
        middle = top + len(bars) * _BAR / 2 + 4
        parts.append(_text(_LABEL - 8, middle, name, anchor="end"))
        for key, bar in bars.items():
            colour = _COLOURS[series.index(key) % len(_COLOURS)]
            parts.append(_bar(top, scale.length(bar.value), colour, bar.text))
            top += _BAR
        top += _GAP
    return _document(parts, top)


@dataclass(frozen=True)
class _Scale:
    """Maps values to lengths; the smallest value has a tenth of the largest one's length."""

    low: float
    high: float

    def length(self, value: float) -> float:
        span = math.log(self.high / self.low) or 1.0
        part = math.log(value / self.low) / span if self.high > self.low else 1.0
        return (_WIDTH - _LABEL - _VALUE) * (0.1 + 0.9 * part)


def _bar(top: float, length: float, colour: str, text: str) -> str:
    box = f'x="{_LABEL}" y="{top + 1}" width="{length:.1f}" height="{_BAR - 2}" fill="{colour}"'
    return f"<rect {box}/>{_text(_LABEL + length + 6, top + _BAR - 4, text)}"


def _legend(series: Sequence[str]) -> list[str]:
    """Nothing for a single series, whose name the title has."""
    parts, left = [], 0.0
    for number, name in enumerate(series if len(series) > 1 else ()):
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<rect x="{left}" y="32" width="11" height="11" fill="{colour}"/>')
        parts.append(_text(left + 16, 42, name))
        left += 40 + 7 * len(name)
    return parts


def _text(
    left: float, base: float, text: str, anchor: str = "start", weight: str = "normal"
) -> str:
    place = f'x="{left:.1f}" y="{base:.1f}" text-anchor="{anchor}" font-weight="{weight}"'
    return f"<text {place}>{escape(text)}</text>"


def _document(parts: Sequence[str], height: float) -> str:
    size = f'width="{_WIDTH}" height="{height:.0f}" viewBox="0 0 {_WIDTH} {height:.0f}"'
    font = 'font-family="sans-serif" font-size="12" fill="#222"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>\n"])
