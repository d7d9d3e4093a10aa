"""Hand-made runs for tests of the comparison, and helpers that run the whole comparison on them."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from handgrad.comparison import load, page, report, sentences, statistics
from handgrad.comparison.table import CompareOptions, Comparison

NOISE = [-0.0004, 0.0001, 0.0003]  # of seeds 0, 1, 2


def leave_run(
    folder: Path,
    accuracy: float,
    seed: int = 0,
    activation: str = "relu",
    engine: str = "manual",
    status: str = "completed",
    right: list[bool] | None = None,
    **changes: Any,
) -> None:
    """Write the files of a run that a comparison reads; `changes` replace fields of its record."""
    folder.mkdir(parents=True)
    optimizer = {"manual": "notebook_sgd", "autograd": "adam"}[engine]
    config = {"seed": seed, "name": "x", "threads": None, "network": {"hidden_sizes": [500, 250]}}
    config["optimizer"] = {"_target_": optimizer, "lr": changes.pop("lr", 0.01)}
    metrics = {"train/accuracy": accuracy + 0.01, "test/accuracy": accuracy, "test/loss": 1 - accuracy}
    choices = {"activation": activation, "engine": engine, "regularizer": "none", "data": "mnist"}
    record = {
        "status": status,
        "reason": None,
        "name": f"{activation}-{engine}",
        "seed": seed,
        "choices": choices | {"optimizer": optimizer, "experiment": None},
        "config": config,
        "metrics": metrics if status == "completed" else {},
        "seconds_per_epoch": 2.0,
        "versions": {"torch": "2.14"},
        "commit": "abc",
    }
    (folder / "metrics.json").write_text(json.dumps(record | changes))
    (folder / "history.csv").write_text("epoch,train/loss,test/loss\n0,0.5,0.4\n1,0.3,0.35\n")
    np.savetxt(folder / "confusion_test.csv", np.eye(10) * 990 + 1, fmt="%d", delimiter=",")
    if right is not None:
        rows = "".join(f"3,{3 if was_right else 5},0.9\n" for was_right in right)
        (folder / "predictions.csv").write_text("true,predicted,probability\n" + rows)


def leave_cell(folder: Path, activation: str, accuracies: Sequence[float], seeds: Any = None, **changes: Any) -> None:
    """Write one run per accuracy, with seeds 0, 1, ... unless given."""
    for seed, accuracy in zip(seeds or range(len(accuracies)), accuracies, strict=True):
        leave_run(folder / f"{activation}{seed}{len(list(folder.glob('*')))}", accuracy, seed, activation, **changes)


def around(accuracy: float, noise: float = 1) -> list[float]:
    """Return accuracies of seeds 0, 1, 2."""
    return [accuracy + noise * each for each in NOISE]


def everything(folder: Path, **asked: Any) -> tuple[Comparison, pd.DataFrame, pd.DataFrame, str]:
    """Return comparison, cells, tests and all sentences of a folder."""
    comparison = load.load_runs([folder], CompareOptions(**asked))
    cells = statistics.summarize_cells(comparison)
    tests = statistics.compare(comparison, cells)
    return comparison, cells, tests, " ".join(sentences.sentences(comparison, cells, tests))


def leave_configured(folder: Path, accuracy: float, seed: int = 0, activation: str = "relu", **config: Any) -> None:
    """Write a run with a given configuration, for example optimizer={"lr": 0.1}."""
    leave_run(folder, accuracy, seed, activation, config={"seed": seed, "name": f"s{seed}", **config})


def written(folder: Path, drawn: bool = False, **asked: Any) -> Path:
    """Write the report of a folder, with or without figures, warnings as errors; return the report's folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = report.build_report([folder], CompareOptions(**asked), folder)
        (folder / "comparison").mkdir(exist_ok=True)
        page.write(built if drawn else replace(built, figures=[]), folder / "comparison")
    return folder / "comparison"
