"""Oracle: numbers worked out by hand, a textbook's exact binomial, and runs whose differences are known."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from PIL import Image

from conftest import ROOT, RunCommand, RunScript
from handgrad.comparison import again, figures, load, sentences, sources, statistics
from handgrad.comparison.contrasts import MOST_CELLS
from handgrad.comparison.table import CompareOptions
from handgrad.config import CompareConfig, check
from handgrad.errors import UserError
from handgrad.runs import tables
from handgrad.runs.folder import run_lock
from made_runs import NOISE, around, everything, leave_cell, leave_configured, leave_run, written


def command_for(*folders: Path, here: Path = ROOT, remarks: list[str] | None = None) -> str:
    """Return the command that gives sweeps five seeds."""
    return again.command_for_more_seeds(folders, here, [] if remarks is None else remarks, 5)


def test_mean_is_over_completed_runs_and_every_other_run_is_reported(tmp_path: Path) -> None:
    for seed, status in enumerate(["completed", "completed", "diverged", "failed", "running"]):
        leave_run(tmp_path / f"{seed}_x", 0.98, seed, status=status)
    leave_run(tmp_path / "5_x", 0.0986, seed=5)
    leave_run(tmp_path / "6_x", 0.98, seed=6, status="running")  # no process holds its lock: interrupted
    with run_lock(tmp_path / "4_x"):
        comparison, cells, _, said = everything(tmp_path)
    cell = cells.iloc[0]
    assert (cell.runs, cell.completed, cell.diverged, cell.failed, cell.running) == (7, 3, 1, 2, 1)
    assert (cell.learned, cell["at chance"]) == (2, 1)
    assert cells["test/accuracy"][0] == pytest.approx((0.98 + 0.98 + 0.0986) / 3)
    assert len(comparison.table) == 7
    # Clopper-Pearson upper bound for 2 of 4, by the beta distribution: 0.9324; the lower bound mirrors it
    share = "2 of 4 runs of relu manual none learned (95 % interval of the share 7% to 93%); 1 at chance, 1 diverged."
    assert share in said
    assert "68.62 %" in said  # no interval of the mean: the accuracies are bimodal
    remarks = " ".join(comparison.remarks)
    assert "Diverged, excluded from all means: 1 of 7 runs, 2_x." in remarks
    assert "Failed or interrupted, excluded from all means: 2 of 7 runs, 3_x, 6_x." in remarks
    assert "Still running, excluded from all means: 1 of 7 runs, 4_x." in remarks
    assert "1 of 7 runs at chance (accuracy below 54%): 5_x." in remarks


def test_cells_are_found_from_the_configurations(tmp_path: Path) -> None:
    for i, (engine, lr) in enumerate([("manual", 0.1), ("manual", 0.2), ("autograd", 0.1), ("autograd", 0.2)]):
        leave_run(tmp_path / str(i), 0.9, engine=engine, lr=lr)
    comparison = load.load_runs([tmp_path])
    assert comparison.keys == ["activation", "engine", "regularizer", "optimizer.lr"]
    assert comparison.varying == ["engine", "optimizer.lr"]
    assert comparison.follows == {("engine",): ["optimizer"]}
    assert comparison.swept == "optimizer.lr"
    labels = statistics.summarize_cells(comparison).label
    assert set(labels) == {"manual lr=0.1", "manual lr=0.2", "autograd lr=0.1", "autograd lr=0.2"}


def test_known_difference_is_found_and_none_is_invented(tmp_path: Path) -> None:
    leave_cell(tmp_path, "relu", around(0.980, 10))
    leave_cell(tmp_path, "tanh", around(0.976, 9))  # 0.4 points below, seed by seed
    leave_cell(tmp_path, "sigmoid", around(0.980, -9))
    _, _, pairs, said = everything(tmp_path)
    row = pairs[(pairs.a == "relu") & (pairs.b == "tanh")].iloc[0]
    half = 4.302653 * np.std(NOISE, ddof=1) / 3**0.5
    assert (row.test, row.n, row.difference) == ("paired t", 3, pytest.approx(0.004))
    assert (row.low, row.high) == pytest.approx((0.004 - half, 0.004 + half), abs=1e-6)
    assert row.p_corrected == pytest.approx(3 * row.p)  # Holm: the smallest of three
    assert "relu beats tanh by 0.40 points (95 % interval 0.31 to 0.49, 3 seeds each, corrected p = 0.0" in said
    assert "Neither a difference nor equality is shown by" in said
    assert len(pairs) == 3


def test_equal_runs_are_called_equal(tmp_path: Path) -> None:
    for engine in ("manual", "autograd"):
        leave_cell(tmp_path, "relu", around(0.97), engine=engine)
    assert "are equal, seed by seed (3 seeds each)." in everything(tmp_path)[-1]


def test_main_effect_is_averaged_over_cells_by_shared_seeds_and_names_confounds(tmp_path: Path) -> None:
    for activation, base in (("relu", 0.97), ("tanh", 0.95)):
        leave_cell(tmp_path, activation, [*around(base + 0.010), 0.50])  # a seed that the other engine lacks
        leave_cell(tmp_path, activation, around(base + 0.002, -1), engine="autograd")
    _, _, tests, said = everything(tmp_path)
    engine = tests[(tests.kind == "values") & (tests.key == "engine")].iloc[0]
    assert (engine.a, engine.b, engine.cells, engine.difference) == ("manual", "autograd", 2, pytest.approx(0.008))
    assert (engine.n, engine.least, engine.most) == (3, pytest.approx(0.008), pytest.approx(0.008))
    assert "manual beats autograd by 0.80 points" in said
    assert "averaged over 2 cells, from 0.80 in " in said
    assert "engine is confounded with optimizer: a difference may be due to any of them." in said


def test_single_runs_get_mcnemars_test_and_no_interval(tmp_path: Path) -> None:
    both = [True] * 20
    leave_run(tmp_path / "0", 0.97, activation="relu", right=both + [True] * 8 + [False])
    leave_run(tmp_path / "1", 0.90, activation="tanh", right=both + [False] * 8 + [True])
    _, _, pairs, said = everything(tmp_path)
    assert (pairs.test[0], pairs.only_a[0], pairs.only_b[0]) == ("McNemar", 8, 1)
    assert pairs.p[0] == pytest.approx(2 * (1 + 9) / 2**9)  # two-sided binomial: at most 1 of 9
    assert "These two runs of relu and tanh differ (7.00 points; only the first is right on 8 test images" in said
    assert "95 % interval" not in said
    assert "one run cannot tell a better recipe from a luckier seed" in said
    leave_run(tmp_path / "x" / "0", 0.97, activation="relu", right=[*both, True, True, False])
    leave_run(tmp_path / "x" / "1", 0.90, activation="tanh", right=[*both, False, False, True])
    assert "These two runs of relu and tanh are not shown to differ" in everything(tmp_path / "x")[-1]


def test_repeated_run_counts_once(tmp_path: Path) -> None:
    leave_run(tmp_path / "a" / "0", 0.97)
    leave_run(tmp_path / "b" / "0", 0.98)
    leave_run(tmp_path / "b" / "1", 0.99, status="failed")
    comparison = load.load_runs([tmp_path])
    assert comparison.table["test/accuracy"].tolist() == [0.98]
    assert comparison.remarks == ["2 of 3 runs repeat a cell and seed: only the last completed one of each counts."]


def test_runs_of_other_versions_and_folders_are_compared_with_a_warning(tmp_path: Path) -> None:
    leave_configured(tmp_path / "0", 0.97, data={"root": "data"})
    leave_configured(tmp_path / "1", 0.88, 1, data={"root": "other"})
    path = tmp_path / "1" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"versions": {"torch": "2.15"}, "commit": "def"}))
    comparison, cells, *_ = everything(tmp_path)
    said = " ".join(comparison.remarks)
    assert "different values of data.root (data, other)" in said
    assert "different versions of torch (" in said
    assert "different commits" in said
    assert cells["data.root"].tolist() == ["data", "other"]


def test_reference_value_is_shown_with_the_cell_of_its_settings(tmp_path: Path) -> None:
    for seed in (0, 1):
        leave_run(tmp_path / f"r{seed}", 0.97, seed)
        leave_run(tmp_path / f"s{seed}", 0.96, seed, lr=0.02)
    leave_run(tmp_path / "alone", 0.95, lr=0.03)
    table = tmp_path / "paper.csv"
    rows = [
        "activation,optimizer.lr,test/accuracy,test/loss",
        "relu,0.01,0.95,0.3",
        "tanh,0.02,0.5,0.4",
        "relu,0.03,0.9,1",
    ]
    table.write_text("\n".join(rows))
    comparison = load.load_runs([tmp_path], CompareOptions(reference=table))
    cells = statistics.summarize_cells(comparison)
    assert cells.reference.fillna(0).tolist() == [0.95, 0, 0.9]
    assert "paper is shown beside cells with its activation, optimizer.lr: 2 of 3 rows." in comparison.remarks
    losses = statistics.summarize_cells(load.load_runs([tmp_path], CompareOptions(metric="loss", reference=table)))
    assert losses.reference.tolist()[0] == 0.3
    table.write_text("optimizer.lr,test/accuracy\n0.01,0.95\n0.02,0.95\n")  # rows with equal numbers count separately
    comparison = load.load_runs([tmp_path], CompareOptions(reference=table))
    assert "paper is shown beside cells with its optimizer.lr: 2 of 2 rows." in comparison.remarks


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("activation,test/accuracy\nrelu,high\n", "cannot be read"),
        ("activation,accuracy\nrelu,0.9\n", "has no column test/accuracy"),
        ("activation,colour,test/accuracy\nrelu,red,0.9\n", "colour is neither a setting nor a metric of these runs"),
        (None, "cannot be read"),
    ],
)
def test_unusable_reference_is_refused_in_one_sentence(tmp_path: Path, content: str | None, message: str) -> None:
    leave_run(tmp_path / "0", 0.97)
    if content is not None:
        (tmp_path / "paper.csv").write_text(content)
    with pytest.raises(UserError, match=f"reference=.*paper.csv.*{message}"):
        load.load_runs([tmp_path], CompareOptions(reference=tmp_path / "paper.csv"))


def test_damaged_record_is_left_out_and_the_rest_compared(tmp_path: Path) -> None:
    leave_run(tmp_path / "0_a", 0.97)
    for number, content in enumerate(['{"status": "comp', "[]", '{"status": "completed"}'], start=1):
        (tmp_path / f"{number}_b").mkdir()
        (tmp_path / f"{number}_b" / "metrics.json").write_text(content)
    (tmp_path / "4_c" / ".hydra").mkdir(parents=True)
    (tmp_path / "4_c" / ".hydra" / "config.yaml").write_text("")
    comparison, cells, *_ = everything(tmp_path)
    assert len(cells) == 1
    assert sum("metrics.json is damaged" in remark for remark in comparison.remarks) == 3
    assert "Left out: 4_c ended before writing a metrics.json." in comparison.remarks


def test_nothing_to_compare_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no sweep in"):
        sources.matching([], tmp_path, tmp_path)
    with pytest.raises(UserError, match="no folder matches sweep="):
        sources.matching(["x*"], tmp_path, tmp_path)
    with pytest.raises(UserError, match="there is no run to compare in"):
        load.load_runs([tmp_path])
    leave_run(tmp_path / "0", 0.9, status="running")
    leave_run(tmp_path / "1", 0.9, activation="tanh", status="diverged", reason="too fast")
    assert "No run is completed yet." in everything(tmp_path)[-1]


def test_newest_sweep_is_compared_on_one_page(command: RunCommand, tmp_path: Path) -> None:
    leave_run(tmp_path / "outputs" / "sweeps" / "2026-01-01" / "0_x", 0.5)
    newest = tmp_path / "outputs" / "sweeps" / "2026-01-02"
    for seed, noise in enumerate(NOISE):
        leave_run(newest / f"{seed}_relu", 0.98 + noise, seed)
        leave_run(newest / f"{3 + seed}_tanh", 0.97 - noise, seed, "tanh")
    (tmp_path / "paper.csv").write_text("activation,test/accuracy\nrelu,0.9829\n")
    done = command("compare.py", "reference=paper.csv")
    assert done.status == 0, done.err
    assert "98.00 ± 0.09" in done.out
    assert "98.29" in done.out
    assert "relu beats tanh by 1.00 points" in done.out
    folder = newest / "comparison_reference=paper.csv"
    names = ("accuracy", "curves", "gap", "confusion", "time")
    files = {"table.csv", "summary.csv", "summary.tex", "pairs.csv", "summary.md", "report.html"}
    files |= {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert {path.name for path in folder.iterdir()} == files
    html = (folder / "report.html").read_text()
    assert "relu beats tanh by 1.00 points" in html
    assert not [word for word in ("http:", "https:", "<script src", "stylesheet") if word in html]  # needs no network
    assert html.count("data:image/svg+xml;base64,") == 5
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["0_relu", "1_relu", "2_relu", "3_tanh", "4_tanh", "5_tanh"]
    with Image.open(folder / "accuracy.png") as picture:
        assert picture.width > 1000
    assert {path.name for path in tmp_path.iterdir()} == {"data", "outputs", "paper.csv"}


def test_several_sweeps_are_compared_by_a_glob(command: RunCommand, tmp_path: Path) -> None:
    leave_run(tmp_path / "s1" / "0", 0.98)
    leave_run(tmp_path / "s2" / "0", 0.97, activation="tanh")
    done = command("compare.py", "sweep=s*", "output=there")
    assert done.status == 0, done.err
    assert (tmp_path / "there" / "report.html").exists()


def test_p_value_below_a_thousandth_is_not_called_zero() -> None:
    assert sentences.p_value(pd.Series({"p_corrected": 0.0})) == "< 0.001"
    assert sentences.p_value(pd.Series({"p_corrected": 0.0281})) == "= 0.028"


def test_command_for_more_seeds_of_a_single_run(tmp_path: Path) -> None:
    assert command_for(tmp_path).endswith("-m <the options of these runs> seed=0,1,2,3,4")
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "overrides.yaml").write_text("[activation=tanh, seed=3]")
    single = command_for(tmp_path / "run")
    assert single == "python src/train.py -m activation=tanh seed=0,1,2,3,4"
    assert again.option(6) == "seed=range(0,6)"


@pytest.mark.parametrize(
    ("group", "name", "values", "label"),
    [
        ("trainer", "gradient_clip_val", [None, 1.0, 5.0], "gradient_clip_val=null"),
        ("optimizer", "_target_", ["torch.optim.AdamW", "torch.optim.Adam", "torch.optim.SGD"], "torch.optim.AdamW"),
        ("optimizer", "nesterov", [True, False], "nesterov=true"),
    ],
    ids=["null", "target", "boolean"],
)
def test_any_value_defines_a_cell(tmp_path: Path, group: str, name: str, values: list[Any], label: str) -> None:
    for number, value in enumerate(values):
        leave_cell(tmp_path, "relu", around(0.98 - number / 100), config={group: {name: value}})
    comparison, cells, tests, said = everything(tmp_path)
    assert comparison.varying == [f"{group}.{name}"]
    assert cells["test/accuracy"].tolist() == pytest.approx([0.98, 0.97, 0.96][: len(values)])
    assert cells.completed.tolist() == [3] * len(values)
    assert cells.label[0] == label
    assert f"The highest test accuracy is that of {label}: 98.00 ± 0.09 %" in said
    assert len(tests) == len(values) * (len(values) - 1) // 2
    assert comparison.swept is None  # null has no place on an axis
    assert not comparison.remarks


def test_values_of_different_types_define_different_cells(tmp_path: Path) -> None:
    values = [True, 1, 1.0, "1", None, "null", "unset", [1], ["1"], "a\nb", "a\\nb"]
    for number, value in enumerate(values):
        leave_configured(tmp_path / str(number), 0.9 + number / 1000, optimizer={"amsgrad": value})
    leave_configured(tmp_path / "absent", 0.95)
    _, cells, *_ = everything(tmp_path)
    assert len(cells) == len(set(cells.label)) == len(values) + 1
    best_first = ["unset", *(0.9 + number / 1000 for number in reversed(range(len(values))))]
    assert cells["test/accuracy"].tolist() == pytest.approx([0.95, *best_first[1:]])


def test_cell_labels_are_unique(tmp_path: Path) -> None:
    for number, (rate, other) in enumerate([(0.1234567, 1), (0.1234568, 1), (0.1234567, 2), (0.1234568, 2)]):
        leave_configured(tmp_path / str(number), 0.9, optimizer={"lr": rate}, schedule={"lr": other})
    comparison, cells, *_ = everything(tmp_path)
    assert all(name == key for key, name in comparison.names.items())
    assert len(set(cells.label)) == 4
    assert cells.label[0] == "optimizer.lr=0.1234567 schedule.lr=1"


def test_setting_named_like_a_column_is_a_setting(tmp_path: Path) -> None:
    for number in (1, 2):
        odd: dict[str, Any] = {"epochs": number, "status": f"s{number}", "gap": {"low": number}, "label": number}
        leave_configured(tmp_path / str(number), 0.9 + number / 100, **odd, threads=number)
    comparison, cells, *_ = everything(tmp_path)
    assert comparison.varying == ["config.epochs"]
    assert cells.label.tolist() == ["epochs=2", "epochs=1"]
    assert cells["gap.low"].isna().all()
    assert comparison.follows[("config.epochs",)] == ["config.status", "config.gap.low", "config.label", "threads"]


EPOCHS, COUNTS, GUESSES = "epoch,train/loss,test/loss\n", "1,2,3,4,5,6,7,8,9,10\n", "true,predicted,probability\n"
LOST_ROWS = ("0,0.5,0.4\n1,0.3,0.3", "0,much,0.4\n", "0,nan,0.4\n", "0,inf,0.4\n", "0,-1,0.4\n", "0,1,0.4,7\n", "")
LOST_GUESSES = ["3,3,0.9\n3,3,0.", "", "x,3,0.9\n", "nan,3,0.9\n", "3,11,0.9\n", "3.5,3,0.9\n", "3,3,1.9\n"]
LOST_GUESSES += ["3,3,0.9,1\n", "3,3,0.9\n3,3\n", "3,3,0.9\n\n3,3,0.9\n"]
DAMAGES = {  # by file: cut short, other words, impossible numbers, rows or columns too many or too few
    "history.csv": [EPOCHS + rows for rows in LOST_ROWS]
    + ["train/loss,test/loss\n1,1\n", "epoch,train/loss\n0,1\n0,1\n", "epoch,test/accuracy\n0,97\n"],
    "confusion_test.csv": [COUNTS * 9 + "1,2,3,4,5,6,7,8,9,1", COUNTS * 9 + "1,2\n", "1,2,3\n" * 3]
    + [10 * COUNTS.replace("1,", f"{cell},", 1) for cell in ("a", "nan", "-1", "1" * 5000)],
    "predictions.csv": [*(GUESSES + rows for rows in LOST_GUESSES), "predicted,probability\n3,0.9\n"],
}
NO_TEXTS = [b"", b"\n", bytes(range(256)) * 4, "größe\n".encode("latin-1"), b"{]\n", b"\0\n"]


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, each) for name, texts in DAMAGES.items() for each in [*NO_TEXTS, *map(str.encode, texts)]],
)
def test_damaged_file_is_left_out_by_name_and_the_rest_compared(tmp_path: Path, name: str, content: bytes) -> None:
    leave_run(tmp_path / "0_relu", 0.97, right=[True] * 9 + [False])
    leave_run(tmp_path / "1_tanh", 0.90, activation="tanh", right=[True] * 10)
    (tmp_path / "1_tanh" / name).write_bytes(content)
    comparison, cells, pairs, said = everything(tmp_path)
    (remark, *further) = comparison.remarks
    assert remark.startswith(f"Left out: {tmp_path / '1_tanh' / name} is damaged (")
    untested = ["Not tested image by image: 1_tanh, without a usable predictions.csv."]
    assert further == (untested if name == "predictions.csv" else [])
    assert cells["test/accuracy"].tolist() == [0.97, 0.90]
    drawn = [which for which, *_ in figures.every(comparison, cells)]
    assert ("confusion" in drawn) == (name != "confusion_test.csv")
    assert pairs.test.tolist() == ["none" if name == "predictions.csv" else "McNemar"]
    assert "nan" not in said


def test_folder_and_history_with_fewer_epochs_than_recorded_are_left_out(tmp_path: Path) -> None:
    run = tmp_path / "0_relu"
    leave_run(run, 0.97, epochs=3)
    (run / "predictions.csv").mkdir()
    assert everything(tmp_path)[0].remarks == [
        f"Left out: {run}/history.csv is damaged (it has 2 epochs, not 3).",
        f"Left out: {run}/predictions.csv cannot be read (Is a directory).",
    ]


def scores(train: float = 0.9, test: float = 0.9, loss: float = 0.1) -> dict[str, float]:
    """Return the metrics of a run."""
    return {"train/accuracy": train, "test/accuracy": test, "test/loss": loss}


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        ({"status": "finished"}, "invalid value status=finished"),
        ({"seed": True}, "invalid value seed=true"),
        ({"metrics": []}, "invalid value metrics=[]"),
        ({"choices": {"engine": 3}}, "invalid value choices.engine=3"),
        ({"metrics": {"train/accuracy": 0.9, "test/accuracy": "0.9"}}, 'invalid value metrics.test/accuracy="0.9"'),
        ({"metrics": {}}, "has no train/accuracy, test/accuracy, test/loss"),
        ({"metrics": {"test/accuracy": 0.9, "test/loss": 0.1}}, "has no train/accuracy"),
        ({"metrics": {"train/accuracy": 0.9, "val/accuracy": 0.9, "test/loss": 0.1}}, "has no test/accuracy"),
        ({"metrics": scores(test=1.5)}, "test/accuracy=1.5 of "),
        ({"metrics": scores(train=-0.1)}, "train/accuracy=-0.1 of "),
        ({"metrics": scores(test=float("nan"))}, "test/accuracy=nan of "),
    ],
)
def test_run_with_an_invalid_record_is_left_out_by_name(tmp_path: Path, change: dict[str, Any], remark: str) -> None:
    leave_run(tmp_path / "0_relu", 0.97)
    leave_run(tmp_path / "1_tanh", 0.98, activation="tanh", **change)
    comparison, cells, *_ = everything(tmp_path)
    assert cells["test/accuracy"].tolist() == [0.97]
    said = " ".join(comparison.remarks)
    assert remark in said
    assert str(tmp_path / "1_tanh" / "metrics.json") in said


@pytest.mark.parametrize(
    ("change", "column", "remark"),
    [
        ({"seconds_per_epoch": 0.0}, "seconds_per_epoch", "seconds_per_epoch=0.0 of "),
        ({"seconds_per_epoch": -2}, "seconds_per_epoch", "seconds_per_epoch=-2 of "),
        ({"seconds_per_epoch": float("inf")}, "seconds_per_epoch", "seconds_per_epoch=inf of "),
        ({"metrics": scores(loss=float("inf"))}, "test/loss", "test/loss=inf"),
        ({"metrics": scores(loss=-1.0)}, "test/loss", "test/loss=-1.0"),
    ],
)
def test_impossible_number_is_left_out_of_the_mean(
    tmp_path: Path, change: dict[str, Any], column: str, remark: str
) -> None:
    leave_run(tmp_path / "0_relu", 0.97, seed=0)
    leave_run(tmp_path / "1_relu", 0.97, seed=1, **change)
    comparison, cells, *_ = everything(tmp_path)
    assert cells.completed.tolist() == [2]
    assert cells[column].tolist() == pytest.approx([{"seconds_per_epoch": 2.0, "test/loss": 0.03}[column]])
    assert remark in comparison.remarks[0]
    assert str(tmp_path / "1_relu" / "metrics.json") in comparison.remarks[0]


def test_scores_of_different_images_are_not_compared(tmp_path: Path) -> None:
    """By the true classes in predictions.csv."""
    for number, (activation, truth) in enumerate([("sigmoid", 4), ("relu", 3), ("tanh", 3)]):
        leave_run(tmp_path / f"{number}_{activation}", 0.9 - number / 100, activation=activation)
        rows = f"{truth},{truth},0.9\n" * 5
        (tmp_path / f"{number}_{activation}" / "predictions.csv").write_text("true,predicted,probability\n" + rows)
    comparison, cells, pairs, said = everything(tmp_path)
    assert comparison.remarks == [
        "Left out: 1 of 3 runs were scored on other images, by their predictions.csv: 0_sigmoid. "
        "Choose them by where=... to compare them with each other."
    ]
    assert cells.label.tolist() == ["relu", "tanh"]
    assert pairs.set_index(["a", "b"]).test.to_dict() == {("relu", "tanh"): "McNemar"}
    assert "sigmoid" not in said


@pytest.mark.parametrize(
    ("setting", "scored"),
    [
        ({"trainer": {"limit_test_batches": 5}}, "test"),
        ({"data": {"dataset": "FashionMNIST"}}, "test"),
        ({"data": {"val_size": 6000}}, "val"),
    ],
    ids=str,
)
def test_setting_that_changes_the_scored_images_is_no_factor(
    tmp_path: Path, setting: dict[str, Any], scored: str
) -> None:
    """One run of other images beside three seeds: it is left out, named with its setting, and chosen by where=."""
    usual: dict[str, Any] = {"trainer": {"limit_test_batches": 1.0}, "data": {"dataset": "MNIST", "val_size": 500}}
    leave_cell(tmp_path, "relu", around(0.97), config=usual)
    changed = {group: values | setting.get(group, {}) for group, values in usual.items()}
    leave_configured(tmp_path / "3_b", 0.99, 3, **changed)
    if scored == "val":
        for path in tmp_path.glob("*/metrics.json"):
            path.write_text(path.read_text().replace("test/", "val/"))
    ((group, values),) = setting.items()
    ((name, value),) = values.items()
    comparison, cells, tests, said = everything(tmp_path)
    assert f"Left out: 1 of 4 runs were scored on other images ({group}.{name}={value}): 3_b." in comparison.remarks[0]
    assert cells[f"{scored}/accuracy"].tolist() == [pytest.approx(0.97)]
    assert not len(tests)
    assert "99.00" not in said
    alone = everything(tmp_path, where=f"`{group}.{name}` == {value!r}")[1]
    assert alone[f"{scored}/accuracy"].tolist() == [0.99]


def test_null_and_other_words_survive_pandas_with_its_defaults(tmp_path: Path) -> None:
    values = [None, "NA", "nan", "None", "n/a", "none", 0.5]
    for number, value in enumerate(values):
        leave_configured(tmp_path / str(number), 0.9 + number / 1000, optimizer={"momentum": value})
    folder = written(tmp_path)
    for name in ("table", "summary"):
        column = pd.read_csv(folder / f"{name}.csv")["optimizer.momentum"]
        assert column.nunique() == len(values)
        assert {"(null)", "(NA)", "(nan)", "(None)", "(n/a)", "none", "0.5"} == set(column)


ODD = ["$x", "$\\frac{$", "\ud800", "\x1b[31m", "a\nb", "x" * 3000, "日本", "[bold]", ":smile:"]
ODD += ["<b>&amp;", "a|b", "`c`"]


@pytest.mark.slow
def test_odd_names_are_drawn_and_written(tmp_path: Path) -> None:
    for number, name in enumerate(ODD):
        leave_run(tmp_path / str(number), 0.9 + number / 1000, activation=name, versions={"torch": name}, commit=name)
    folder = written(tmp_path, drawn=True)
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;amp;" in html
    summary = (folder / "summary.md").read_text(encoding="utf-8")
    assert "<b>" not in summary
    table = [line for line in summary.splitlines() if line.startswith("|")]
    assert len(table) == len(ODD) + 2
    assert {line.replace(r"\|", "").count("|") for line in table} == {table[0].count("|")}
    assert r"\`c\`" in summary
    everything_written = html + summary + (folder / "table.csv").read_text(encoding="utf-8")
    assert "\x1b" not in everything_written
    with Image.open(folder / "accuracy.png") as picture:
        assert picture.width < 2500


def test_csv_files_contain_no_formula(tmp_path: Path) -> None:
    names = ["=1+1", "+x", "-y", "@z", "\tq", "-1", "=cmd|' /C calc'!A0"]
    for number, name in enumerate(names):
        leave_run(tmp_path / f"={number}", 0.9 + number / 1000, activation=name, reason="=2+2", lr=-1.0 * number)
    folder = written(tmp_path)
    for file in ("table", "summary", "pairs"):
        with (folder / f"{file}.csv").open(encoding="utf-8", newline="") as lines:
            cells = [cell for row in csv.reader(lines) for cell in row]
        assert not [cell for cell in cells if cell[:1] in ("=", "+", "@", "\t", "\r")]
        assert all(float(cell) <= 0 for cell in cells if cell.startswith("-"))
    assert "'=1+1" in (folder / "summary.csv").read_text(encoding="utf-8")


def test_newest_sweep_is_the_newest_by_time_not_by_name(tmp_path: Path) -> None:
    for name, time in (("baseline", 1000), ("2026-01-01", 3000), ("2026-01-02", 2000), ("2026-01-03", 2000)):
        leave_run(tmp_path / name / "0_x", 0.9)
        os.utime(tmp_path / name / "0_x" / "metrics.json", (time, time))
    (tmp_path / "zz_empty").mkdir()
    (tmp_path / "zz_file").write_text("")
    assert sources.matching([], tmp_path, tmp_path) == [tmp_path / "2026-01-01"]
    (tmp_path / "baseline" / "multirun.yaml").write_text("")
    os.utime(tmp_path / "baseline" / "multirun.yaml", (4000, 4000))
    assert sources.matching([], tmp_path, tmp_path) == [tmp_path / "baseline"]
    for name in ("2026-01-02", "2026-01-03"):
        os.utime(tmp_path / name / "0_x" / "metrics.json", (5000, 5000))
    assert sources.matching([], tmp_path, tmp_path) == [tmp_path / "2026-01-03"]


def test_existing_folder_wins_over_the_pattern(tmp_path: Path) -> None:
    for name in ("results [1]", "results 1", "a*", "ab"):
        (tmp_path / name / "x").mkdir(parents=True)
    assert sources.matching(["results [1]/x"], Path("sweeps"), tmp_path) == [tmp_path / "results [1]" / "x"]
    assert sources.matching(["a*"], Path("sweeps"), tmp_path) == [tmp_path / "a*"]
    assert sources.matching(["a?", str(tmp_path / "ab")], Path("sweeps"), tmp_path) == [
        tmp_path / "a*",
        tmp_path / "ab",
    ]


@pytest.mark.parametrize("value", ["", [], ["a", ""], {"a": 1}, [["a"]], True, [None]])
def test_option_that_names_no_folder_is_refused(value: Any) -> None:
    usual = dict.fromkeys(CompareConfig.model_fields)
    for name, said in (("sweep", "must be a name, a pattern of names, or a list"), ("output", "")):
        with pytest.raises(UserError, match=f"^invalid value {name}=.*: {said}"):
            check(usual | {name: value}, CompareConfig)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["sweep=3"], "no folder matches sweep=3"),
        (["sweeps=s1"], "did you mean sweep?"),
        (["l2=1"], "unknown key l2: there are baseline"),
        (["sweep=''"], "invalid value sweep=: must be a name"),
        (["sweep=${nope}"], "nope"),
        pytest.param(
            ['sweep="***"'],
            "sweep=*** cannot be a folder or a pattern of folders",
            marks=pytest.mark.skipif(sys.version_info >= (3, 13), reason="a pattern since Python 3.13"),
        ),
        (["sweep=a_file"], "sweep=a_file is a file, not a folder"),
        (["sweep=" + "x" * 300], "cannot be a folder or a pattern"),
        (["output=5"], "invalid value output=5: must be a valid string"),
        (["output=a_file"], "cannot use"),
    ],
)
def test_invalid_input_is_refused_in_one_sentence(
    command: RunCommand, tmp_path: Path, arguments: list[str], answer: str
) -> None:
    (tmp_path / "a_file").write_text("")
    leave_run(tmp_path / "outputs" / "sweeps" / "s" / "0", 0.98)
    done = command("compare.py", *arguments)
    assert done.status == 1
    assert answer in done.err
    assert "Traceback" not in done.err
    assert len([line for line in done.err.splitlines() if line]) <= 3  # two of them may be Hydra's own


def test_paths_are_relative_to_the_working_directory_and_shown_absolute(command: RunCommand, tmp_path: Path) -> None:
    leave_run(tmp_path / "3" / "0", 0.98)
    done = command("compare.py", "sweep=3", "hydra.job.chdir=true", "hydra.run.dir=elsewhere", "output=there")
    assert done.status == 0, done.err
    assert (tmp_path / "there" / "report.html").exists()
    assert f"report: {tmp_path / 'there' / 'report.html'}" in done.out
    assert str(tmp_path / "3") in done.out


def test_names_cannot_control_the_terminal(command: RunCommand, tmp_path: Path) -> None:
    for number, name in enumerate(["\x1b[31mred", "[red]x[/red]", ":heart:", "a\rb", "\u202eabc"]):
        folder = tmp_path / "s" / f"{number}{name}".replace("/", ".")
        leave_run(folder, 0.9 + number / 100, activation=name, status="failed")
    leave_run(tmp_path / "s" / "9", 0.9)
    done = command("compare.py", "sweep=s")
    assert done.status == 0, done.err
    assert not [letter for letter in done.out if not letter.isprintable() and letter != "\n"]
    for shown in ("\\x1b[31mred", "[red]x[/red]", ":heart:", "a\\rb", "\\u202eabc"):
        assert done.out.count(shown) >= 1 + ("/" not in shown)  # in the table, and by its folder in the remark


@pytest.mark.slow
def test_report_is_utf8_in_any_locale(tmp_path: Path) -> None:
    leave_run(tmp_path / "größe" / "0", 0.98, activation="größe±")
    code = (
        "import locale, sys; from pathlib import Path; import made_runs;"
        "assert locale.getpreferredencoding(False) != 'UTF-8';"
        "made_runs.written(Path(sys.argv[1]), drawn=True)"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")])
    done = subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("report.html", "summary.md", "summary.csv"):
        assert "größe±" in (tmp_path / "comparison" / name).read_text(encoding="utf-8")


def test_environment_variables_in_an_untrusted_folder_are_not_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    leave_multirun_file(tmp_path, ["data.root=${oc.env:SECRET}"], [])
    found = command_for(tmp_path)
    assert "hunter2" not in found
    assert "'data.root=${oc.env:SECRET}'" in found


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{]", b"\xff", b"hydra: 3", b"hydra: {overrides: {task: 3}}", b"a: " + b"[" * 5000]
)
def test_damaged_multirun_file_is_left_out_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "multirun.yaml").write_bytes(content)
    remarks: list[str] = []
    assert command_for(tmp_path, remarks=remarks).endswith("<the options of these runs> seed=0,1,2,3,4")
    assert remarks[0].startswith(f"Left out: {tmp_path / 'multirun.yaml'} is damaged (")


def leave_multirun_file(folder: Path, task: list[str], options: list[str], **runtime: Any) -> None:
    """Write the `multirun.yaml` that Hydra leaves in a sweep's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    hydra = {"overrides": {"hydra": options, "task": task}, "runtime": runtime}
    (folder / "multirun.yaml").write_text(json.dumps({"hydra": hydra}))


def test_command_for_more_seeds_keeps_all_but_mode_folder_and_seed(tmp_path: Path) -> None:
    options = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=x", "hydra.run.dir=y", "+hydra.job.env_set.A=1"]
    options.append("hydra/launcher=p")
    task = ["seed=1", "+seed=2", "++seed=3", "data.seed=4", "experiment=glob(x_*)", "+optimizer.momentum=0.9,0.5"]
    sources = [{"provider": "hydra", "path": "pkg://x"}, {"provider": "command-line", "path": "/my conf"}]
    leave_multirun_file(tmp_path, task, options, config_sources=sources, choices={"hydra/sweeper": "basic"})
    assert command_for(tmp_path, here=tmp_path.parent) == (
        "python src/train.py -m --config-dir '/my conf' +hydra.job.env_set.A=1 hydra/launcher=p data.seed=4 "
        f"'experiment=glob(x_*)' +optimizer.momentum=0.9,0.5 seed=0,1,2,3,4 hydra.sweep.dir={tmp_path.name}"
    )
    assert command_for(tmp_path).endswith(f" hydra.sweep.dir={tmp_path}")


def test_command_that_may_run_foreign_code_gets_a_remark(tmp_path: Path) -> None:
    usual = ["activation=relu,tanh", "+optimizer.momentum=0.9"]
    for task, options, own in [
        (usual, ["hydra/launcher=parallel", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=x"], ""),
        ([*usual, "activation._target_=my.Swish"], [], "by activation._target_=my.Swish:"),
        ([*usual, "data.root=${oc.env:HOME}"], [], "by data.root=${oc.env:HOME}:"),
        (usual, ["hydra.launcher.setup=[touch mark]"], "by hydra.launcher.setup=[touch mark]:"),
        (usual, ["+hydra.job.env_set.PYTHONPATH=/x"], "by +hydra.job.env_set.PYTHONPATH=/x:"),
    ]:
        leave_multirun_file(tmp_path, task, options)
        remarks: list[str] = []
        command_for(tmp_path, remarks=remarks)
        assert (own in "".join(remarks)) if own else not remarks


def test_each_of_several_sweeps_gets_its_command_but_a_search_none(tmp_path: Path) -> None:
    for name in ("a", "b"):
        leave_multirun_file(tmp_path / name, [f"activation={name}"], [])
    leave_multirun_file(tmp_path / "c", ["activation=relu"], ["hydra/sweeper=search"])
    leave_multirun_file(tmp_path / "d", ["activation=relu"], [], choices={"hydra/sweeper": "optuna"})
    assert command_for(*(tmp_path / name for name in "abcd"), here=tmp_path) == (
        "python src/train.py -m activation=a seed=0,1,2,3,4 hydra.sweep.dir=a\n"
        "python src/train.py -m activation=b seed=0,1,2,3,4 hydra.sweep.dir=b"
    )
    assert command_for(tmp_path / "c") == command_for(tmp_path / "d") == ""


def test_jobs_are_merged_into_the_fewest_commands() -> None:
    def jobs(*pairs: tuple[str, str]) -> list[list[str]]:
        return [[f"activation={a}", "trainer.max_epochs=1", f"engine={e}"] for a, e in pairs]

    grid = jobs(("sigmoid", "manual"), ("sigmoid", "autograd"), ("relu", "autograd"), ("relu", "manual"))
    assert again.merge(grid) == [["activation=relu,sigmoid", "trainer.max_epochs=1", "engine=autograd,manual"]]
    assert again.merge(jobs(("relu", "manual"), ("sigmoid", "autograd"))) == [
        ["activation=relu", "trainer.max_epochs=1", "engine=manual"],
        ["activation=sigmoid", "trainer.max_epochs=1", "engine=autograd"],
    ]
    assert again.merge([["a=1", "~b"], ["a=2", "~b"], ["a=3"]]) == [["a=1,2", "~b"], ["a=3"]]


def test_cells_of_several_sweeps_get_commands_of_their_own_jobs(tmp_path: Path) -> None:
    """None at all if one is unknown, damaged, of a search, or controls the terminal: the others would not settle it."""
    jobs = {"a/0": "activation=relu", "a/1": "activation=tanh", "b/0": "activation=gelu"}
    for name, job in jobs.items():
        leave_multirun_file((tmp_path / name).parent, ["activation=relu,tanh,gelu", "seed=0,1"], ["hydra/launcher=p"])
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "overrides.yaml").write_text(json.dumps([job, "seed=1"]))
    runs = [tmp_path / name for name in jobs]
    found = again.commands_for_cells(runs, tmp_path, [], 3)
    assert found.splitlines() == [
        "python src/train.py -m hydra/launcher=p activation=relu,tanh seed=0,1,2 hydra.sweep.dir=a",
        "python src/train.py -m hydra/launcher=p activation=gelu seed=0,1,2 hydra.sweep.dir=b",
    ]
    assert again.commands_for_cells(runs[:1], tmp_path, [], 3).startswith("python src/train.py -m hydra/launcher=p act")
    overrides = tmp_path / "b" / "0" / ".hydra" / "overrides.yaml"
    for content in ("{]", json.dumps(["name=\x1b[2J"])):
        overrides.write_text(content)
        assert again.commands_for_cells(runs, tmp_path, [], 3) == ""
    overrides.unlink()
    assert again.commands_for_cells(runs, tmp_path, [], 3) == ""
    overrides.write_text("[]")
    leave_multirun_file(tmp_path / "b", ["activation=gelu"], ["hydra/sweeper=search"])
    assert again.commands_for_cells(runs, tmp_path, [], 3) == ""


NAMES = ["a b,c [1]=x", "it's", 'say "x"', "back\\", "back\\'", "\\", "1e5", "null", "true", "3", "{a:1}", "(x)"]
NAMES += ["${x}", "\\${x}", "~", "a#b", " a ", "$HOME", "*", "a:b", "größe", "!x", "sweep", "/tmp/x-1.2_y"]


@pytest.mark.parametrize("name", NAMES)
def test_any_folder_name_is_quoted_for_hydra(name: str) -> None:
    override = OverridesParser.create().parse_override(f"hydra.sweep.dir={again.for_hydra(name)}")
    assert str(OmegaConf.create({"dir": override.value()}).dir) == name
    assert not override.is_sweep_override()


def test_suggested_command_adds_its_runs_to_the_same_folder(
    command: RunCommand, run_script: RunScript, tiny_mnist: Path, tmp_path: Path
) -> None:
    options = ["trainer.max_epochs=1", f"data.root={tiny_mnist}", "+trainer.log_every_n_steps=5"]
    folder, own = tmp_path / "a b,c [1]=x", tmp_path / "my conf"
    (own / "activation").mkdir(parents=True)
    shutil.copy(ROOT / "conf" / "activation" / "relu.yaml", own / "activation" / "mine.yaml")
    arguments = ["--config-dir", "my conf", "activation=mine", *options, "hydra.sweep.dir='a b,c [1]=x'"]
    status, printed = run_script("-m", *arguments)
    assert status == 0, printed
    done = command("compare.py", "sweep='a b,c [1]=x'")
    assert done.status == 0, done.err
    suggested = next(line for line in done.out.splitlines() if line.startswith("python src/train.py -m"))
    typed = suggested.replace("python src/train.py", "printf '%s\\0'").replace("seed=0,1,2,3,4", "seed=0,1")
    words = subprocess.run(typed, shell=True, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True).stdout
    again = command("train.py", *words.split("\0")[:-1])  # as the shell passes them
    assert again.status == 0, again.err
    records = [json.loads(path.read_text()) for path in folder.glob("*/metrics.json")]
    assert sorted(record["seed"] for record in records) == [0, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"data", folder.name, own.name}


def test_with_many_cells_only_the_best_is_compared_with_the_others(tmp_path: Path) -> None:
    for number in range(40):
        right = [True] * (200 - 5 * number) + [False] * 5 * number
        leave_run(tmp_path / str(number), 0.98 * (1 - 5 * number / 200), lr=0.01 * (number + 1), right=right)
    comparison, cells, pairs, said = everything(tmp_path)
    assert set(pairs.a) == {cells.label[0]} == {"lr=0.01"}
    assert len(pairs) == 39
    last = pairs.set_index("b").loc["lr=0.4"]
    # Only the first is right on 195 images, the second on none.
    assert last.p == pytest.approx(2 * 0.5 ** (5 * 39), abs=0)
    assert last.p_corrected == pytest.approx(40 * 39 / 2 * last.p, abs=0)  # Holm: the smallest of all pairs' p
    assert "Of 40 cells only the best is compared with every other; p is corrected for all pairs." in said
    for _, caption, figure in figures.every(comparison, cells):
        assert len(figure.axes) <= 24
        assert max(figure.get_size_inches()) < 20
        assert all(len(axes.get_yticklabels()) <= 24 for axes in figure.axes)
        assert "The best 24 of 40 cells." in caption or "?" in caption.partition("best 24")[0]


def test_key_with_many_values_gets_few_sentences(tmp_path: Path) -> None:
    for number in range(100):
        leave_cell(tmp_path, "relu", around(0.98 - number / 500, 1 + number % 3), lr=0.001 * (number + 1))
    _, _, tests, said = everything(tmp_path)
    assert len(tests) == 99
    assert set(tests.n_comparisons) == {4950}  # all pairs of 100 values, compared or not
    assert (tests.verdict == "differ").sum() > 80
    assert said.count(" beats ") == MOST_CELLS
    assert re.search(r"\d+ more such comparisons are in pairs\.csv\.", said)


def test_each_file_of_a_run_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    lines_of = tables.lines_of

    def counted(path: Path) -> list[str]:
        read.append(path)
        return lines_of(path)

    monkeypatch.setattr(tables, "lines_of", counted)
    for number in range(4):
        leave_run(tmp_path / str(number), 0.9 + number / 100, lr=0.1 * (number + 1), right=[True] * 5)
    comparison, cells, *_ = everything(tmp_path)
    list(figures.every(comparison, cells))
    assert len(read) == len(set(read)) == 4 * 3


def test_reference_stands_beside_a_cell_only_if_it_is_that_of_all_its_runs(tmp_path: Path) -> None:
    for number, (activation, lr) in enumerate([("relu", 0.1), ("relu", 0.2), ("tanh", 0.1), ("tanh", 0.3)]):
        leave_run(tmp_path / str(number), 0.9 + number / 100, number % 2, activation, lr=lr)
    path, rows = tmp_path / "paper.csv", "relu,0.1,0.95\nrelu,0.2,0.96\ntanh,0.1,0.97\ntanh,0.3,0.97\n"
    path.write_text(f"activation,optimizer.lr,test/accuracy\n{rows}")
    _, cells, *_ = everything(tmp_path, reference=path, group=["activation"])
    shown = cells.set_index("activation").reference
    assert np.isnan(shown["relu"])
    assert shown["tanh"] == 0.97
