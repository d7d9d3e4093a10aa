"""Compare the runs of a sweep, or of several: a table here, the whole report in the folder comparison/."""

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig

from handgrad import command
from handgrad.config import Comparing, check, resolved, writing_to

if TYPE_CHECKING:
    from handgrad.report.page import Report

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook"
ASKED = ("metric", "margin", "where", "group", "against")


@hydra.main(version_base="1.3", config_path="../conf", config_name="compare")
def main(cfg: DictConfig) -> None:
    """Collect, pool, test, draw, write, show."""
    config = resolved(cfg)
    check(config, Comparing)
    start = Path(HydraConfig.get().runtime.cwd)  # Hydra may have changed the working directory
    named = config["sweep"] if isinstance(config["sweep"], list) else [config["sweep"]]
    import pandas as pd  # nothing heavy before the configuration is composed

    from handgrad.report import figures, page, runs, sentences, statistics

    sources = runs.matching([str(name) for name in named if name is not None], Path("outputs/sweeps"), start)
    comparison = runs.collect(sources, runs.Asked(**{name: config[name] for name in ASKED}))
    cells = statistics.pooled(comparison, pd.read_csv(NOTEBOOK / "results.csv", encoding="utf-8"))
    pairs, effects = statistics.pairs(comparison, cells), statistics.effects(comparison)
    planned = sentences.plan(comparison, pairs, effects)
    remedy, seeds = page.remedy(comparison, cells, planned)
    report = page.Report(
        sources=sources,
        comparison=comparison,
        cells=cells,
        pairs=pairs,
        sentences=sentences.sentences(comparison, cells, pairs, effects),
        planned=planned,
        remedy=remedy,
        further=page.command_for_more_seeds(sources, start, comparison.remarks, seeds) if remedy else "",
        figures=list(figures.every(comparison, cells, pd.read_csv(NOTEBOOK / "curves.csv", encoding="utf-8"))),
    )
    folder = destination(config["output"], sources, start)
    with writing_to(folder):
        page.write(report, folder)
    show(report, folder)


def in_quotes(word: str) -> str:
    """An argument whose value is a condition or a cell, as Hydra reads it: its signs are no grammar of Hydra's."""
    key, _, text = word.partition("=")
    if key not in ("where", "against"):
        return word
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return f"{key}={QuotedString(text, Quote.single).with_quotes()}"
    return word


def destination(output: str | None, sources: list[Path], start: Path) -> Path:
    """Where the report goes: what `output` says, the sweep's own folder, or, of several, a folder with today's date."""
    if output is not None:
        return start / output
    if len(sources) == 1:
        return sources[0] / "comparison"
    return start / "outputs" / "comparisons" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"


def show(report: "Report", folder: Path) -> None:
    """Print the table, the sentences and where the rest is."""
    from rich.table import Table

    from handgrad.report.page import MOST
    from handgrad.report.runs import shortened
    from handgrad.report.sentences import about_seeds
    from handgrad.settings import plain

    console = command.table_console()
    table = Table(title=report.places, title_justify="left")
    lines = report.lines(MOST)
    keys = len(report.comparison.keys)
    widest = sum(max(map(len, column)) for column in list(zip(*lines, strict=True))[:keys])
    for number, heading in enumerate(report.headings):  # where room is short, numbers stay whole
        whole = widest < 60 if number < keys else "notebook" not in heading
        table.add_column(heading, no_wrap=whole, overflow="fold")
    for line in lines:
        table.add_row(*(shortened(text, 200) for text in line))
    console.print(table)
    if (more := len(report.cells) - MOST) > 0:
        console.print(f"and {more:,} more cells, in the report and in summary.csv")
    for sentence in report.sentences:
        console.print(f"- {sentence}")
    if len(report.planned):
        console.print(about_seeds(report.comparison, report.planned))
    if report.remedy:
        advice = f"{report.remedy}:\n{report.further}" if report.further else f"{report.remedy}."
        console.print(advice, soft_wrap=True)
    for remark in report.comparison.remarks:
        console.print(remark, style="yellow")
    console.print(f"report: {plain(str(folder / 'report.html'))}", soft_wrap=True)


if __name__ == "__main__":
    sys.argv[1:] = [in_quotes(word) for word in sys.argv[1:]]
    command.run(main)
