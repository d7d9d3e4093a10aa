"""Build, write and print a comparison report: for src/compare.py, and at the end of a sweep."""

import os
import platform
import shlex
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from handgrad.comparison import again, figures, load, page, planning, sentences, statistics
from handgrad.comparison.own import joined
from handgrad.comparison.progress import in_time
from handgrad.comparison.table import CompareOptions, Comparison
from handgrad.config import CompareConfig, check
from handgrad.console import make_console, say, table_console
from handgrad.errors import UserError, output_errors
from handgrad.text import escape_control, shortened

MOST_EFFECTS = 12  # most comparisons of values in the terminal


def build_report(sources: Sequence[Path], asked: CompareOptions, start: Path, progress: str = "") -> page.Report:
    """Build a report of the runs in or below folders: load, pool into cells, test, plan, plot.

    Commands are typed in `start`. `progress` is a sentence on a running sweep.

    Raises:
        UserError: there is no run, or the options do not fit the runs.
    """
    comparison = load.load_runs(sources, asked)
    cells = statistics.summarize_cells(comparison)
    tests = statistics.compare(comparison, cells)
    return page.Report(
        sources=sources or [asked.table if isinstance(asked.table, Path) else Path("table")],
        comparison=comparison,
        cells=cells,
        tests=tests,
        sentences=sentences.sentences(comparison, cells, tests),
        plans=plans(comparison, cells, tests, sources, start),
        about=about(comparison),
        progress=progress if comparison.own else "",
        figures=list(figures.every(comparison, cells)),
    )


def compare(
    runs: pd.DataFrame | str | Path | Iterable[Any],
    metric: str | None = None,
    *,
    output: str | Path | None = None,
    **options: Any,
) -> page.Report:
    """Compare runs; `import handgrad; handgrad.compare(...)`. Needs neither torch nor Lightning.

    A notebook shows the sentences and tables that `python src/compare.py` prints.

    Args:
        runs: a data frame with a row per run, or the path of a CSV file: seeds, settings and metrics in columns; or
            the folder of a sweep, or a list of runs or folders.
        metric: the column to compare by; None: the only metric.
        output: folder to write the report to, as `python src/compare.py` does; None: nothing is written.
        options: further fields of `CompareOptions`: seed, better, unit, margin, where, group, baseline, reference.

    Returns:
        the report: data frames `cells` and `tests`, `sentences`, `figures`; see docs/compare.md.

    Raises:
        UserError: the runs cannot be read, or the options do not fit them.
    """
    if isinstance(options.get("group"), str):
        options["group"] = [options["group"]]
    names = [field.name for field in fields(CompareOptions)]
    if strange := options.keys() - set(names):
        raise UserError(f"compare() has no option {min(strange)}: it has {', '.join(names)}")
    check(dict.fromkeys(CompareConfig.model_fields) | options | {"metric": metric}, CompareConfig)
    if options.get("reference") is not None:
        options["reference"] = Path(options["reference"])
    table: pd.DataFrame | Path | None = runs if isinstance(runs, pd.DataFrame) else None
    sources = [] if table is not None else folders_of(runs)
    if len(sources) == 1 and not sources[0].is_dir():
        table, sources = sources[0], []
    report = build_report(sources, CompareOptions(metric=metric, table=table, **options), Path.cwd())
    folder = None if output is None else Path(output)
    if folder is not None:
        with output_errors(folder):
            page.write(report, folder)
    if make_console().is_jupyter:
        show(report, folder)
    return report


def folders_of(runs: Any) -> list[Path]:
    """Return the paths of runs: one or several `handgrad.Run`s or names."""
    one = isinstance(runs, str | Path | Mapping) or hasattr(runs, "folder") or not isinstance(runs, Iterable)
    several = [runs] if one else list(runs)
    folders = [getattr(run, "folder", run) for run in several]
    for folder in folders:
        if not isinstance(folder, str | Path):
            kind = type(folder).__name__
            raise UserError(f"compare takes a data frame, a file, or runs or their folders, not {kind}")
        if not Path(folder).exists():
            raise UserError(f"{folder} does not exist")
    return list(map(Path, folders))


def plans(
    comparison: Comparison, cells: pd.DataFrame, tests: pd.DataFrame, sources: Sequence[Path], start: Path
) -> list[tuple[str, str]]:
    """Say which further seeds would settle undecided comparisons, the cheapest first, each with its commands."""
    said = []
    for plan in planning.plans(comparison, cells, tests):
        time = "" if plan.seconds is None else f", about {in_time(plan.seconds)}"
        if not comparison.own or comparison.asked.group is not None:
            commands = ""
        elif len(plan.cells) == len(cells) and comparison.asked.where is None:
            commands = again.command_for_more_seeds(sources, start, comparison.remarks, plan.seeds)
        else:
            folders = [Path(comparison.members(row).folder.iloc[0]) for row in plan.cells if row["completed"]]
            commands = again.commands_for_cells(folders, start, comparison.remarks, plan.seeds)
        said.append((f"{plan.what}, with {plan.seeds} seeds of each ({plan.runs} more runs{time})", commands))
    return said


def about(comparison: Comparison) -> dict[str, str]:
    """Return the facts that a reader of the report needs: when, how, with what, and of what."""
    table = comparison.table
    names = [name for name in table if name.startswith("version/")]
    versions = [f"{name.removeprefix('version/')} {joined(sorted(set(table[name].dropna())))}" for name in names]
    facts = {
        "compared": f"{datetime.now():%d %B %Y, %H:%M}",
        "command": shlex.join(["python", *sys.argv]),
        "data": joined(sorted(set(table.dataset.dropna()) - {"null"})),
        "seeds": joined(sorted(set(table.seed), key=str), most=10),
        "versions": ", ".join(versions),
        "margin": "" if comparison.margin is None else f"{sentences.margin(comparison)} count as equal",
        "machine": ""
        if not comparison.own
        else f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
    }
    return {name: shortened(escape_control(text), 400) for name, text in facts.items() if text}


def write_and_print(report: page.Report, folder: Path, every: int | None = None) -> None:
    """Write a report and print it; the open page reloads itself `every` seconds, if given.

    Raises:
        UserError: the report cannot be written.
    """
    with output_errors(folder):
        page.write(report, folder, every)
    show(report, folder)


def show(report: page.Report, folder: Path | None) -> None:
    """Print a report's sentences, tables, plans and, if it was written, path."""
    console = table_console()
    for sentence in report.sentences:
        console.print(f"- {sentence}")
    console.print(report.places, style="bold", soft_wrap=True)
    console.print(table_of_cells(report, console.width))
    if (more := len(report.cells) - page.MOST) > 0:
        console.print(f"and {more:,} more cells, in the report and in summary.csv")
    console.print(report.legend, style="dim")
    if effects := report.effects:
        unit = report.comparison.metric.unit
        headings = ["value", "against", f"better by ({unit})" if unit else "better by", "95 % interval", "p", "verdict"]
        console.print(table_of(headings, effects[:MOST_EFFECTS], {0, 1}))
        if (more := len(effects) - MOST_EFFECTS) > 0:
            console.print(f"and {more} more, in the report and in pairs.csv")
    if report.plans:
        console.print("Further seeds would probably settle:")
    for said, commands in report.plans:
        console.print(f"- {said}{':' if commands else '.'}")
        if commands:
            console.print(commands, soft_wrap=True)
    for remark in report.comparison.remarks:
        console.print(remark, style="yellow")
    if report.progress:
        console.print(report.progress)
    if folder is not None:
        say(f"report: {folder / 'report.html'}")


def table_of_cells(report: page.Report, width: int) -> Table:
    """Return the table of the best cells; if space is short, without the last of the metrics not asked for."""
    columns = [(heading, texts[: page.MOST]) for heading, texts in report.columns]
    keys, wide = len(report.keys), [max(map(len, [heading, *texts])) for heading, texts in columns]
    widest = sum(max(map(len, texts)) for _, texts in columns[:keys])
    kept = list(range(len(columns)))
    others = kept[keys + 3 :][: len(report.metrics) - 1]  # after keys, runs, the metric asked for and its range
    folded = {place for place in kept if (place < keys and widest >= 60) or columns[place][0] == "remarks"}
    while others and sum(wide[place] + 3 for place in kept if place not in folded) + 20 > width:
        kept.remove(others.pop())
    lines = zip(*(columns[place][1] for place in kept), strict=True)
    return table_of([columns[place][0] for place in kept], list(lines), {kept.index(place) for place in folded})


def table_of(headings: Sequence[str], lines: Sequence[Sequence[str]], folded: Collection[int]) -> Table:
    """Return a table for the terminal; if space is short, the columns with these numbers are folded."""
    table = Table(collapse_padding=True)
    for number, heading in enumerate(headings):
        table.add_column(
            heading, no_wrap=number not in folded, overflow="fold", min_width=8 if number in folded else None
        )
    for line in lines:
        table.add_row(*(shortened(text, 200) for text in line))
    return table
