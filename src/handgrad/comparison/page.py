"""Write a comparison report: tables, a summary, figures, and a self-contained HTML page."""

import base64
import html
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from itables.utils import find_package_file
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure

from handgrad.comparison.again import FEW
from handgrad.comparison.again import command_for_more_seeds as command_for_more_seeds
from handgrad.comparison.load import NOT_LEARNED, STATUSES, joined
from handgrad.comparison.metrics import Metric, find_metric
from handgrad.comparison.sentences import enough, margin, p_value, with_interval
from handgrad.comparison.statistics import MOST_CELLS, SEED_COUNTS
from handgrad.comparison.table import Comparison
from handgrad.runs.folder import replacing
from handgrad.text import escape_control

MOST = 24  # most cells in the printed table
# Texts that `pandas.read_csv` reads as missing by default, as its documentation lists them.
READ_AS_MISSING = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
READ_AS_MISSING |= {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}


@dataclass(frozen=True)
class Report:
    """Contents of a comparison report.

    sources: the compared folders.
    planned: the table from `sentences.plan`.
    remedy: what more seeds would show, a sentence to be followed by a command; empty if there is nothing to say.
    further: the command for more seeds; empty if there is none.
    progress: a sentence on the progress of a running sweep; otherwise empty.
    """

    sources: Sequence[Path]
    comparison: Comparison
    cells: pd.DataFrame
    pairs: pd.DataFrame
    sentences: Sequence[str]
    planned: pd.DataFrame
    remedy: str
    further: str
    progress: str
    figures: Sequence[tuple[str, str, Figure]]

    @property
    def title(self) -> str:
        """Names of the compared folders."""
        return escape_control(joined(source.name for source in self.sources))

    @property
    def places(self) -> str:
        """Paths of the compared folders."""
        return escape_control(joined(self.sources))

    @property
    def columns(self) -> list[tuple[str, Metric]]:
        """Headings and metrics of the table of cells: the metric asked for, then the usual ones."""
        scored, known = self.comparison.scored, self.comparison.completed.columns
        usual = {
            "train/accuracy": "train %",
            f"{scored}/accuracy": f"{scored} %",
            f"{scored}/loss": f"{scored} loss",
            "seconds_per_epoch": "s/epoch",
        }
        asked = self.comparison.metric
        first = [] if asked.column in usual else [(f"{asked.name} ({asked.unit})", asked)]
        return first + [(heading, find_metric(name, scored, known)) for name, heading in usual.items() if name in known]

    @property
    def headings(self) -> list[str]:
        """Headings of the table of cells."""
        keys = (self.comparison.names[key] for key in self.comparison.keys)
        return [*keys, "runs", *(heading for heading, _ in self.columns), "remarks", *self.reference_heading]

    @property
    def reference_heading(self) -> list[str]:
        """Heading of the reference column, if there is one."""
        name, metric = self.comparison.reference_name, self.comparison.metric
        return [f"{name} {metric.name} ({metric.of_value.strip()})"] if name else []

    def lines(self, most: int | None = None) -> list[list[str]]:
        """Return the table of cells as text: the best `most` cells, or all."""
        columns, number = self.columns, self.comparison.metric.number
        return [
            [
                *(row[key] for key in self.comparison.keys),
                str(row["completed"]),
                *(with_interval(row, shown) for _, shown in columns),
                ", ".join(f"{row[what]} {what}" for what in (*STATUSES[1:], *NOT_LEARNED) if row[what]),
                *("" if pd.isna(row["reference"]) else number(row["reference"]) for _ in self.reference_heading),
            ]
            for row in self.cells.head(len(self.cells) if most is None else most).to_dict("records")
        ]

    @property
    def tests(self) -> list[list[str]]:
        """Table of comparisons of cells, as text."""
        number = self.comparison.metric.number
        return [
            [
                row.a,
                row.b,
                f"{row.difference:.0%} more learned" if row.test == "Fisher" else number(row.difference),
                "" if pd.isna(row.low) else f"{number(row.low)} to {number(row.high)}",
                "" if pd.isna(row.p_corrected) else p_value(row).removeprefix("= "),
                row.test,
                self.verdicts[row.verdict] if row.test != "none" else "",
            ]
            for row in self.pairs.itertuples()
        ]

    @property
    def verdicts(self) -> dict[str, str]:
        """Display text of each verdict."""
        same = "equal" if self.comparison.margin is None else f"equal within {margin(self.comparison)}"
        return {"differ": "differ", "equal": same, "identical": "equal, seed by seed", "cannot tell": "cannot tell"}

    @property
    def seeds(self) -> list[list[str]]:
        """Table of detectable differences by number of seeds, as text."""
        digits = self.comparison.metric.digits
        return [
            [row["a"], row["b"], *(f"{row[n]:.{digits}f}" for n in SEED_COUNTS)]
            for row in self.planned.to_dict("records")
        ]

    @property
    def heading_of_tests(self) -> str:
        """Heading of the table of comparisons."""
        if self.comparison.asked.baseline is not None:
            return f"Every other cell against {self.comparison.asked.baseline}"
        many = (self.cells.completed + self.cells.diverged > 0).sum()
        return "Every pair of cells" if many <= MOST_CELLS else "The best cell against every other"


def remedy(comparison: Comparison, cells: pd.DataFrame, planned: pd.DataFrame) -> tuple[str, int]:
    """Return what more seeds would show, as in `Report.remedy`, and their number; empty and 0 if none are needed."""
    if cells.completed.max() == 1:
        return "With one seed per cell no interval can be given", FEW
    if planned.empty:
        return "", 0
    if comparison.margin is None:
        further = next((seeds for seeds in SEED_COUNTS if seeds > cells.completed.max()), SEED_COUNTS[-1])
        return f"{further} seeds would tell more", further
    if (seeds := enough(comparison, planned)) is None:
        return f"Not even {SEED_COUNTS[-1]} seeds would show every difference of {margin(comparison)}", SEED_COUNTS[-1]
    return f"{seeds} seeds would show every difference of {margin(comparison)}", seeds


def write(report: Report, folder: Path, every: int | None = None) -> None:
    """Write the report's files to a folder; the open page reloads itself `every` seconds, if given.

    Files: table.csv (one row per run), summary.csv and summary.tex (one row per cell), pairs.csv, summary.md, every
    figure as PNG and SVG, report.html.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("table", report.comparison.table), ("summary", report.cells), ("pairs", report.pairs)):
        with replacing(folder / f"{name}.csv") as path:
            for_csv(table).to_csv(path, index=False, encoding="utf-8")
    with replacing(folder / "summary.tex") as path:
        path.write_text(in_latex(report), encoding="utf-8")
    pictures = []
    for name, caption, figure in report.figures:
        for kind in ("png", "svg"):
            with replacing(folder / f"{name}.{kind}") as path:
                draw(figure, path, kind)
        data = f"data:image/svg+xml;base64,{encoded(folder / f'{name}.svg')}"
        pictures.append({"name": name, "caption": caption, "data": data})
    environment = Environment(
        loader=PackageLoader("handgrad.comparison", "."), autoescape=select_autoescape(["html.jinja"]), trim_blocks=True
    )
    environment.filters |= {"md": in_markdown, "sortable": sortable}
    values: dict[str, Any] = {"report": report, "pictures": pictures, "planned": SEED_COUNTS, "every": every}
    values |= {"anchors": anchors(report.cells.label), "members": runs_of_cells(report, folder)}
    values["library"] = encoded(find_package_file("html", "dt_bundle.js"))  # DataTables, bundled by itables
    for template in ("report.html", "summary.md"):
        with replacing(folder / template) as path:
            path.write_text(environment.get_template(f"{template}.jinja").render(values), encoding="utf-8")


def encoded(path: Path) -> str:
    """Return a file in base64, to embed in a page."""
    return base64.b64encode(path.read_bytes()).decode("ascii")


def anchors(labels: Iterable[str]) -> list[str]:
    """Return the HTML anchor of each cell: its name, with its row number if two would be equal."""
    names = [re.sub(r"[^\w.=-]+", "-", label) for label in labels]
    return [name if names.count(name) == 1 else f"{name}-{place}" for place, name in enumerate(names, start=1)]


def runs_of_cells(report: Report, folder: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return each cell's name and runs, with links to the runs' figures relative to the page's folder."""
    table = report.comparison.table
    cells = dict(iter(table.groupby(report.comparison.keys, sort=False)))
    found = []
    for row in report.cells.to_dict("records"):
        runs = cells[tuple(row[key] for key in report.comparison.keys)].to_dict("records")
        for run in runs:
            pictures = sorted(Path(run["folder"]).glob("*.png"))
            run["pictures"] = [(path.stem.replace("_", " "), link(path, folder)) for path in pictures]
        found.append((row["label"], runs))
    return found


def link(path: Path, folder: Path) -> str:
    """Return the URL of a file relative to a folder."""
    return quote(Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix())


def sortable(text: str) -> str | float:
    """Return the sort key of a table's cell: its leading number, or its text."""
    number = re.match(r"-?\d+(\.\d+)?", text.removeprefix("< "))
    return float(number[0]) if number else text


def in_latex(report: Report) -> str:
    """Return the table of cells in LaTeX, for a document that loads booktabs.

    Source: pandas.io.formats.style.Styler.to_latex.
    """
    headings = report.headings
    columns = [name if headings.count(name) == 1 else f"{name} {place}" for place, name in enumerate(headings, start=1)]
    style = pd.DataFrame(report.lines(), columns=columns).map(escape_control).style.hide(axis="index")
    return str(style.format(escape="latex").format_index(escape="latex", axis=1).to_latex(hrules=True))


def draw(figure: Figure, path: Path, kind: str) -> None:
    """Write a figure; glyphs missing from the font become boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)


def for_csv(table: pd.DataFrame) -> pd.DataFrame:
    """Escape texts that a spreadsheet would evaluate, or that `pandas.read_csv` would read as missing."""
    texts = {name: column.map(escape_cell) for name, column in table.items() if not is_numeric(column)}
    return table.assign(**texts).rename(columns=escape_cell)


def is_numeric(column: pd.Series) -> bool:
    """Tell whether a column holds only numbers."""
    return bool(pd.api.types.is_numeric_dtype(column))


def escape_cell(cell: Any) -> Any:
    """Put an apostrophe before a formula, and parentheses around what reads as missing: null becomes (null)."""
    if isinstance(cell, str) and cell in READ_AS_MISSING:
        return f"({cell})"
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def in_markdown(text: Any) -> str:
    """Escape a text for a Markdown table: HTML, code, links, emphasis and cell separators."""
    return re.sub(r"([\\`|*\[])", r"\\\1", html.escape(escape_control(str(text)), quote=False))
