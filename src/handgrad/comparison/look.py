"""Look of each cell in the figures of a comparison, and the legend that explains it.

Colours are Okabe and Ito's (2008), safe for colour-blind readers.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from handgrad.comparison.table import Comparison, is_number
from handgrad.text import shortened

Row = Mapping[str, Any]  # a row of the table of cells
Column = tuple[str, Sequence[tuple[str, Mapping[str, Any]]]]  # of a legend: title, texts with the properties of a line

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A7F00", "#999999"]
MARKERS = "osD^vP*X<>ph"
FILLINGS: list[dict[str, Any]] = [{"fillstyle": "full"}, {"markerfacecolor": "white"}]
FILLINGS += [{"fillstyle": half, "markerfacecoloralt": "white"} for half in ("left", "top", "right", "bottom")]
GREY: dict[str, Any] = {"color": "0.3", "linestyle": "none"}
SIGNS = {  # as a legend shows them
    "colour": [{"color": colour, "linewidth": 5} for colour in COLOURS],
    "marker": [GREY | {"marker": marker} for marker in MARKERS],
    "filling": [GREY | {"marker": "o"} | filling for filling in FILLINGS],
}
USUAL = {  # values that keep their look whatever they are compared with
    "activation": ["sigmoid", "tanh", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus"],
    "engine": ["manual", "autograd"],
    "regularizer": ["none", "l2", "dropout", "smoothing", "adversarial"],
    "deform": ["none", "affine", "elastic"],
}
TALLEST = 12  # most cells in a column of a legend
SHORT = 24  # most characters of a value in a column of several
LONGEST = 48  # most characters of a name that leave room for the plot


class Look:
    """Look of each cell: colour by the first varying key, marker by the second, filling by the third.

    The swept option comes last, since one figure has it as an axis. Further keys take further markers; so do values
    beyond the last colour or filling. Beyond the last marker, markers start again with further fillings.
    """

    def __init__(self, comparison: Comparison) -> None:
        keys = sorted(comparison.varying, key=lambda key: key == comparison.swept)
        self.keys = {"colour": keys[:1], "marker": [*keys[1:2], *keys[3:]], "filling": keys[2:3]}
        self.places = {key: places_of(key, comparison.values[key]) for key in keys}
        self.sizes = {key: 1 + max(places.values()) for key, places in self.places.items()}
        self.names = comparison.names

    def numbers(self, row: Row) -> list[int]:
        """Return the numbers of a cell's colour, marker and filling."""
        numbers, sizes = [0, 0, 0], [1, 1, 1]
        for place, keys in enumerate(self.keys.values()):
            for key in keys:
                numbers[place] += sizes[place] * self.places[key][row[key]]
                sizes[place] *= self.sizes[key]
        colour, marker, filling = numbers
        rounds = colour // len(COLOURS) + filling // len(FILLINGS) * math.ceil(sizes[0] / len(COLOURS))
        marker += rounds * sizes[1]
        return [colour, marker, filling + marker // len(MARKERS) * sizes[2]]

    def __call__(self, row: Row) -> dict[str, Any]:
        """Return the properties of a cell's marker."""
        colour, marker, filling = self.numbers(row)
        filled = FILLINGS[filling % len(FILLINGS)]
        return {"color": COLOURS[colour % len(COLOURS)], "marker": MARKERS[marker % len(MARKERS)], **filled}

    def legend(self, rows: Sequence[Row], but: str | None = None) -> list[Column]:
        """Return the meanings of colour, marker and filling, without one key's; none if a sign has several."""
        found: list[Column] = []
        for (channel, keys), numbers in zip(self.keys.items(), zip(*map(self.numbers, rows), strict=True), strict=True):
            if not keys or keys == [but]:
                continue
            texts = [", ".join(shortened(row[key], SHORT) for key in keys) for row in rows]
            meanings = sorted(set(zip(numbers, texts, strict=True)))
            if not len(meanings) == len(set(numbers)) == len(set(texts)) or max(numbers) >= len(SIGNS[channel]):
                return []
            title = f"{channel}: {', '.join(self.names[key] for key in keys)}"
            found.append((title, [(text, SIGNS[channel][number]) for number, text in meanings]))
        return found


def places_of(key: str, values: Mapping[str, Any]) -> dict[str, int]:
    """Number the values of a key: usual ones as in USUAL; others by size, else by name, in the remaining numbers."""
    usual = USUAL.get(key, [])
    places = {text: usual.index(text) for text in values if text in usual}
    others = sorted(values, key=lambda text: (values[text] if is_number(values[text]) else math.inf, text))
    left = (place for place in count() if place not in places.values())
    return places | dict(zip((text for text in others if text not in usual), left, strict=False))


def explain(figure: Figure, columns: Sequence[Column]) -> None:
    """Add a legend below the axes."""
    if not columns:
        return
    height = max(len(entries) for _, entries in columns) + 1
    handles: list[Line2D] = []
    for title, entries in columns:
        column = [(title, GREY), *entries, *[("", GREY)] * (height - 1 - len(entries))]
        # The space: matplotlib leaves out labels that begin with an underscore.
        handles += [Line2D([], [], label=f" {text}", **properties) for text, properties in column]
    figure.set_figheight(figure.get_figheight() + 0.17 * height + 0.1)
    figure.legend(handles=handles, ncols=len(columns), loc="outside lower center", fontsize=8, frameon=False)


def by_name(names: Sequence[str], rows: Sequence[Row], look: Look) -> list[Column]:
    """Return a legend that names cells or lines one by one."""
    signs = [look(row) | {"linestyle": "none"} for row in rows]
    entries = [(shortened(name, LONGEST), each) for name, each in zip(names, signs, strict=True)]
    return [("", entries[start : start + TALLEST]) for start in range(0, len(entries), TALLEST)]
