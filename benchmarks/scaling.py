"""Scaling of epoch time with batch size, hidden layers and threads, against the bare matrix products.

    python benchmarks/scaling.py --csv docs/scaling.csv --figure docs/images/scaling.png

Every point times 200 steps of the manual module under the Trainer, as `train.py` runs it, with as many steps of the
bare products just before and after, three times. Times are scaled to an epoch of 60,000 images.
"""

import argparse
import contextlib
import csv
import itertools
import statistics
from pathlib import Path

import torch
from contenders import CLASSES, ROOT, matrix_products, under_trainer
from matplotlib.figure import Figure
from measuring import Terminal

from handgrad.training.data import Examples
from handgrad.training.mnist import INPUTS, MNISTDataModule

STEPS = 200
BATCHES = [16, 32, 64, 128, 256, 512, 1024]
HIDDEN = [[100], [500, 250, 100], [1000, 1000], [2000, 2000, 2000]]
DEFAULT_BATCH, DEFAULT_HIDDEN = 64, [500, 250, 100]
Point = dict[str, float | int | str]


def main() -> None:
    """Measure and print every point, then write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=Path("scaling.csv"))
    parser.add_argument("--figure", type=Path, default=Path("scaling.png"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    data = MNISTDataModule(root=str(ROOT / "data"))
    data.prepare_data()
    data.setup()

    sizes = [(batch, DEFAULT_HIDDEN) for batch in BATCHES] + [(DEFAULT_BATCH, hidden) for hidden in HIDDEN]
    points = []
    for threads in sorted({1, torch.get_num_threads()}):
        for batch, hidden in sizes:
            points.append(measure(data.sets["train"], batch, hidden, threads, options.rounds))
            print("  ".join(f"{key} {value}" for key, value in points[-1].items()), flush=True)
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, points[0])
        writer.writeheader()
        writer.writerows(points)
    draw(points).savefig(options.figure, dpi=120)


def measure(train: Examples, batch: int, hidden: list[int], threads: int, rounds: int) -> Point:
    """Measure one point: median seconds per epoch and median ratio."""
    torch.set_num_threads(threads)
    steps = min(STEPS, len(train.rows) // batch)
    bound = matrix_products([INPUTS, *hidden, CLASSES], batch, steps, torch.device("cpu"))
    settings = argparse.Namespace(batch_size=batch, hidden_sizes=hidden, device="cpu")
    # Plain SGD: the notebook's sum over a batch of 128 and more diverges.
    manual = under_trainer(
        settings,
        bound,
        "optimizer=factored_sgd",
        f"data.val_size={len(train.rows) - steps * batch}",  # limit_train_batches would add a call per batch
        "+trainer.limit_val_batches=1",
    )
    with contextlib.redirect_stdout(Terminal()), contextlib.redirect_stderr(Terminal()):
        measured = [manual()[0] for _ in range(rounds)]
    epoch = len(train.rows) / (steps * batch)
    weights = [i * o for i, o in itertools.pairwise([INPUTS, *hidden, CLASSES])]
    bounds, manuals = [one.bound for one in measured], [one.seconds for one in measured]
    operations = 2 * (3 * sum(weights) - weights[0]) * len(train.rows)  # docs/scaling.md
    return {
        "threads": threads,
        "batch": batch,
        "hidden": "-".join(map(str, hidden)),
        "products_seconds": round(statistics.median(bounds) * epoch, 3),
        "manual_seconds": round(statistics.median(manuals) * epoch, 3),
        "ratio": round(statistics.median(one.ratio for one in measured), 2),
        "gflop_per_second": round(operations / (statistics.median(bounds) * epoch) / 1e9, 1),
    }


def draw(points: list[Point]) -> Figure:
    """Plot seconds per epoch against batch size and against the number of weights."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    by_batch, by_width = figure.subplots(1, 2, sharey=True)
    for threads, style in zip(sorted({int(point["threads"]) for point in points}), ("--", "-"), strict=False):
        mine = [point for point in points if point["threads"] == threads]
        for axes, chosen, key in (
            (by_batch, mine[: len(BATCHES)], lambda point: point["batch"]),
            (by_width, mine[len(BATCHES) :], number_of_weights),
        ):
            for name, colour in (("manual", "#0072B2"), ("products", "#888888")):
                values = [point[f"{name}_seconds"] for point in chosen]
                label = f"{'manual module' if name == 'manual' else 'matrix products'}, {threads} thread(s)"
                axes.loglog([key(point) for point in chosen], values, style, color=colour, marker="o", label=label)
    by_batch.set(xlabel="batch size (images)", ylabel="seconds per epoch", title="hidden layers 500-250-100")
    by_batch.set_xticks(BATCHES, map(str, BATCHES), minor=False)
    by_width.set(xlabel="weights", title="batch 64, hidden layers from 100 to 2000-2000-2000")
    by_batch.legend()
    for axes in (by_batch, by_width):
        axes.grid(alpha=0.3, which="both")
    return figure


def number_of_weights(point: Point) -> int:
    """Return the number of weights of a point's network, without biases."""
    sizes = [INPUTS, *map(int, str(point["hidden"]).split("-")), CLASSES]
    return sum(i * o for i, o in itertools.pairwise(sizes))


if __name__ == "__main__":
    main()
