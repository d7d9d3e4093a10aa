"""Draw the accuracy of the notebook, of its seven rows here and of the recipes beyond it, from docs/findings.md.

python studies/record.py        writes docs/images/record.png
"""

import re
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
ROW = re.compile(
    r"^\| (\w+) \| (\w+) \| (\w+) \| 5 \| .* \| ([\d.]+) ± ([\d.]+) \| .* \| ([\d.]+) \(\d+ epochs\) \|$", re.M
)
RECORD = re.compile(r"^\| `experiment=(\w+).*?` \| .*? \| (\d+) \| 5 \| \**([\d.]+) ± ([\d.]+)\** \|", re.M)


def main() -> None:
    """Draw the two tables on one axis."""
    text = (DOCS / "findings.md").read_text(encoding="utf-8")
    records = [
        (f"{name}, {epochs} epochs", float(mean), float(half)) for name, epochs, mean, half in RECORD.findall(text)
    ]
    rows: list[tuple[Any, ...]] = [
        (f"{phi}, {engine}, {penalty}", *map(float, rest)) for phi, engine, penalty, *rest in ROW.findall(text)[:7]
    ]
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    for label, colour, first, group in (
        ("recipes beyond the notebook, five seeds", "tab:orange", 0, records),
        ("the notebook's recipes here, five seeds", "tab:blue", len(records), [row[:3] for row in rows]),
    ):
        _, means, halves = zip(*group, strict=True)
        places = range(first, first + len(group))
        axes.errorbar(means, places, xerr=halves, fmt="o", capsize=3, color=colour, label=label)
        for place, mean, half in zip(places, means, halves, strict=True):
            axes.annotate(
                f"{mean:.2f}", (mean + half, place), (5, 0), textcoords="offset points", va="center", fontsize=8
            )
    notebook = range(len(records), len(records) + len(rows))
    axes.plot([row[3] for row in rows], notebook, "o", mfc="none", color="0.4", label="the notebook itself, one run")
    axes.set(xlim=(94.5, 100), xlabel="test accuracy in %, mean with 95 % interval")
    axes.set_yticks(range(len(records) + len(rows)), [each[0] for each in (*records, *rows)])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)
    figure.savefig(DOCS / "images" / "record.png", dpi=150)


if __name__ == "__main__":
    main()
