"""Write a comparison down: two tables, a summary, the figures, and a page that needs nothing beside itself."""

import base64
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from handgrad.report.runs import Comparison
from handgrad.report.statistics import STATUSES, p_value, points, shown, with_interval
from handgrad.results import replacing

SEEDS = "seed=0,1,2,3,4"


@dataclass(frozen=True)
class Report:
    """All that is said about a comparison.

    sources: the folders that were compared.
    further: the command that would give intervals, where there are none.
    """

    sources: Sequence[Path]
    comparison: Comparison
    cells: pd.DataFrame
    pairs: pd.DataFrame
    sentences: Sequence[str]
    further: str | None
    figures: Sequence[tuple[str, str, Figure]]

    @property
    def headings(self) -> list[str]:
        """Of the table with a row per cell."""
        scored = self.comparison.scored
        return [
            *(key.split(".")[-1] for key in self.comparison.keys),
            "runs",
            "train %",
            f"{scored} %",
            f"{scored} loss",
            "s/epoch",
            "remarks",
            "notebook test %",
        ]

    @property
    def lines(self) -> list[list[str]]:
        """The table with a row per cell, as text."""
        scored = self.comparison.scored
        return [
            [
                *("" if pd.isna(row[key]) else shown(row[key]) for key in self.comparison.keys),
                str(row.completed),
                with_interval(row, "train/accuracy"),
                with_interval(row, f"{scored}/accuracy"),
                with_interval(row, f"{scored}/loss", scale=1, digits=4),
                with_interval(row, "seconds_per_epoch", scale=1),
                ", ".join(
                    f"{row[what]} {what.replace('_', ' ')}" for what in (*STATUSES[1:], "at_chance") if row[what]
                ),
                "" if pd.isna(row.notebook) else f"{100 * row.notebook:.2f} ({row.notebook_epochs:.0f} epochs)",
            ]
            for _, row in self.cells.iterrows()
        ]

    @property
    def tests(self) -> list[list[str]]:
        """The table with a row per pair of cells, as text."""
        return [
            [
                row.a,
                row.b,
                points(row.difference),
                "" if pd.isna(row.low) else f"{points(row.low)} to {points(row.high)}",
                "" if pd.isna(row.p_corrected) else p_value(row).removeprefix("= "),
                row.test,
            ]
            for _, row in self.pairs.iterrows()
        ]


def command_for_more_seeds(sources: Sequence[Path]) -> str:
    """The command that runs the same with five seeds, from what Hydra has written down of a sweep or a single run."""
    for source in sources:
        sweep, single = source / "multirun.yaml", source / ".hydra" / "overrides.yaml"
        if sweep.exists():  # into the same folder: the seeds that are there are skipped
            overrides = OmegaConf.load(sweep).hydra.overrides
            launcher = [word for word in overrides.hydra if word.startswith("hydra/launcher=")]
            words = [*launcher, *unseeded(overrides.task), SEEDS, f"hydra.sweep.dir={source}"]
        elif single.exists() and len(sources) == 1:
            words = [*unseeded(list(OmegaConf.load(single))), SEEDS]
        else:
            continue
        return " ".join(["python src/train.py -m", *map(shlex.quote, words)])
    return f"python src/train.py -m <the options of these runs> {SEEDS}"


def unseeded(words: Sequence[str]) -> list[str]:
    """Overrides without that of the seed."""
    return [word for word in words if not word.startswith("seed=")]


def write(report: Report, folder: Path) -> None:
    """Write the report's files to a folder.

    Leaves table.csv (a row per run), summary.csv (a row per cell), pairs.csv, summary.md, every figure as PNG and SVG,
    report.html.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("table", report.comparison.table), ("summary", report.cells), ("pairs", report.pairs)):
        with replacing(folder / f"{name}.csv") as path:
            table.to_csv(path, index=False)
    pictures = []
    for name, caption, figure in report.figures:
        for kind in ("png", "svg"):
            with replacing(folder / f"{name}.{kind}") as path:
                figure.savefig(path, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        drawn = base64.b64encode((folder / f"{name}.svg").read_bytes()).decode()
        pictures.append({"name": name, "caption": caption, "data": f"data:image/svg+xml;base64,{drawn}"})
    environment = Environment(
        loader=PackageLoader("handgrad.report", "."), autoescape=select_autoescape(["html.jinja"]), trim_blocks=True
    )
    values: dict[str, Any] = {"report": report, "pictures": pictures}
    for template in ("report.html", "summary.md"):
        with replacing(folder / template) as path:
            path.write_text(environment.get_template(f"{template}.jinja").render(values))
