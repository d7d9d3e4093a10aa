"""Write a comparison down: two tables, a summary, the figures, and a page that needs nothing beside itself."""

import base64
import html
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure

from handgrad.report.again import command_for_more_seeds as command_for_more_seeds
from handgrad.report.runs import STATUSES, Comparison, joined
from handgrad.report.statistics import number_of_pairs, p_value, points, with_interval
from handgrad.results import replacing
from handgrad.settings import plain

MOST = 24  # cells that a table shows at a glance


@dataclass(frozen=True)
class Report:
    """All that is said about a comparison.

    sources: the folders that were compared.
    single: no cell has two completed runs, so that there are no intervals.
    further: the command that would give them, if there is one.
    """

    sources: Sequence[Path]
    comparison: Comparison
    cells: pd.DataFrame
    pairs: pd.DataFrame
    sentences: Sequence[str]
    single: bool
    further: str
    figures: Sequence[tuple[str, str, Figure]]

    @property
    def title(self) -> str:
        """What was compared."""
        return plain(joined(source.name for source in self.sources))

    @property
    def places(self) -> str:
        """Where it lies."""
        return plain(joined(self.sources))

    @property
    def headings(self) -> list[str]:
        """Of the table with a row per cell."""
        scored = self.comparison.scored
        return [
            *(self.comparison.names[key] for key in self.comparison.keys),
            "runs",
            "train %",
            f"{scored} %",
            f"{scored} loss",
            "s/epoch",
            "remarks",
            "notebook test %",
        ]

    def lines(self, most: int | None = None) -> list[list[str]]:
        """The table with a row per cell, as text; of the best so many cells, or of all."""
        scored = self.comparison.scored
        return [
            [
                *(row[key] for key in self.comparison.keys),
                str(row["completed"]),
                with_interval(row, "train/accuracy"),
                with_interval(row, f"{scored}/accuracy"),
                with_interval(row, f"{scored}/loss", scale=1, digits=4),
                with_interval(row, "seconds_per_epoch", scale=1),
                ", ".join(
                    f"{row[what]} {what.replace('_', ' ')}" for what in (*STATUSES[1:], "at_chance") if row[what]
                ),
                ""
                if pd.isna(row["notebook"])
                else f"{100 * row['notebook']:.2f} ({row['notebook_epochs']:.0f} epochs)",
            ]
            for row in self.cells.head(len(self.cells) if most is None else most).to_dict("records")
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
            for row in self.pairs.itertuples()
        ]

    @property
    def tests_all(self) -> bool:
        """Whether every pair of cells was compared, not only the best with each other one."""
        return len(self.pairs) == number_of_pairs(int((self.cells.completed > 0).sum()))


def write(report: Report, folder: Path) -> None:
    """Write the report's files to a folder.

    Leaves table.csv (a row per run), summary.csv (a row per cell), pairs.csv, summary.md, every figure as PNG and SVG,
    report.html.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("table", report.comparison.table), ("summary", report.cells), ("pairs", report.pairs)):
        with replacing(folder / f"{name}.csv") as path:
            harmless(table).to_csv(path, index=False, encoding="utf-8")
    pictures = []
    for name, caption, figure in report.figures:
        for kind in ("png", "svg"):
            with replacing(folder / f"{name}.{kind}") as path:
                draw(figure, path, kind)
        drawn = base64.b64encode((folder / f"{name}.svg").read_bytes()).decode("ascii")
        pictures.append({"name": name, "caption": caption, "data": f"data:image/svg+xml;base64,{drawn}"})
    environment = Environment(
        loader=PackageLoader("handgrad.report", "."), autoescape=select_autoescape(["html.jinja"]), trim_blocks=True
    )
    environment.filters["md"] = in_markdown
    values: dict[str, Any] = {"report": report, "pictures": pictures, "most": MOST}
    for template in ("report.html", "summary.md"):
        with replacing(folder / template) as path:
            path.write_text(environment.get_template(f"{template}.jinja").render(values), encoding="utf-8")


def draw(figure: Figure, path: Path, kind: str) -> None:
    """Write a figure; signs that the font does not have become boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)


def harmless(table: pd.DataFrame) -> pd.DataFrame:
    """A table in whose texts and headings a spreadsheet sees no formula."""
    texts = {name: column.map(no_formula) for name, column in table.items() if not is_numeric(column)}
    return table.assign(**texts).rename(columns=no_formula)


def is_numeric(column: pd.Series) -> bool:
    """Tell whether a column holds numbers alone."""
    return bool(pd.api.types.is_numeric_dtype(column))


def no_formula(cell: Any) -> Any:
    """A cell, with an apostrophe before a text that a spreadsheet would compute."""
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def in_markdown(text: Any) -> str:
    """A text that Markdown shows as it is: no HTML, no code, no link, no end of a table's cell."""
    return re.sub(r"([\\`|*\[])", r"\\\1", html.escape(plain(str(text)), quote=False))
