"""Draw the accuracy of the notebook, of its seven rows here and of the recipes beyond it, from docs/findings.md.

python studies/record.py        writes docs/images/record.png
"""

import re
from pathlib import Path

from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
ROW = re.compile(
    r"^\| (\w+) \| (\w+) \| (\w+) \| 5 \| .* \| ([\d.]+) ± ([\d.]+) \| .* \| ([\d.]+) \(\d+ epochs\) \|$", re.M
)
RECORD = re.compile(r"^\| `experiment=(.*?)` \| (.*?) \| (\d+) \| \d+ \| \**([\d.]+) ± ([\d.]+)\** \|", re.M)


def main() -> None:
    """Draw both tables on one axis."""
    text = (DOCS / "findings.md").read_text(encoding="utf-8")
    rows = [
        (f"{phi}, {engine}, {penalty}", *map(float, numbers)) for phi, engine, penalty, *numbers in ROW.findall(text)
    ]
    records = [
        (f"{what}, {epochs} epochs", float(mean), float(half)) for _, what, epochs, mean, half in RECORD.findall(text)
    ]
    names = [row[0] for row in rows] + [record[0] for record in records]
    figure = Figure(figsize=(9, 0.34 * len(names) + 0.9), layout="constrained")
    axes = figure.subplots()
    axes.plot([row[3] for row in rows], range(len(rows)), "o", mfc="none", color="0.4", label="the notebook, one run")
    for place, (_, mean, half) in enumerate([row[:3] for row in rows] + records):
        colour = "tab:blue" if place < len(rows) else "tab:orange"
        axes.errorbar(mean, place, xerr=half, fmt="o", capsize=3, color=colour)
        axes.annotate(f"{mean:.2f}", (mean + half, place), (5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.errorbar([], [], [], fmt="o", capsize=3, color="tab:blue", label="the notebook's recipes here, five seeds")
    axes.errorbar([], [], [], fmt="o", capsize=3, color="tab:orange", label="recipes beyond it, five seeds")
    axes.set(
        yticks=range(len(names)),
        yticklabels=names,
        xlabel="test accuracy in %, mean with 95 % interval",
        xlim=(94.5, 99.9),
    )
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left", fontsize=8)
    figure.savefig(DOCS / "images" / "record.png", dpi=150)


if __name__ == "__main__":
    main()
