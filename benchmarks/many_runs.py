"""Comparison time in seconds, by the number of runs: python benchmarks/many_runs.py [CELLSxSEEDS ...].

The runs are synthetic, with every file that a comparison reads: record, history, confusion matrix, 10,000 predictions.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COMPARE = Path(__file__).parents[1] / "src" / "compare.py"
IMAGES, EPOCHS = 10_000, 15


def leave_run(folder: Path, lr: float, seed: int, truth: np.ndarray, random: np.random.Generator) -> None:
    """Write a synthetic run with an accuracy between 0.90 and 0.95.

    Args:
        folder: created here.
        lr: learning rate, which defines the cell.
        seed: seed of the run.
        truth: (IMAGES,) true classes.
        random: generator of everything else.
    """
    folder.mkdir(parents=True)
    accuracy = random.uniform(0.90, 0.95)
    record = {
        "status": "completed",
        "reason": None,
        "name": folder.name,
        "seed": seed,
        "choices": {"activation": "relu", "engine": "manual", "regularizer": "none", "data": "mnist"},
        "config": {"seed": seed, "optimizer": {"_target_": "torch.optim.SGD", "lr": lr}},
        "metrics": {"train/accuracy": accuracy + 0.01, "test/accuracy": accuracy, "test/loss": 1 - accuracy},
        "epochs": EPOCHS,
        "seconds_per_epoch": random.uniform(2, 3),
    }
    (folder / "metrics.json").write_text(json.dumps(record), encoding="utf-8")
    losses = [f"{epoch},{1 / (epoch + 1)},{1.1 / (epoch + 1)}" for epoch in range(EPOCHS)]
    write_lines(folder / "history.csv", ["epoch,train/loss,test/loss", *losses])
    np.savetxt(folder / "confusion_test.csv", random.integers(0, 1000, (10, 10)), fmt="%d", delimiter=",")
    predicted = np.where(random.random(IMAGES) < accuracy, truth, (truth + 1) % 10)
    rows = [f"{true},{guess},0.987654" for true, guess in zip(truth.tolist(), predicted.tolist(), strict=True)]
    write_lines(folder / "predictions.csv", ["true,predicted,probability", *rows])


def write_lines(path: Path, lines: list[str]) -> None:
    """Write lines to a text file."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Write the runs of each size, compare them, print the seconds."""
    for size in sys.argv[1:] or ["130x1", "400x1", "1300x1", "260x5"]:
        cells, seeds = map(int, size.split("x"))
        random = np.random.default_rng(0)
        truth = random.integers(0, 10, IMAGES)
        with tempfile.TemporaryDirectory() as folder:
            for cell in range(cells):
                for seed in range(seeds):
                    leave_run(Path(folder, f"{cell * seeds + seed}_relu"), 1e-5 * 1.01**cell, seed, truth, random)
            started = time.perf_counter()
            subprocess.run([sys.executable, COMPARE, f"sweep='{folder}'"], check=True, stdout=subprocess.DEVNULL)
            print(f"{cells} cells x {seeds}: {time.perf_counter() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
