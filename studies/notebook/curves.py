"""Loss curves of a sweep of the notebook's rows, with its printed ones: python studies/notebook/curves.py SWEEP.

The sweep: python src/train.py -m 'experiment=glob(notebook_*)'. Writes notebook_curves.png into the sweep's folder.
"""

import sys
from pathlib import Path

import pandas as pd

from handgrad.comparison import figures
from handgrad.comparison.load import load_runs
from handgrad.comparison.statistics import summarize_cells

PRINTED = Path(__file__).with_name("curves.csv")


def main(sweep: Path) -> None:
    """Plot the comparison's curves, with the notebook's in grey."""
    comparison, printed = load_runs([sweep]), pd.read_csv(PRINTED)
    cells = summarize_cells(comparison)
    figure = figures.losses(comparison, cells, figures.Look(cells.label.tolist()))
    for axes, row in zip(figure.axes, cells.to_dict("records"), strict=False):
        rows = printed[printed.run == "-".join(row[key] for key in ("engine", "activation", "regularizer"))]
        axes.plot(rows.epoch, rows.train_loss, "--", color="0.5", linewidth=1)
        axes.plot(rows.epoch, rows.test_loss, "--", color="0.5", linewidth=1)
    figure.savefig(sweep / "notebook_curves.png", dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
