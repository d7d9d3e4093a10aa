"""Saturation of tanh without warm-up: python studies/saturation.py SWEEP plots it from the runs' layers.csv.

The sweep: python src/train.py -m experiment=stability activation=tanh schedule=constant,warmup 'seed=range(0,10)'
    diagnostics=layers trainer.max_epochs=20 +trainer.limit_train_batches=47 hydra/launcher=parallel
"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from handgrad.runs.folder import LAYERS, METRICS
from handgrad.runs.record import read_record

TARGET = Path(__file__).parents[1] / "docs" / "images" / "tanh_saturation.png"
STEPS = 47  # per epoch of this sweep
PANELS = [
    ("saturated", 3, "share of saturated units in layer 3", "linear"),
    ("delta_norm", 1, "norm of delta 1", "log"),
]


def main(sweep: Path) -> None:
    """Plot a line per run, in red if it stayed at chance."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey="row")
    for folder in sorted(path.parent for path in sweep.glob(f"*/{METRICS}")):
        record = read_record(folder)
        assert record is not None
        stuck = record["metrics"]["test/accuracy"] < 0.2
        table = pd.read_csv(folder / LAYERS)
        column = ("constant", "warmup").index(record["choices"]["schedule"])
        for axes, (name, layer, title, scale) in zip(grid[:, column], PANELS, strict=True):
            rows = table[table.layer == layer]
            axes.plot(STEPS * rows.epoch, rows[name], color="tab:red" if stuck else "tab:blue", alpha=0.7)
            axes.set(yscale=scale)
            axes.grid(alpha=0.3)
            if not column:
                axes.set_ylabel(title)
    for axes, title in zip(grid[0], ("without warm-up", "with warm-up over 100 steps"), strict=True):
        axes.set_title(title)
    for axes in grid[1]:
        axes.set_xlabel("steps")
    figure.suptitle("tanh, ten seeds each; red: stayed at chance")
    figure.savefig(TARGET, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
