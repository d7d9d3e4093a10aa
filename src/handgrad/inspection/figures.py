"""Figures of pictures beside the network's inputs."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from handgrad.inspection.predict import MOST, Prediction
from handgrad.text import escape_control

COLUMNS = 4  # of pairs


def pictures(predicted: Sequence[Prediction]) -> Figure:
    """Plot each digit in its picture beside the network's input, under the two most probable classes; at most forty.

    Several digits of a picture are numbered from left to right; a question mark stands where there is a doubt.
    """
    shown = predicted[:MOST]
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.1 * lines), layout="constrained")
    grid = figure.subplots(lines, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, each in enumerate(shown):
        line, column = divmod(number, columns)
        picture, seen = grid[line, 2 * column], grid[line, 2 * column + 1]
        picture.imshow(each.grey, cmap="gray", vmin=0, vmax=1)
        height, width = each.grey.shape
        left, top, right, bottom = each.digit.box
        frame = Rectangle((left * width, top * height), (right - left) * width, (bottom - top) * height)
        frame.set(fill=False, edgecolor="tab:red", linewidth=1)
        picture.add_patch(frame)
        seen.imshow(each.digit.seen.numpy(), cmap="gray", vmin=0, vmax=1)
        (first, second), (p, q) = each.classes, each.probabilities
        name = escape_control(each.path.name)
        name = f"{each.number}: {name}" if sum(other.path == each.path for other in predicted) > 1 else name
        picture.set_title(name if len(name) <= 18 else f"{name[:17]}…", fontsize=8, parse_math=False)
        seen.set_title(f"{first}: {p:.1%}{' ?' if each.doubts else ''}\n{second}: {q:.1%}", fontsize=8)
    return figure
