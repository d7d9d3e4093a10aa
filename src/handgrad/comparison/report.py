"""Build, write and print a comparison report: for src/compare.py, and at the end of a sweep."""

from collections.abc import Sequence
from pathlib import Path

from handgrad.comparison import effects, figures, load, page, sentences, statistics
from handgrad.comparison.table import CompareOptions
from handgrad.console import table_console
from handgrad.errors import output_errors
from handgrad.text import escape_control, shortened


def build_report(sources: Sequence[Path], asked: CompareOptions, start: Path, progress: str = "") -> page.Report:
    """Build a report: load runs, pool them into cells, test, plot.

    Args:
        sources: folders with runs in or below them.
        asked: the options.
        start: the directory in which commands are typed.
        progress: a sentence on the progress of a running sweep.

    Raises:
        UserError: there is no run, or the options do not fit the runs.
    """
    comparison = load.load_runs(sources, asked)
    cells = statistics.summarize_cells(comparison)
    pairs, by_key = statistics.compare_cells(comparison, cells), effects.main_effects(comparison)
    planned = sentences.plan(comparison, pairs, by_key)
    remedy, seeds = page.remedy(comparison, cells, planned)
    return page.Report(
        sources=sources,
        comparison=comparison,
        cells=cells,
        pairs=pairs,
        sentences=sentences.sentences(comparison, cells, pairs, by_key),
        planned=planned,
        remedy=remedy,
        further=page.command_for_more_seeds(sources, start, comparison.remarks, seeds) if remedy else "",
        progress=progress,
        figures=list(figures.every(comparison, cells)),
    )


def write_and_print(report: page.Report, folder: Path, every: int | None = None) -> None:
    """Write a report; print its table, its sentences and its path.

    Args:
        report: the report.
        folder: output folder.
        every: seconds after which the open page reloads itself; None: never.

    Raises:
        UserError: the report cannot be written.
    """
    with output_errors(folder):
        page.write(report, folder, every)
    show(report, folder)


def show(report: page.Report, folder: Path) -> None:
    """Print a report's table, sentences and path."""
    from rich.table import Table

    console = table_console()
    table = Table(title=report.places, title_justify="left", collapse_padding=True)
    lines = report.lines(page.MOST)
    keys = len(report.comparison.keys)
    widest = sum(max(map(len, column)) for column in list(zip(*lines, strict=True))[:keys])
    for number, heading in enumerate(report.headings):  # if space is short, fold remarks and wide keys, not numbers
        texts = number >= keys and heading == "remarks"
        whole = widest < 60 if number < keys else not texts
        table.add_column(heading, no_wrap=whole, overflow="fold", min_width=len("diverged") if texts else None)
    for line in lines:
        table.add_row(*(shortened(text, 200) for text in line))
    console.print(table)
    if (more := len(report.cells) - page.MOST) > 0:
        console.print(f"and {more:,} more cells, in the report and in summary.csv")
    for sentence in report.sentences:
        console.print(f"- {sentence}")
    if len(report.planned):
        console.print(sentences.about_seeds(report.comparison, report.planned))
    if report.remedy:
        advice = f"{report.remedy}:\n{report.further}" if report.further else f"{report.remedy}."
        console.print(advice, soft_wrap=True)
    for remark in report.comparison.remarks:
        console.print(remark, style="yellow")
    if report.progress:
        console.print(report.progress)
    console.print(f"report: {escape_control(str(folder / 'report.html'))}", soft_wrap=True)
