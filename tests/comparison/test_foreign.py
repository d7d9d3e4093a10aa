"""Oracle: outputs as their libraries leave them, read by hand, by the csv module, or by what the library says itself.

How the files in `foreign/` were made (November 2026, on Linux; paths of that machine were replaced by /project):

- hydra_lightning: Hydra 1.3.8, Lightning 2.6.6, `CSVLogger(cfg.paths.output_dir, name="csv")`; a network with one
  hidden layer learns sin(3x) for three epochs: `python train.py -m lr=0.1,0.01 model.width=4,8 seed=0,1,2`. Logs were
  deleted.
- tensorboard: the same with `TensorBoardLogger(cfg.paths.output_dir)`: `python train.py -m model.width=4,8`.
- scikit_grid_search.csv: scikit-learn 1.9.1, `GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 3,
  None], "criterion": ["gini", "entropy"]}, cv=5, return_train_score=True)` on iris; its `cv_results_` by `to_csv`.
- scikit_two_scorers.csv: the same with two depths, `cv=3` and `scoring=["accuracy", "neg_log_loss"]`.
- mlflow_runs.csv: mlflow-skinny 3.17.2, eight runs of two lr, two decays (one None) and two seeds, logged as numbers,
  and a failed run whose loss is NaN; `mlflow.search_runs().to_csv(index=False)`.
- wandb_export.csv: written by a script, as an export needs an account. Its layout is that of one real export, found in
  a public repository: every value quoted, W&B's own columns, then the configuration and then the summary, both sorted,
  with plain names; "-" for no notes.
"""

import csv
import io
import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml  # type: ignore[import-untyped]

import handgrad
from conftest import ROOT
from handgrad.comparison.foreign import read_folders, read_table
from handgrad.comparison.own import Runs
from handgrad.errors import UserError

REAL = Path(__file__).parent / "foreign"
SWEEP = [{"lr": lr, "model.width": width, "seed": seed} for lr in (0.1, 0.01) for width in (4, 8) for seed in (0, 1, 2)]
ROWS: list[dict[str, Any]] = [  # settings that repeat, seeds, a metric that does not
    {"model": model, "lr": lr, "seed": seed, "loss": 0.5 + 0.1 * number}
    for number, (model, lr, seed) in enumerate([("a", 0.1, 0), ("a", 0.1, 1), ("b", 1.0, 0), ("b", 1.0, 1)])
]


def of_rows(rows: Sequence[dict[str, Any]], **asked: Any) -> Runs:
    """Read rows as a data frame."""
    return read_table(pd.DataFrame(rows), **asked)


def with_column(name: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    """Return ROWS with another column."""
    return [row | {name: value} for row, value in zip(ROWS, values, strict=True)]


def of_text(folder: Path, text: str, **asked: Any) -> Runs:
    """Read a text as a CSV file."""
    (folder / "runs.csv").write_text(text, encoding="utf-8")
    return read_table(folder / "runs.csv", **asked)


def leave_hydra_run(folder: Path, files: dict[str, str] | None = None, **config: Any) -> Path:
    """Write a run's configuration as Hydra does, and other files by their paths."""
    contents = {".hydra/config.yaml": yaml.safe_dump(config)} | (files or {})
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    return folder


def settings(runs: Runs) -> list[dict[str, Any]]:
    """Return every run's settings."""
    return [record["settings"] for record in runs.records]


def metrics(runs: Runs) -> list[dict[str, float]]:
    """Return every run's metrics."""
    return [record["metrics"] for record in runs.records]


def seeds(runs: Runs) -> list[Any]:
    """Return every run's seed."""
    return [record["seed"] for record in runs.records]


def test_a_hydra_sweep_of_lightning_runs_is_read_as_its_overrides_say() -> None:
    runs = read_folders([REAL / "hydra_lightning"])
    assert [record["folder"].name for record in runs.records] == [str(number) for number in range(12)]
    for record, swept in zip(runs.records, SWEEP, strict=True):
        overrides = yaml.safe_load((record["folder"] / ".hydra/overrides.yaml").read_text())
        assert overrides == [f"{name}={value}" for name, value in swept.items()]
        varying = {name: value for name, value in record["settings"].items() if name in swept}
        assert varying | {"seed": record["seed"]} == swept
        assert (record["status"], record["seconds"]) == ("completed", None)
        with (record["folder"] / "csv/version_0/metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert record["metrics"] == {
            "test/loss": float(rows[-1]["test/loss"]),  # Lightning leaves the other columns of that row empty
            "train/loss": float(rows[-2]["train/loss"]),
            "val/loss": float(rows[-3]["val/loss"]),
        }
    assert runs.records[0]["metrics"]["train/loss"] == 0.21478867530822754
    assert runs.records[0]["settings"]["paths.output_dir"] == "${hydra:runtime.output_dir}"
    assert (runs.paired, runs.remarks) == (True, [])


def test_event_files_of_tensorboard_give_the_values_of_the_csv_logger() -> None:
    runs = read_folders([REAL / "tensorboard"])
    twins = read_folders([REAL / "hydra_lightning/0", REAL / "hydra_lightning/3"])  # lr 0.1, widths 4 and 8, seed 0
    assert settings(runs) == settings(twins)
    for mine, twin in zip(metrics(runs), metrics(twins), strict=True):
        assert mine == pytest.approx(twin, abs=0, rel=1e-12)


def test_splits_of_a_grid_search_are_seeds_and_average_to_its_mean_test_score() -> None:
    runs = read_table(REAL / "scikit_grid_search.csv")
    with (REAL / "scikit_grid_search.csv").open() as file:
        candidates = list(csv.DictReader(file))
    assert len(runs.records) == 5 * len(candidates) == 30
    for number, candidate in enumerate(candidates):
        mine = runs.records[5 * number : 5 * number + 5]
        depth = int(candidate["param_max_depth"]) if candidate["param_max_depth"] else None
        chosen = {"criterion": candidate["param_criterion"], "max_depth": depth}
        assert [(record["settings"], record["seed"]) for record in mine] == [(chosen, seed) for seed in range(5)]
        for name in ("test_score", "train_score"):
            mean = math.fsum(record["metrics"][name] for record in mine) / 5
            assert mean == pytest.approx(float(candidate[f"mean_{name}"]), abs=1e-15)
    assert metrics(runs)[7] == {"test_score": 0.9333333333333333, "train_score": 0.9916666666666667}
    assert {name for row in metrics(runs) for name in row} == {"test_score", "train_score"}
    assert runs.records[7]["folder"] == Path("candidate 1 split 2")
    assert (runs.paired, len(runs.remarks)) == (True, 1)
    assert "Each split of the cross-validation counts as a seed" in runs.remarks[0]


def test_several_scorers_of_a_grid_search_are_metrics_of_their_names() -> None:
    runs = read_table(REAL / "scikit_two_scorers.csv")
    assert seeds(runs) == [0, 1, 2, 0, 1, 2]
    assert settings(runs) == [{"max_depth": 1}] * 3 + [{"max_depth": 3}] * 3
    assert metrics(runs)[4] == {"test_accuracy": 0.94, "test_neg_log_loss": -2.1707285055091923}


def test_prefixes_of_mlflow_tell_settings_from_metrics() -> None:
    runs = read_table(REAL / "mlflow_runs.csv")
    failed, newest = runs.records[:2]
    assert newest == {
        "folder": Path("marvelous-eel-747"),
        "choices": {},
        "seed": 1,
        "settings": {"model": "mlp", "optimizer.weight_decay": 0.001, "lr": 0.01},
        "metrics": {"train_loss": 0.19106709150239054, "val/accuracy": 0.907},
        "status": "completed",
        "seconds": None,
    }
    assert (failed["status"], failed["metrics"]) == ("failed", {})
    assert failed["settings"] == {"model": "mlp", "optimizer.weight_decay": None, "lr": 1}
    assert seeds(runs) == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    left_out = "run_id, experiment_id, artifact_uri, start_time, end_time and 3 more"
    assert runs.remarks == [f"Left out: 8 of 16 columns, no setting and no metric: {left_out}."]


def test_order_of_columns_tells_settings_from_metrics_in_an_export_of_wandb() -> None:
    runs = read_table(REAL / "wandb_export.csv")
    running, last = runs.records[:2]
    assert last == {
        "folder": Path("icy-pond-12"),
        "choices": {},
        "seed": 2,
        "settings": {"architecture": "mlp", "augment": False, "dropout": None, "config.epochs": 10}
        | {"learning_rate": 0.001, "optimizer.name": "adam"},
        "metrics": {"train_loss": 0.1480226973017603, "val_accuracy": 0.899},
        "status": "completed",
        "seconds": 76.0,
    }
    assert (running["status"], running["seconds"], running["metrics"]) == ("running", 12.0, {"val_accuracy": 0.1135})
    crashed = next(record for record in runs.records if record["folder"].name == "vivid-sky-8")
    assert (crashed["status"], crashed["metrics"]) == ("failed", {})
    assert runs.remarks == [
        "Left out: 10 of 22 columns, no setting and no metric: Notes, User, Tags, Created, Sweep and 5 more.",
        "Left out: 2 values, NaN or infinite, of train_loss.",
    ]


def test_a_random_search_in_wandb_keeps_its_unique_learning_rates_as_settings() -> None:
    own = {"Name": ["x", "y", "z"], "State": ["finished"] * 3, "Created": ["2026-01-01T00:00:00.000Z"] * 3}
    config = {"dropout": [0.11, 0.23, 0.31], "lr": [0.013, 0.2, 0.07]}
    more = {"best": [8, 8, 9], "note": ["p", "q", "r"], "val": [0.1, 0.2, 0.4]}
    runs = read_table(pd.DataFrame(own | config | more))
    assert settings(runs)[1] == {"dropout": 0.23, "lr": 0.2}
    assert metrics(runs)[2] == {"best": 9.0, "val": 0.4}
    third = {"z": [0.1, 0.2, 0.4], "lr": [0.3, 0.1, 0.2], "decay": [1, 1, 2]}
    for moved in ({"val_loss": [0.1, 0.2, 0.4]} | config, third):
        assert "By name and repetition, settings are " in read_table(pd.DataFrame(own | moved)).remarks[0]


SEEDS = "seed Seed random_seed random_state config.seed params.seed param_random_state trainer/seed params_seed"


@pytest.mark.parametrize("name", [*SEEDS.split(), "param_clf__random_state", "seed_everything"])
def test_seed_is_found_by_name(name: str) -> None:
    rows = [{"lr": lr, name: seed, "val_loss": lr + seed / 100} for lr in (0.1, 0.2) for seed in (7, 8)]
    runs = of_rows([{("params.lr" if "." in name else "lr"): row.pop("lr"), **row} for row in rows])
    assert seeds(runs) == [7, 8, 7, 8]
    assert settings(runs) == [{"lr": 0.1}] * 2 + [{"lr": 0.2}] * 2
    assert runs.paired


WITHOUT = [{name: value for name, value in row.items() if name != "seed"} for row in ROWS]


@pytest.mark.parametrize(
    ("rows", "asked", "found", "remark"),
    [
        (with_column("part", ["x", "y", "x", "y"]), "part", ["x", "y", "x", "y"], ""),  # the other seed follows from it
        ([row | {"random_state": 3, "data.seed": 2 * row["seed"] + 1} for row in ROWS], None, [0, 1, 0, 1], ""),
        ([row | {"seed": 42, "data.seed": row["seed"]} for row in ROWS], None, [0, 1, 0, 1], ""),  # one that varies
        (WITHOUT, None, [0, 1, 0, 1], "There is no seed: runs with equal settings are numbered as repeats, and form"),
        (with_column("seed", [0, None] * 2), None, [0, "unknown 1", 0, "unknown 2"], "2 of 4 runs have no seed, and"),
    ],
    ids=["named", "several", "fixed", "none", "some"],
)
def test_seed_is_the_named_one_or_one_that_varies(
    rows: list[dict[str, Any]], asked: str | None, found: list[Any], remark: str
) -> None:
    runs = of_rows(rows, seed=asked)
    assert seeds(runs) == found
    assert settings(runs)[2] == {"model": "b", "lr": 1}  # neither the seed nor one that follows from it
    assert runs.paired == (rows is not WITHOUT)
    assert any(said.startswith(remark) for said in runs.remarks)


def test_values_that_repeat_are_settings_and_others_metrics() -> None:
    columns: dict[str, tuple[list[Any], str]] = {
        "depth": ([2, 2, 4, 4], "setting"),
        "flag": ([True, False, True, True], "setting"),
        "constant": (["x"] * 4, "setting"),
        "cost": ([0.5, 0.25, 0.75, 0.125], "metric"),
        "hits": ([41, 37, 45, 40], "metric"),
        "accuracy": ([0.9, 0.9, 0.9, 0.9], "metric"),  # by name, though it repeats
        "val/f1": ([0.9, 0.9, 0.8, 0.8], "metric"),
        "rank": ([1, 2, 3, 4], "other"),
        "comment": (["p", "q", "r", "s"], "other"),
        "when": (["2026-01-01"] * 2 + ["2026-01-02"] * 2, "other"),
        "run_id": ([5, 5, 6, 6], "other"),
        "empty": ([None] * 4, "other"),
    }
    rows = [row | {name: values[number] for name, (values, _) in columns.items()} for number, row in enumerate(ROWS)]
    runs = of_rows(rows)
    first = runs.records[0]
    for name, (values, role) in columns.items():
        assert first["settings"].get(name) == (values[0] if role == "setting" else None), name
        assert first["metrics"].get(name) == (values[0] if role == "metric" else None), name
    assert runs.remarks == [
        "By name and repetition, settings are model, lr, depth, flag, constant; metrics are loss, cost, hits, "
        "accuracy, val/f1; the seed is seed: group=[...], metric=... and seed=... override this.",
        "Left out: 5 of 16 columns, no setting and no metric: rank, comment, when, run_id, empty.",
    ]


def test_metric_asked_for_is_one_in_any_case() -> None:
    deep = of_rows(with_column("depth", [2, 2, 4, 4]), metric="depth")
    assert metrics(deep)[3] == pytest.approx({"loss": 0.8, "depth": 4})
    runs = read_table(REAL / "mlflow_runs.csv", metric="val/accuracy")  # by its short name
    assert metrics(runs)[1]["val/accuracy"] == 0.907
    timed = of_rows(with_column("runtime", [1.5, 2.5, 3.5, 4.5]), metric="runtime").records[1]
    assert timed["seconds"] == timed["metrics"]["runtime"] == 2.5


def test_keys_asked_for_are_the_settings() -> None:
    rows = [row | {"width": number, "cells": 9} for row, number in zip(ROWS, (5, 6, 7, 8), strict=True)]
    runs = of_rows(rows, keys=["width", "model"])
    assert settings(runs)[1] == {"model": "a", "width": 6}
    assert metrics(runs)[2] == pytest.approx({"loss": 0.7})
    assert runs.remarks[-1] == "Left out: 2 of 6 columns, no setting and no metric: lr, cells."
    assert runs.records[2]["others"] == {"lr": 1}
    assert settings(read_table(REAL / "mlflow_runs.csv", keys=["lr"]))[1] == {"lr": 0.01}
    assert settings(of_rows(with_column("name", [*"wxyz"]), keys=["name"]))[1] == {"name": "x"}


def test_names_of_runs_are_unique() -> None:
    named = of_rows(with_column("name", ["x", "x", "y", "z"]))
    assert [record["folder"].name for record in named.records] == ["x", "x (2)", "y", "z"]
    assert settings(named)[0] == {"model": "a", "lr": 0.1}
    assert [record["folder"].name for record in of_rows(ROWS).records] == ["run 1", "run 2", "run 3", "run 4"]
    assert settings(of_rows(with_column("name", ["x", "x", "y", "y"])))[0]["name"] == "x"  # repeats: a setting


@pytest.mark.parametrize(
    ("words", "statuses"),
    [
        (["finished", "crashed", "killed", "running"], ["completed", "failed", "failed", "running"]),  # W&B
        (["FINISHED", "FAILED", "RUNNING", "SCHEDULED"], ["completed", "failed", "running", "running"]),  # MLflow
        (["COMPLETE", "FAIL", "PRUNED", "WAITING"], ["completed", "failed", "failed", "running"]),  # Optuna
        (["TERMINATED", "ERROR", "PENDING", None], ["completed", "failed", "running", "completed"]),  # Ray
    ],
)
def test_words_for_a_status_are_translated(words: list[str], statuses: list[str]) -> None:
    assert [record["status"] for record in of_rows(with_column("State", words)).records] == statuses


def test_a_state_that_is_no_status_is_a_setting() -> None:
    runs = of_rows(with_column("state", ["solid", "liquid", "solid", "liquid"]))
    assert settings(runs)[1] == {"model": "a", "lr": 0.1, "state": "liquid"}
    assert runs.records[1]["status"] == "completed"


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("Runtime", 9910, 9910.0),  # W&B
        ("duration", "0 days 00:01:30.500000", 90.5),  # Optuna's, in a CSV file
        ("duration", pd.Timedelta(seconds=2), 2.0),
        ("time_total_s", 0.25, 0.25),  # Ray
        ("duration", "long", None),
        ("runtime", -1, None),
    ],
)
def test_columns_of_time_give_seconds(name: str, value: Any, seconds: float | None) -> None:
    assert of_rows(with_column(name, [value] * 4)).records[0]["seconds"] == seconds


def test_missing_and_infinite_values_are_no_metrics(tmp_path: Path) -> None:
    text = "lr,seed,loss,acc\n0.1,0,0.5,\n0.1,1,NaN,0.9\n0.2,0,inf,0.8\n0.2,1,,0.7\n"
    runs = of_text(tmp_path, text)
    assert metrics(runs) == [{"loss": 0.5}, {"acc": 0.9}, {"acc": 0.8}, {"acc": 0.7}]
    assert "Left out: 2 values, NaN or infinite, of loss." in runs.remarks
    assert [record["status"] for record in runs.records] == ["completed"] * 4
    none = of_text(tmp_path, "lr,seed,loss\n0.1,0,0.5\n0.1,1,\n")
    assert [record["status"] for record in none.records] == ["completed", "failed"]


def test_values_of_a_column_have_one_type(tmp_path: Path) -> None:
    header = "rate,width,flag,depth,init,seed,loss"
    rows = ("1,4,True,,he,0,0.1", "1.0,4.0,true,None,1,1,0.2", "0.5,8,FALSE,3,he,0,0.3", "0.5,8,False,3,1,1,0.4")
    values = settings(of_text(tmp_path, "\n".join([header, *rows])))
    assert json.dumps(values[0]) == '{"rate": 1, "width": 4, "flag": true, "depth": null, "init": "he"}'
    assert json.dumps(values[1]) == '{"rate": 1, "width": 4, "flag": true, "depth": null, "init": "1"}'
    assert json.dumps(values[2]) == '{"rate": 0.5, "width": 8, "flag": false, "depth": 3, "init": "he"}'


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_other_separators_count_where_the_header_has_no_comma(tmp_path: Path, mark: str) -> None:
    text = "lr,seed,loss\n0.1,0,0.5\n0.1,1,0.25\n".replace(",", mark)
    runs = of_text(tmp_path, "\ufeff" + text)  # Excel's mark of UTF-8
    assert (settings(runs)[0], metrics(runs)) == ({"lr": 0.1}, [{"loss": 0.5}, {"loss": 0.25}])
    assert of_text(tmp_path, text.replace(mark, f"{mark} ")) == runs


def test_great_numbers_stay_exact(tmp_path: Path) -> None:
    runs = of_text(tmp_path, "seed,most,loss\n12345678901234567890,1e300,1\n12345678901234567891,1e300,2\n")
    assert seeds(runs) == [12345678901234567890, 12345678901234567891]
    assert json.dumps(settings(runs)[0]) == '{"most": 1e+300}'


def test_prefixes_stay_where_a_setting_and_a_metric_are_called_the_same() -> None:
    rows = [{"params.lr": 0.1, "params.seed": seed, "metrics.lr": 0.05, "metrics.loss": seed} for seed in (0, 1)]
    runs = of_rows(rows)
    assert (settings(runs)[0], metrics(runs)[0]) == ({"params.lr": 0.1}, {"metrics.lr": 0.05, "loss": 0.0})


def test_booleans_are_settings_however_few_the_rows() -> None:
    runs = of_rows([{"flag": flag, "seed": 0, "loss": loss} for flag, loss in ((True, 0.5), (False, 0.25))])
    assert settings(runs) == [{"flag": True}, {"flag": False}]


def test_a_file_of_one_column_is_repeats_of_one_cell(tmp_path: Path) -> None:
    runs = of_text(tmp_path, "loss\n0.5\n0.25\n")  # csv.Sniffer takes "s" for its separator
    assert [(record["seed"], record["metrics"]) for record in runs.records] == [(0, {"loss": 0.5}), (1, {"loss": 0.25})]
    assert metrics(of_text(tmp_path, "cost\n0.5\n")) == [{"cost": 0.5}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read (No such file or directory): give a CSV file, a row per run"),
        (b"", "cannot be read (No columns to parse from file): give a CSV file, a row per run"),
        (b"\x89PNG\r\n\x1a\n", "is not UTF-8 text: save it as CSV in UTF-8"),
        (b"a,b\n1,2\n1,2,3\n", "cannot be read (Error tokenizing data. C error: Expected 2 fields in line 3, saw 3)"),
        (b"lr,loss\n", "has no rows: give a header, and a row per run"),
        (b"lr,loss,lr\n1,2,3\n", "has several columns named lr: rename them, or keep one"),
        (b"model,data\na,b\na,c\n", "has no column that looks like a metric: it has no numbers"),
        (b"lr,width\n1,2\n1,2\n", "has no column that looks like a metric: choose metric=..., one of lr, width"),
    ],
)
def test_an_unusable_table_is_refused_in_one_sentence(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "runs.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_table(path)
    assert str(raised.value).startswith(f"table={path} {sentence}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"metric": "f1"}, "metric=f1 is not a column of numbers in table: it has lr, seed, loss"),
        ({"metric": "model"}, "metric=model of table is not numeric: 'a' is not a number like 0.31"),
        ({"seed": "fold"}, "seed=fold is not a column of table: it has model, lr, seed, loss"),
        ({"keys": ["lr", "width"]}, "group=width is not a column of table: it has model, lr, seed, loss"),
    ],
)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        of_rows(ROWS, **asked)
    assert str(raised.value) == sentence


def test_thousands_of_rows_take_seconds(tmp_path: Path) -> None:
    rows = [
        {"lr": number % 5 / 10, "seed": number % 100, "model": "ab"[number % 2], "tag": number % 7}
        | {f"metric_{which}": math.sin(number * (which + 1)) for which in range(10)}
        for number in range(5000)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "runs.csv")
    started = time.process_time()
    runs = read_table(tmp_path / "runs.csv")
    assert time.process_time() - started < 2
    assert len(runs.records) == 5000
    assert runs.records[4999]["metrics"]["metric_9"] == math.sin(49990)


def test_newest_version_of_a_csv_logger_counts(tmp_path: Path) -> None:
    files = {
        f"lightning_logs/version_{number}/metrics.csv": f"epoch,step,val_loss\n0,1,{number}.5\n"
        for number in (2, 9, 10)
    }
    run = leave_hydra_run(tmp_path / "run", files, seed=1)
    assert metrics(read_folders([run])) == [{"val_loss": 10.5}]


def test_numbers_of_a_json_file_are_metrics(tmp_path: Path) -> None:
    content = {"test": {"acc": 0.9, "f1": {"macro": 0.8}, "ok": True, "name": "x"}, "_step": 5, "epoch": 3, "list": [1]}
    leave_hydra_run(tmp_path / "0", {"metrics.json": json.dumps(content), "eval.json": '{"acc": 0.1}'}, seed=0)
    leave_hydra_run(tmp_path / "1", {"out/all_results.json": json.dumps({"eval_loss": 2})}, seed=1)
    leave_hydra_run(tmp_path / "2", {"package.json": json.dumps({"eval_loss": 2}), "results.json": "[1, 2]"}, seed=2)
    runs = read_folders([tmp_path])
    assert metrics(runs) == [{"test/acc": 0.9, "test/f1/macro": 0.8}, {"eval_loss": 2.0}, {}]
    assert [record["status"] for record in runs.records] == ["completed", "completed", "failed"]
    assert runs.remarks == []


def test_metrics_csv_counts_before_json_and_json_before_event_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(REAL / "tensorboard" / "0", run)
    (run / "results.json").write_text('{"val/loss": 3}')
    assert metrics(read_folders([run])) == [{"val/loss": 3.0}]
    (run / "metrics.csv").write_text("step,val/loss\n1,4\n")
    assert metrics(read_folders([run])) == [{"val/loss": 4.0}]


def test_a_record_of_this_project_is_skipped_silently(tmp_path: Path) -> None:
    record = {"status": "completed", "choices": {}, "config": {}, "metrics": {"test/accuracy": 0.9}}
    leave_hydra_run(tmp_path / "own", {"metrics.json": json.dumps(record)}, seed=0)
    assert read_folders([tmp_path]) == Runs([], [], own=False, paired=False)


def test_files_of_a_run_inside_another_are_its_own(tmp_path: Path) -> None:
    leave_hydra_run(tmp_path / "outer", lr=1)
    leave_hydra_run(tmp_path / "outer" / "inner", {"metrics.csv": "loss\n1\n"}, lr=2)
    runs = read_folders([tmp_path])
    assert [(record["folder"].name, record["metrics"]) for record in runs.records] == [
        ("outer", {}),
        ("inner", {"loss": 1.0}),
    ]


def test_damaged_files_are_skipped_and_named(tmp_path: Path) -> None:
    leave_hydra_run(tmp_path / "0", {".hydra/config.yaml": "a: [1\n", "metrics.csv": "loss\n1\n"})
    leave_hydra_run(tmp_path / "1", {"metrics.csv": "loss,acc\n1,0.5\n2,0.", "results.json": '{"loss": 3}'}, lr=1)
    leave_hydra_run(tmp_path / "2", {"metrics.json": '{"loss": '}, lr=1)
    leave_hydra_run(tmp_path / "3", {".hydra/config.yaml": "!!python/object/apply:os.getcwd []\n"})
    leave_hydra_run(tmp_path / "4", {".hydra/config.yaml": "- 1\n"})
    runs = read_folders([tmp_path])
    assert [(record["folder"].name, record["metrics"]) for record in runs.records] == [("1", {"loss": 3.0}), ("2", {})]
    for name, reason in [
        ("0/.hydra/config.yaml", "while parsing a flow sequence"),
        ("1/metrics.csv", "its last line is cut short"),
        ("2/metrics.json", "Expecting value"),
        ("3/.hydra/config.yaml", "could not determine a constructor"),
        ("4/.hydra/config.yaml", "it is not a mapping"),
    ]:
        assert any(f"Left out: {tmp_path / name} is damaged ({reason}" in remark for remark in runs.remarks), name
    assert not any("\n" in remark for remark in runs.remarks)


def test_settings_that_name_a_run_are_dropped(tmp_path: Path) -> None:
    for number in (0, 1):
        folder = tmp_path / "multirun" / "sweep" / str(number)
        paths = {"root": "/data", "here": f"/old/sweep/{number}/checkpoints", "log_dir": f"logs/{number}"}
        config = {"name": f"run{number}", "paths": paths, "model": {"name": f"net{number}"}, "lr": 1.0}
        leave_hydra_run(folder, {"results.json": '{"loss": 1}'}, **config)
    runs = read_folders([tmp_path])
    assert settings(runs) == [{"paths.root": "/data", "model.name": f"net{number}", "lr": 1} for number in (0, 1)]
    assert runs.remarks[0] == "Left out: settings that name a run (name, paths.here, paths.log_dir)."
    row = {"params.lr": 1, "params.output_dir": "out/0", "params.seed": 0, "metrics.x": 0}
    rows = [row, row | {"params.output_dir": "out/1", "params.seed": 1}]
    assert settings(of_rows(rows)) == [{"lr": 1}] * 2


def test_configurations_keep_lists_and_turn_dates_into_texts(tmp_path: Path) -> None:
    text = "sizes: [500, 250]\nday: 2026-01-02\nmissing: ???\nby: {1: 2.0}\nname: x\nnone: null\n"
    leave_hydra_run(tmp_path / "run", {".hydra/config.yaml": "hydra: {job: {num: 3}}\n" + text})
    expected = {"sizes": [500, 250], "day": "2026-01-02", "missing": "???", "by.1": 2, "name": "x", "none": None}
    assert json.dumps(settings(read_folders([tmp_path]))) == json.dumps([expected])


def test_a_seed_of_folders_can_be_named_and_must_be_there(tmp_path: Path) -> None:
    for fold in (0, 1):
        leave_hydra_run(tmp_path / str(fold), data={"part": fold}, seed=None)
    runs = read_folders([tmp_path], seed="data.part")
    assert seeds(runs) == [0, 1]
    assert not read_folders([tmp_path]).paired  # seed: null in all runs is none
    with pytest.raises(UserError) as raised:
        read_folders([tmp_path], seed="part")
    assert (
        str(raised.value)
        == "seed=part is not a setting of these runs: did you mean data.part? they have data.part, seed"
    )


@pytest.mark.slow
def test_reading_event_files_imports_neither_torch_nor_tensorflow() -> None:
    code = (
        "import sys; from pathlib import Path; from handgrad.comparison.foreign import read_folders;"
        f"assert read_folders([Path({str(REAL / 'tensorboard')!r})]).records[0]['metrics'];"
        "print(sorted({'torch', 'lightning', 'tensorflow'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


GRID = [("A", 0.001), ("A", 0.001), ("A", 0.002), ("A", 0.002), ("B", 0.1), ("B", 0.1), ("B", 0.01)]


def test_learning_rate_stays_a_setting_if_a_run_is_missing() -> None:
    rows = [{"model": model, "lr": lr, "seed": place % 2, "acc": 0.8} for place, (model, lr) in enumerate(GRID)]
    assert settings(of_rows(rows))[-1] == {"model": "B", "lr": 0.01}


def test_last_epoch_of_each_run_of_a_history_counts() -> None:
    rows = [
        {"model": model, "seed": seed, "epoch": epoch, "val_acc": 0.1 * epoch + 0.01 * seed}
        for model in "ab"
        for seed in (0, 1)
        for epoch in (2, 0, 1)
    ]
    runs = of_rows(rows)
    assert metrics(runs) == [{"val_acc": pytest.approx(0.2 + 0.01 * seed)} for seed in (0, 1, 0, 1)]
    assert runs.remarks[0] == "The last epoch or step of each run counts: 4 of 12 rows."
    iterations = [{"lr": lr, "iteration": number, "loss": lr} for lr in (0.1, 0.2) for number in range(4)]  # repeats
    assert len(of_rows(iterations).records) == 8
    whole = [dict(row, run=f"{row['model']}-{row['seed']}") for row in rows]
    assert settings(of_rows(whole)) == [{"model": model} for model in "aabb"]  # the run's name is none
    best = [{"model": "a", "best_epoch": epoch, "val_acc": 0.9} for epoch in (12, 15, 11, 20)]  # no history
    assert len(of_rows(best).records) == 4


@pytest.mark.parametrize("name", ["run", "trial", "split", "run_idx", "model_seed", "cv_fold"])
def test_numbers_of_repetitions_are_seeds(name: str) -> None:
    rows = [{"lr": lr, name: number, "loss": lr + number} for lr in (0.1, 0.2) for number in (1, 2, 3)]
    runs = of_rows(rows)
    assert (seeds(runs), settings(runs)[0]) == ([1, 2, 3, 1, 2, 3], {"lr": 0.1})
    assert any("share training data" in remark for remark in runs.remarks) == ("fold" in name)
    unique = of_rows([row | {name: place} for place, row in enumerate(rows)])
    assert unique.paired == ("seed" in name or "fold" in name)  # else it names the run


def test_second_seed_is_averaged_over_unless_it_is_a_key() -> None:
    rows = [
        {"model": model, "fold": fold, "seed": seed, "auc": 0.5} for model in "ab" for fold in (0, 1) for seed in (3, 4)
    ]
    runs = of_rows(rows)
    assert (seeds(runs)[:4], settings(runs)[0]) == ([3, 4, 3, 4], {"model": "a"})
    assert "Averaged over fold within each seed: group=[...] or seed=... override this." in runs.remarks
    assert settings(of_rows(rows, keys=["model", "fold"]))[0] == {"model": "a", "fold": 0}


def test_labels_and_tags_that_repeat_are_settings_or_said() -> None:
    rows = [
        {"params.lr": lr, "metrics.reward": 100 * place, "tags.algo": algo, "tags.note": f"n{place}", "host": algo}
        for place, (lr, algo) in enumerate([(0.1, "dqn"), (0.1, "ppo"), (0.01, "dqn"), (0.01, "ppo")])
    ]
    assert settings(of_rows(rows))[1] == {"lr": 0.1, "algo": "ppo"}
    (caveat,) = handgrad.compare(pd.DataFrame(rows), group=["lr"]).comparison.caveats
    assert caveat.startswith("Runs within a cell differ in algo, host, ")
    assert "group=[lr,algo,host]" in caveat


def test_spreadsheets_are_read_as_people_export_them(tmp_path: Path) -> None:
    rows = ["base;0;97,3 %;", "base;1;97,1 %;", "large;0;98,0 %;", "large;1;98,2 %;", ";;;", "Average;;97,7 %;"]
    runs = of_text(tmp_path, "\n".join(["sep=;", "Model;Seed;Accuracy;", *rows, ""]))
    assert [row["Accuracy"] for row in metrics(runs)] == pytest.approx([0.973, 0.971, 0.98, 0.982])
    assert (seeds(runs), settings(runs)[2]) == ([0, 1, 0, 1], {"Model": "large"})
    assert "Left out: 1 summary row of the table." in runs.remarks


def test_group_and_repeated_names_of_wandb_are_settings(tmp_path: Path) -> None:
    own = {"Name": ["x", "y", "z", "w"], "State": ["finished"] * 4, "Created": ["2026-01-01T00:00:00.000Z"] * 4}
    runs = read_table(pd.DataFrame(own | {"Group": list("aabb"), "test/acc": [0.1, 0.2, 0.3, 0.4]}))
    assert settings(runs) == [{"Group": group} for group in "aabb"]
    runs = read_table(pd.DataFrame(own | {"Name": list("aabb"), "test/acc": [0.1, 0.2, 0.3, 0.4]}))
    assert settings(runs) == [{"Name": name} for name in "aabb"]


def test_separator_and_minus_are_those_of_the_rows(tmp_path: Path) -> None:
    runs = of_text(tmp_path, "model;acc (top-1, share)\na;\u22120.5\na;\u22120.25\nb;1\nb;2\n")
    assert [row["acc (top-1, share)"] for row in metrics(runs)] == [-0.5, -0.25, 1, 2]


def test_setting_called_mean_is_no_summary_and_a_tag_no_prefix() -> None:
    rows = [row | {"pooling": row["model"].replace("a", "mean"), "tags.team": "x"} for row in ROWS]
    runs = of_rows([*rows, rows[0] | {"seed": None, "loss": 0.4}])
    assert len(runs.records) == 5
    assert settings(runs)[0] == {"model": "a", "lr": 0.1, "pooling": "mean", "team": "x"}


def test_names_of_columns_left_out_cannot_control_the_terminal() -> None:
    rows = [row | {"\x1b[31mhost": place % 2, "host": "xy"[place % 2]} for place, row in enumerate(ROWS)]
    comparison = handgrad.compare(pd.DataFrame(rows), "loss", group=["model"]).comparison
    assert "\\x1b[31mhost" in comparison.caveats[0]
    assert "\x1b" not in comparison.caveats[0]


def test_index_of_a_data_frame_and_truth_values_count() -> None:
    rows = pd.DataFrame({"model": list("aabb"), "seed": [0, 1, 0, 1], "solved": [True, False, True, True]})
    runs = read_table(rows.set_index(["model", "seed"]), metric="solved")
    assert (seeds(runs), settings(runs)[3]) == ([0, 1, 0, 1], {"model": "b"})
    assert [row["solved"] for row in metrics(runs)] == [1, 0, 1, 1]


def test_value_that_keeps_a_column_from_being_numeric_is_named() -> None:
    rows = [{"model": "a", "seed": 0, "acc": "0.94"}, {"model": "b", "seed": 0, "acc": "94.2%"}]
    with pytest.raises(UserError, match=r"acc holds '94.2%', not a number like 0.31"):
        of_rows(rows)
    with pytest.raises(UserError, match=r"looks like a metric: it has no numbers$"):
        of_rows([row | {"acc": text} for row, text in zip(rows, ("3 of 4", "all"), strict=True)])


def test_shares_beside_percentages_are_the_first_thing_said() -> None:
    rows = [row | {"acc": value} for row, value in zip(ROWS, (94.9, 95.1, 0.95, 0.96), strict=True)]
    said = handgrad.compare(pd.DataFrame(rows), "acc").sentences
    assert "acc is from 0.95 to 95.1: are some in percent, and others shares?" in said[:2]


def test_group_takes_settings_that_follow_from_others_or_are_equal() -> None:
    rows = [row | {"family": row["model"].upper(), "size": 3} for row in ROWS]
    comparison = handgrad.compare(pd.DataFrame(rows), "loss", group=["family", "size"]).comparison
    assert comparison.keys == ["family"]
    assert "Equal in all runs: size." in comparison.remarks


def test_run_that_lacks_what_most_have_is_named(tmp_path: Path) -> None:
    for number in range(3):
        rows = "epoch,val/acc,test/acc\n0,0.5,\n" + ("1,,0.9\n" if number < 2 else "")
        leave_hydra_run(tmp_path / str(number), {"csv/metrics.csv": rows}, lr=0.1, seed=number)
    assert "Perhaps unfinished, lacking a metric that most runs have: 2 (test/acc)." in read_folders([tmp_path]).remarks


@pytest.mark.parametrize(
    ("column", "one", "other"),
    [("split", "test", "train"), ("data.phase", "TEST", "val"), ("metric", "accuracy", "val_loss")],
)
def test_table_with_a_row_per_result_is_refused_unless_one_is_chosen(column: str, one: str, other: str) -> None:
    cells = [(model, seed, name) for model in "ab" for seed in range(3) for name in (other, one)]
    table = pd.DataFrame(cells, columns=["model", "seed", column])
    table["run"], table["accuracy"] = table.model + table.seed.astype(str), table.seed / 9 + (table[column] == other)
    where = f'{column if "." not in column else f"`{column}`"} == "{one}"'
    with pytest.raises(UserError, match=rf"^{column} tells results of one run apart .*where='{re.escape(where)}'"):
        handgrad.compare(table)
    compared = handgrad.compare(table, where=where).comparison
    assert compared.keys == ["model"]
    assert compared.table.accuracy.tolist() == [0, 1 / 9, 2 / 9] * 2
    assert handgrad.compare(table, group=["model", column]).comparison.keys == ["model", column]


def test_filter_that_leaves_a_row_per_version_keeps_it_a_setting() -> None:
    rows = [{"version": version, "seed": seed, "loss": seed + 0.1} for version in "abc" for seed in (0, 1)]
    assert handgrad.compare(pd.DataFrame(rows), where="seed == 0").comparison.keys == ["version"]


def test_versions_are_texts() -> None:
    table = pd.read_csv(io.StringIO("version,seed,loss\n1.1,0,0.4\n1.1,1,0.5\n1.10,0,0.7\n1.10,1,0.8"), dtype=str)
    assert [row["settings"]["version"] for row in read_table(table).records] == ["1.1", "1.1", "1.10", "1.10"]


def test_data_frames_are_read_whatever_their_types_and_columns() -> None:
    rows = pd.DataFrame(ROWS)
    short = rows.astype({"lr": "float32", "model": "category", "seed": "Int64", "loss": "float32"})
    nested = rows.set_axis(pd.MultiIndex.from_tuples([("of", name) for name in rows]), axis=1)
    nested[("acc", 0)] = 0.9
    assert metrics(read_table(nested))[0].keys() == {"of.loss", "acc.0"}
    for frame, prefix in ((short, ""), (nested, "of.")):
        found = read_table(frame).records
        assert [row["settings"] for row in found] == [
            {f"{prefix}{name}": row[name] for name in ("model", "lr")} for row in ROWS
        ]
        assert [row["seed"] for row in found] == [0, 1, 0, 1]
        assert [row["metrics"][f"{prefix}loss"] for row in found] == pytest.approx([0.5, 0.6, 0.7, 0.8])


@pytest.mark.parametrize("runs", [5, None, {"loss": [1.0]}, [{"loss": 1.0}]])
def test_what_is_no_table_and_no_folder_is_refused(runs: Any) -> None:
    with pytest.raises(UserError, match=r"^compare takes a data frame, a file, or runs or their folders, not "):
        handgrad.compare(runs)


def test_equal_values_are_drawn_without_a_warning() -> None:
    for values in ([0.0] * 8, [0.1] * 8, [math.inf, *[0.1] * 7]):
        rows = [{"model": model, "lr": lr, "seed": seed} for model in "ab" for lr in (0.1, 1) for seed in (0, 1)]
        assert handgrad.compare(pd.DataFrame(rows).assign(loss=values)).figures
