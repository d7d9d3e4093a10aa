"""Compare the runs of a sweep, or of several: a table here, the whole report in the folder comparison/."""

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, ListConfig

from handgrad.config import UserError, run

if TYPE_CHECKING:
    from handgrad.report.page import Report

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook"


@hydra.main(version_base="1.3", config_path="../conf", config_name="compare")
def main(cfg: DictConfig) -> None:
    """Collect, pool, test, draw, write, show."""
    named = cfg.sweep if isinstance(cfg.sweep, ListConfig) else [] if cfg.sweep is None else [cfg.sweep]
    import pandas as pd  # nothing heavy before the configuration is composed

    from handgrad.report import figures, page, runs, statistics

    sources = runs.matching([str(name) for name in named], Path("outputs/sweeps"))
    comparison = runs.collect(sources)
    cells = statistics.pooled(comparison, pd.read_csv(NOTEBOOK / "results.csv"))
    pairs, effects = statistics.pairs(comparison, cells), statistics.effects(comparison)
    single = cells.completed.max() == 1
    report = page.Report(
        sources=sources,
        comparison=comparison,
        cells=cells,
        pairs=pairs,
        sentences=statistics.sentences(comparison, cells, pairs, effects),
        further=page.command_for_more_seeds(sources) if single else None,
        figures=list(figures.every(comparison, cells, pd.read_csv(NOTEBOOK / "curves.csv"))),
    )
    folder = destination(cfg, sources)
    try:
        page.write(report, folder)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): name another folder with output=...") from error
    show(report, folder)


def destination(cfg: DictConfig, sources: list[Path]) -> Path:
    """Where the report goes: what `output` says, the sweep's own folder, or, of several, a folder with today's date."""
    if cfg.output:
        return Path(cfg.output)
    if len(sources) == 1:
        return sources[0] / "comparison"
    return Path("outputs", "comparisons", f"{datetime.now():%Y-%m-%d_%H-%M-%S}")


def show(report: "Report", folder: Path) -> None:
    """Print the table, the sentences and where the rest is."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160, markup=False)  # brackets are values here
    table = Table(title=", ".join(map(str, report.sources)), title_justify="left")
    for heading in report.headings:
        table.add_column(heading, no_wrap="notebook" not in heading)
    for line in report.lines:
        table.add_row(*line)
    console.print(table)
    for sentence in report.sentences:
        console.print(f"- {sentence}", highlight=False)
    if report.further:
        console.print(
            f"With one seed per cell no interval can be given; this would give one:\n{report.further}", soft_wrap=True
        )
    for remark in report.comparison.remarks:
        console.print(remark, style="yellow", highlight=False)
    console.print(f"report: {os.path.relpath(folder / 'report.html')}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(main)
