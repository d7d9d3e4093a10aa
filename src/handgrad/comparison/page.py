"""Write a comparison report: tables, a summary, figures, and a self-contained HTML page."""

import base64
import html
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from itables.utils import find_package_file
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure

from handgrad.comparison.contrasts import MOST_CELLS
from handgrad.comparison.load import STATUSES
from handgrad.comparison.metrics import Metric, find_metric
from handgrad.comparison.outcomes import NOT_LEARNED
from handgrad.comparison.own import joined
from handgrad.comparison.sentences import p_value, with_interval, within
from handgrad.comparison.statistics import averages
from handgrad.comparison.table import Comparison
from handgrad.runs.folder import replacing
from handgrad.text import escape_control

MOST = 24  # most cells in the printed table
LEGEND = (
    "Mean ± half the 95 % interval, or its two ends where they are not symmetric; no interval of a single run{}. "
    "Range: lowest and highest run.{}"
)
# Texts that `pandas.read_csv` reads as missing by default, as its documentation lists them.
READ_AS_MISSING = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
READ_AS_MISSING |= {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}


@dataclass(frozen=True, repr=False)
class Report:
    """Contents of a comparison report.

    sources: the compared folders or files.
    cells, tests: the tables from `statistics.summarize_cells` and `statistics.compare`.
    plans: sentences on how to settle undecided comparisons, each with its commands on lines of their own; or none.
    about: facts about the comparison, by name: date, command, versions, data, machine, seeds.
    progress: a sentence on the progress of a running sweep; otherwise empty.
    figures: name, caption and figure of each.
    """

    sources: Sequence[Path]
    comparison: Comparison
    cells: pd.DataFrame
    tests: pd.DataFrame
    sentences: Sequence[str]
    plans: Sequence[tuple[str, str]]
    about: dict[str, str]
    progress: str
    figures: Sequence[tuple[str, str, Figure]]

    def __repr__(self) -> str:
        return f"<Report of {len(self.cells)} cells: .sentences, .cells, .tests, .figures>"

    @property
    def title(self) -> str:
        """Names of the compared folders."""
        return escape_control(joined(source.name for source in self.sources))

    @property
    def places(self) -> str:
        """Paths of the compared folders."""
        return escape_control(joined(self.sources))

    @property
    def keys(self) -> list[str]:
        """The keys that vary; all if none does."""
        return self.comparison.varying or self.comparison.keys

    @property
    def metrics(self) -> list[tuple[str, Metric]]:
        """Headings and metrics of the table of cells: the metric asked for, then the usual ones."""
        scored, known = self.comparison.scored, self.comparison.completed.columns
        usual = {f"{scored}/accuracy": f"{scored} %", "train/accuracy": "train %", f"{scored}/loss": f"{scored} loss"}
        usual["seconds_per_epoch"] = "s/epoch"
        asked = self.comparison.metric
        first = usual.pop(asked.column, f"{asked.name} ({asked.unit})" if asked.unit else asked.name)
        others = [name for name in usual if name in self.cells and self.cells[name].notna().any()]
        return [(first, asked), *((usual[name], find_metric(name, scored, known)) for name in others)]

    @cached_property
    def columns(self) -> list[tuple[str, list[str]]]:
        """The table of cells: of each column, its heading and its texts."""
        (first, asked), *others = self.metrics
        rows = self.cells.to_dict("records")
        columns = [(self.comparison.names[key], [row[key] for row in rows]) for key in self.keys]
        columns.append(("runs", [str(row["completed"] - row["without value"]) for row in rows]))
        columns.append((first, [with_interval(row, asked) for row in rows]))
        columns.append(("range", [span(row, asked) for row in rows]))
        columns += [(heading, [number(row, metric.column, metric) for row in rows]) for heading, metric in others]
        if any(remarks := [self.remark(row) for row in rows]):
            columns.append(("remarks", remarks))
        if self.cells.reference.notna().any():
            heading = f"{self.comparison.reference_name} {asked.label}"
            columns.append((heading, [number(row, "reference", asked) for row in rows]))
        return columns

    @property
    def headings(self) -> list[str]:
        """Headings of the table of cells."""
        return [heading for heading, _ in self.columns]

    @property
    def lines(self) -> list[list[str]]:
        """Rows of the table of cells."""
        return [list(texts) for texts in zip(*(texts for _, texts in self.columns), strict=True)]

    def remark(self, row: dict[Any, Any]) -> str:
        """Say how many of a cell's runs have no score or did not learn."""
        return ", ".join(f"{row[what]} {what}" for what in (*STATUSES[1:], *NOT_LEARNED, "without value") if row[what])

    @property
    def legend(self) -> str:
        """Explanation of the table of cells."""
        own = self.comparison.own
        return LEGEND.format(", or where some runs did not learn" if own else "", " Loss in nats." if own else "")

    @property
    def pairs(self) -> list[list[str]]:
        """Table of comparisons of cells, as text."""
        return [self.line(row, row.a, row.b) for row in self.tests.itertuples() if row.kind in ("cells", "shares")]

    @property
    def effects(self) -> list[list[str]]:
        """Table of comparisons of the values of keys, as text: averaged over all else, or within a value."""
        named, lines = self.comparison.named, []
        for row in pd.concat([averages(self.tests), self.tests[self.tests.kind == "within"]]).itertuples():
            given = f" with {named(row.other, row.u)}" if row.kind == "within" else ""
            lines.append(self.line(row, named(row.key, row.a) + given, named(row.key, row.b)))
        return lines

    def line(self, row: Any, a: str, b: str) -> list[str]:
        """Return a comparison as texts: who, against whom, difference, interval, corrected p, verdict."""
        number = self.comparison.metric.number
        by = f"{row.difference:.0%} more learned" if row.test == "Fisher" else number(row.difference)
        ends = "" if pd.isna(row.low) else f"{number(row.low)} to {number(row.high)}"
        p = "" if pd.isna(row.p_corrected) else p_value(row).removeprefix("= ")
        words = {"equal": f"equal{within(self.comparison)}", "identical": "equal, seed by seed"}
        verdict = words.get(row.verdict, row.verdict) if pd.notna(row.p) or row.verdict == "identical" else ""
        return [a, b, by, ends, p, verdict]

    @property
    def heading_of_pairs(self) -> str:
        """Heading of the table of comparisons of cells."""
        if self.comparison.asked.baseline is not None:
            return f"Every other cell against {self.comparison.asked.baseline}"
        many = (self.cells.completed + self.cells.diverged > 0).sum()
        return "Every pair of cells" if many <= MOST_CELLS else "The best cell against every other"


def number(row: dict[Any, Any], column: str, metric: Metric) -> str:
    """Format a cell's value; empty if it has none."""
    return "" if pd.isna(row[column]) else metric.number(row[column])


def span(row: dict[Any, Any], metric: Metric) -> str:
    """Format the lowest and the highest value of a cell's runs; empty for a single run."""
    least, most = row[f"{metric.column}.least"], row[f"{metric.column}.most"]
    return "" if pd.isna(least) or row["completed"] < 2 else f"{metric.number(least)} to {metric.number(most)}"


def write(report: Report, folder: Path, every: int | None = None) -> None:
    """Write the report's files to a folder that exists; the open page reloads itself `every` seconds, if given.

    Files: table.csv (one row per run), summary.csv and summary.tex (one row per cell), pairs.csv, summary.md, every
    figure as PNG and SVG, report.html.
    """
    for name, table in (("table", report.comparison.table), ("summary", report.cells), ("pairs", report.tests)):
        with replacing(folder / f"{name}.csv") as path:
            for_csv(table).to_csv(path, index=False, encoding="utf-8")
    with replacing(folder / "summary.tex") as path:
        path.write_text(in_latex(report), encoding="utf-8")
    pictures = []
    for name, caption, figure in report.figures:
        for kind in ("png", "svg"):
            with replacing(folder / f"{name}.{kind}") as path:
                draw(figure, path, kind)
            figure.set_layout_engine("none")  # the second file keeps the first one's layout, which takes half the time
        data = f"data:image/svg+xml;base64,{encoded(folder / f'{name}.svg')}"
        pictures.append({"name": name, "caption": caption, "data": data})
    environment = Environment(
        loader=PackageLoader("handgrad.comparison", "."), autoescape=select_autoescape(["html.jinja"]), trim_blocks=True
    )
    environment.filters |= {"md": in_markdown, "sortable": sortable}
    values: dict[str, Any] = {"report": report, "pictures": pictures, "every": every}
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
    style = pd.DataFrame(report.lines, columns=columns).map(escape_control).style.hide(axis="index")
    return str(style.format(escape="latex").format_index(escape="latex", axis=1).to_latex(hrules=True))


def draw(figure: Figure, path: Path, kind: str) -> None:
    """Write a figure; glyphs missing from the font become boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)


def for_csv(table: pd.DataFrame) -> pd.DataFrame:
    """Escape texts that a spreadsheet would evaluate, or that `pandas.read_csv` would read as missing."""
    texts = {
        name: column.map(escape_cell) for name, column in table.items() if not pd.api.types.is_numeric_dtype(column)
    }
    return table.assign(**texts).rename(columns=escape_cell)


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
