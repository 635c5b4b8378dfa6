"""What a soak measured: the judgement, the table and the plot."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from benchmarks.pages import write_section

_MB: Final = 1_000_000
# By how much the median memory may differ: the larger of both.
_TOLERANCE_FRACTION, _TOLERANCE_BYTES = 0.02, 4 * _MB
_TOLERANCE_DESCRIPTORS: Final = 1
_JUDGED_FRACTION: Final = 0.25
_COLUMNS: Final = (
    *("Process", "Life", "Memory in its second sixth", "after that", "Arrays of MLX"),
    *("after that", "Descriptors", "after that"),
)
_COLOURS: Final = {"daemon": "#0072b2", "frontend": "#009e73", "mlx": "#d55e00", "relay": "#cc79a7"}
_WIDTH, _HEIGHT, _MARGIN = 860, 360, 50
# Every so many samples is a point of the plot.
_PLOTTED: Final = 5


class Sample(NamedTuple):
    seconds: float
    rss_bytes: int
    # What MLX has allocated; 0 of the other processes.
    array_bytes: int
    descriptors: int


@dataclass
class Life:
    """One process, from its first sample to its last."""

    name: str
    samples: list[Sample] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.samples[-1].seconds - self.samples[0].seconds

    def medians(self, of: Callable[[Sample], int]) -> tuple[float, float]:
        """Those of the second sixth of its life, and of the last four."""
        sixth = len(self.samples) // 6
        values = [of(sample) for sample in self.samples]
        return median(values[sixth : 2 * sixth]), median(values[2 * sixth :])


def _rss(sample: Sample) -> int:
    return sample.rss_bytes


def _arrays(sample: Sample) -> int:
    return sample.array_bytes


def _descriptors(sample: Sample) -> int:
    return sample.descriptors


def _judged(lives: Sequence[Life], minutes: float) -> list[Life]:
    return [life for life in lives if life.seconds >= _JUDGED_FRACTION * minutes * 60]


def judge(lives: Sequence[Life], minutes: float) -> list[str]:
    """What grew."""
    grown = []
    for life in _judged(lives, minutes):
        for what, of in (("memory", _rss), ("arrays", _arrays)):
            before, after = life.medians(of)
            if after - before > max(_TOLERANCE_BYTES, _TOLERANCE_FRACTION * before):
                grown.append(f"{what} of {life.name}: {_mb(before)}, then {_mb(after)}")
        before, after = life.medians(_descriptors)
        if after - before > _TOLERANCE_DESCRIPTORS:
            grown.append(f"descriptors of {life.name}: {before:g}, then {after:g}")
    return grown


def table(lives: Sequence[Life], minutes: float) -> str:
    """A row for each life that is judged."""
    head = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n"
    return head + "".join(_row(life) for life in _judged(lives, minutes))


def _row(life: Life) -> str:
    arrays = life.medians(_arrays)
    cells = (
        life.name,
        f"{life.seconds / 60:.1f} min",
        *(_mb(value) for value in life.medians(_rss)),
        *(_mb(value) if any(arrays) else "" for value in arrays),
        *(f"{value:g}" for value in life.medians(_descriptors)),
    )
    return f"| {' | '.join(cells)} |\n"


def _mb(count: float) -> str:
    return f"{count / _MB:.1f} MB"


def write(page: Path, summary: str, rows: str, lives: Sequence[Life]) -> None:
    """Writes the section of the page, and the plot beside it."""
    plot = page.with_name("soak.svg")
    plot.write_text(_plot(lives))
    image = f"![Memory of each process during the soak]({plot.name})\n"
    write_section(page, "make soak", f"{summary}\n{rows}\n{image}")


def _plot(lives: Sequence[Life]) -> str:
    """Memory over time: one line for each life, in the colour of its process."""
    longest = max(life.samples[-1].seconds for life in lives)
    highest = max(sample.rss_bytes for life in lives for sample in life.samples)
    lines = [_line(life, longest, highest) for life in lives]
    legend = [
        f'<text x="{_MARGIN + 110 * place}" y="20" fill="{colour}">{name}</text>'
        for place, (name, colour) in enumerate(_COLOURS.items())
    ]
    bottom = _HEIGHT - _MARGIN
    axes = [
        f'<path d="M{_MARGIN},30 V{bottom} H{_WIDTH - 10}" fill="none" stroke="#666"/>',
        f'<text x="2" y="40">{highest / _MB:.0f} MB</text><text x="2" y="{bottom}">0</text>',
        f'<text x="{_WIDTH - 70}" y="{bottom + 20}">{longest / 60:.0f} min</text>',
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="13">\n<rect width="100%" height="100%" fill="#fff"/>\n'
    )
    return head + "\n".join([*axes, *legend, *lines]) + "\n</svg>\n"


def _line(life: Life, longest: float, highest: int) -> str:
    width, height = _WIDTH - _MARGIN - 10, _HEIGHT - _MARGIN - 30
    points = " ".join(
        f"{_MARGIN + width * sample.seconds / longest:.0f},"
        f"{_HEIGHT - _MARGIN - height * sample.rss_bytes / highest:.0f}"
        for sample in life.samples[::_PLOTTED]
    )
    return f'<polyline points="{points}" fill="none" stroke="{_COLOURS[life.name]}"/>'
