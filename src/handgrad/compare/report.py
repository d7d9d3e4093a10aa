"""Build, write and print a comparison report: for src/compare.py, and at the end of a sweep."""

from collections.abc import Sequence
from pathlib import Path

from handgrad.compare import effects, figures, load, page, sentences, statistics
from handgrad.compare.comparison import CompareOptions
from handgrad.console import table_console
from handgrad.errors import output_errors
from handgrad.text import escape_control, shortened


def build_report(sources: Sequence[Path], asked: CompareOptions, start: Path, progress: str = "") -> page.Report:
    """Collect, pool, test, draw.

    Args:
        sources: folders with runs in or below them.
        asked: what for.
        start: the directory from which commands are typed.
        progress: what is still to be done, of a sweep that is running.

    Raises:
        UserError: there is no run, or what is asked for does not fit them.
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
    """Write a report and print its table, its sentences and where the rest is.

    Args:
        report: to be written.
        folder: where to.
        every: seconds after which the open page loads itself again.

    Raises:
        UserError: it cannot be written.
    """
    with output_errors(folder):
        page.write(report, folder, every)
    show(report, folder)


def show(report: page.Report, folder: Path) -> None:
    """Print the table, the sentences and where the rest is."""
    from rich.table import Table

    console = table_console()
    table = Table(title=report.places, title_justify="left", collapse_padding=True)
    lines = report.lines(page.MOST)
    keys = len(report.comparison.keys)
    widest = sum(max(map(len, column)) for column in list(zip(*lines, strict=True))[:keys])
    for number, heading in enumerate(report.headings):  # where room is short, numbers and words stay whole
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
