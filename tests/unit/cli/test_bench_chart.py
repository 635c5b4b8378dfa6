"""The picture of a benchmark: valid SVG whose bars are as long as their values tell."""

from xml.etree import ElementTree

from anyclaude.cli.bench.chart import Bar, draw

_SVG = "{http://www.w3.org/2000/svg}"


def _bars(document: str) -> list[float]:
    """The widths of the bars from top to bottom."""
    boxes = ElementTree.fromstring(document).iter(f"{_SVG}rect")
    return [float(box.attrib["width"]) for box in boxes if box.attrib["height"] == "14"]


def _texts(document: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(document).iter(f"{_SVG}text")]


def test_larger_values_have_longer_bars() -> None:
    """Each bar has its text; equal ratios add equal lengths."""
    bars = {f"row {value}": {"all": Bar(value, f"{value} ms")} for value in (1, 10, 100)}
    document = draw("Title", bars)
    one, ten, hundred = _bars(document)

    assert one < ten < hundred
    assert abs((ten - one) - (hundred - ten)) < 1
    assert {"Title", "row 10", "10 ms"} <= set(_texts(document))


def test_series_have_a_legend_and_a_colour_each() -> None:
    """Two servers in a row are told apart, whatever their names contain."""
    names = ("<a> & b", "c")
    document = draw("Title", {"row": {name: Bar(2.0, "2 s") for name in names}})
    colours = {box.get("fill") for box in ElementTree.fromstring(document).iter(f"{_SVG}rect")}

    assert set(names) <= set(_texts(document))
    assert len(colours) == 1 + len(names)
    assert len(set(_bars(document))) == 1
