"""Oracle: numbers worked by hand, a textbook's exact binomial, and runs whose differences are known by construction."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import ROOT, Command
from handgrad.config import UserError
from handgrad.report import figures, page, runs, statistics

REFERENCE = pd.read_csv(ROOT / "docs" / "notebook" / "results.csv")
CURVES = pd.read_csv(ROOT / "docs" / "notebook" / "curves.csv")
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
    """Leave what a comparison reads of a run; `changes` replace parts of its record."""
    folder.mkdir(parents=True)
    optimizer = {"manual": "notebook_sgd", "autograd": "adam"}[engine]
    config = {"seed": seed, "name": "x", "threads": None, "network": {"hidden_sizes": [500, 250]}}
    config["optimizer"] = {"_target_": optimizer, "lr": changes.pop("lr", 0.01)}
    metrics = {"train/accuracy": accuracy + 0.01, "test/accuracy": accuracy, "test/loss": 1 - accuracy}
    record = {
        "status": status,
        "reason": None,
        "name": f"{activation}-{engine}",
        "seed": seed,
        "choices": {
            "activation": activation,
            "engine": engine,
            "regularizer": "none",
            "data": "mnist",
            "optimizer": optimizer,
            "experiment": None,
        },
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


def everything(folder: Path) -> tuple[runs.Comparison, pd.DataFrame, pd.DataFrame, pd.DataFrame, str]:
    """Comparison, cells, pairs, effects and all sentences of a folder."""
    comparison = runs.collect([folder])
    cells = statistics.pooled(comparison, REFERENCE)
    pairs, effects = statistics.pairs(comparison, cells), statistics.effects(comparison)
    return comparison, cells, pairs, effects, " ".join(statistics.sentences(comparison, cells, pairs, effects))


def test_interval_is_students() -> None:
    mean, low, high = statistics.interval([1.0, 2.0, 3.0])
    half = 4.302653 * 1 / 3**0.5  # t of two degrees of freedom at 97.5 %, times the standard error
    assert (mean, low, high) == pytest.approx((2, 2 - half, 2 + half), abs=1e-5)
    assert np.isnan(statistics.interval([1.0])[1:]).all()
    assert np.isnan(statistics.interval([1.0, 1.0])[1:]).all()
    assert np.isnan(statistics.interval([])).all()


def test_only_completed_runs_make_a_mean_and_none_is_hidden(tmp_path: Path) -> None:
    for seed, status in enumerate(["completed", "completed", "diverged", "failed", "running"]):
        leave_run(tmp_path / f"{seed}_x", 0.98, seed, status=status)
    leave_run(tmp_path / "5_x", 0.0986, seed=5)
    comparison, cells, _, _, sentences = everything(tmp_path)
    (cell,) = cells.itertuples()
    assert (cell.runs, cell.completed, cell.diverged, cell.failed, cell.running, cell.at_chance) == (6, 3, 1, 1, 1, 1)
    assert cells["test/accuracy"][0] == pytest.approx((0.98 + 0.98 + 0.0986) / 3)
    assert len(comparison.table) == 6
    # Clopper and Pearson's upper end for 2 of 4 by the beta distribution: 0.9324; the lower is its mirror
    assert "2 of 4 runs of relu manual none learned (95 % interval of the share 7% to 93%); 1 stayed" in sentences
    said = " ".join(comparison.remarks)
    assert "1 of 6 runs diverged and are part of no mean: 2_x." in said
    assert "1 of 6 runs failed and are part of no mean: 3_x." in said
    assert "1 of 6 runs still running, or were killed and are part of no mean: 4_x." in said
    assert "1 of 6 runs stayed at chance (accuracy below 20%) and are part of their cell's mean: 5_x." in said


def test_cells_are_found_from_the_configurations(tmp_path: Path) -> None:
    for i, (engine, lr) in enumerate([("manual", 0.1), ("manual", 0.2), ("autograd", 0.1), ("autograd", 0.2)]):
        leave_run(tmp_path / str(i), 0.9, engine=engine, lr=lr)
    comparison = runs.collect([tmp_path])
    assert comparison.keys == ["activation", "engine", "regularizer", "optimizer.lr"]
    assert comparison.varying == ["engine", "optimizer.lr"]
    assert comparison.follows == {"engine": ["optimizer"]}
    assert comparison.swept == "optimizer.lr"
    labels = statistics.pooled(comparison, REFERENCE).label
    assert set(labels) == {"manual lr=0.1", "manual lr=0.2", "autograd lr=0.1", "autograd lr=0.2"}


def test_known_difference_is_found_and_none_is_invented(tmp_path: Path) -> None:
    for seed, noise in enumerate(NOISE):
        leave_run(tmp_path / f"r{seed}", 0.980 + 10 * noise, seed, "relu")
        leave_run(tmp_path / f"t{seed}", 0.976 + 9 * noise, seed, "tanh")  # 0.4 points below, seed by seed
        leave_run(tmp_path / f"s{seed}", 0.980 - 9 * noise, seed, "sigmoid")
    _, _, pairs, effects, said = everything(tmp_path)
    row = effects[(effects.a == "relu") & (effects.b == "tanh")].iloc[0]
    differences = [0.004 + noise for noise in NOISE]
    half = 4.302653 * np.std(differences, ddof=1) / 3**0.5
    assert (row.test, row.n, row.difference) == ("paired t", 3, pytest.approx(0.004))
    assert (row.low, row.high) == pytest.approx((0.004 - half, 0.004 + half), abs=1e-6)
    assert row.p_corrected == pytest.approx(3 * row.p)  # Holm: the smallest of three
    assert "relu beats tanh by 0.40 points (95 % interval 0.31 to 0.49, 3 seeds each; corrected p = 0.0" in said
    assert "No difference between relu and sigmoid was found (0.00 points" in said
    assert len(pairs) == 3


def test_equal_runs_are_called_equal(tmp_path: Path) -> None:
    for seed, noise in enumerate(NOISE):
        for engine in ("manual", "autograd"):
            leave_run(tmp_path / f"{engine}{seed}", 0.97 + noise, seed, engine=engine)
    assert "are equal, seed by seed (3 seeds each)." in everything(tmp_path)[-1]


def test_effect_is_averaged_over_the_other_cells_and_names_what_follows(tmp_path: Path) -> None:
    for seed, noise in enumerate(NOISE):
        for activation, base in (("relu", 0.97), ("tanh", 0.95)):
            leave_run(tmp_path / f"m{activation}{seed}", base + 0.010 + noise, seed, activation, "manual")
            leave_run(tmp_path / f"a{activation}{seed}", base + 0.002 - noise, seed, activation, "autograd")
    _, _, _, effects, said = everything(tmp_path)
    engine = effects[effects.key == "engine"].iloc[0]
    assert (engine.a, engine.b, engine.cells, engine.difference) == ("manual", "autograd", 2, pytest.approx(0.008))
    assert "manual beats autograd by 0.80 points" in said
    assert "averaged over 2 cells, from 0.80 in " in said
    assert "engine also decides optimizer: its differences are theirs as well." in said


def test_cells_own_differences_are_of_the_seeds_that_count(tmp_path: Path) -> None:
    for seed, noise in enumerate(NOISE):
        for activation, base in (("relu", 0.97), ("tanh", 0.95)):
            leave_run(tmp_path / f"m{activation}{seed}", base + 0.010 + noise, seed, activation, "manual")
            leave_run(tmp_path / f"a{activation}{seed}", base + 0.002 - noise, seed, activation, "autograd")
    for activation in ("relu", "tanh"):  # a seed that the other engine has not
        leave_run(tmp_path / f"{activation}3", 0.50, 3, activation, "manual")
    engine = everything(tmp_path)[3].set_index("key").loc["engine"]
    assert (engine.n, engine.difference) == (3, pytest.approx(0.008))
    assert (engine.least, engine.most) == pytest.approx((0.008, 0.008))


def test_single_runs_get_mcnemars_test_and_no_interval(tmp_path: Path) -> None:
    both = [True] * 20
    leave_run(tmp_path / "0", 0.97, activation="relu", right=both + [True] * 8 + [False])
    leave_run(tmp_path / "1", 0.90, activation="tanh", right=both + [False] * 8 + [True])
    _, _, pairs, _, said = everything(tmp_path)
    assert (pairs.test[0], pairs.only_a[0], pairs.only_b[0]) == ("McNemar", 8, 1)
    assert pairs.p[0] == pytest.approx(2 * (1 + 9) / 2**9)  # two-sided: at most 1 of 9 tosses
    assert "These two runs of relu and tanh differ (7.00 points; only the first is right on 8 test images" in said
    assert "interval" not in said


def test_repeated_run_counts_once(tmp_path: Path) -> None:
    leave_run(tmp_path / "a" / "0", 0.97)
    leave_run(tmp_path / "b" / "0", 0.98)
    leave_run(tmp_path / "b" / "1", 0.99, status="failed")
    comparison = runs.collect([tmp_path])
    assert comparison.table["test/accuracy"].tolist() == [0.98]
    assert comparison.remarks == ["2 of 3 runs repeat a cell and seed: only the last completed one of each counts."]


def test_unlike_runs_are_compared_with_a_warning(tmp_path: Path) -> None:
    leave_run(tmp_path / "0", 0.97)
    fashion = {"activation": "relu", "engine": "manual", "regularizer": "none", "data": "fashion_mnist"}
    leave_run(tmp_path / "1", 0.88, choices=fashion, versions={"torch": "2.15"}, commit="def")
    comparison, cells, *_ = everything(tmp_path)
    said = " ".join(comparison.remarks)
    assert "different data sets (" in said
    assert "different versions of torch (" in said
    assert "different commits" in said
    assert cells.data.tolist() == ["mnist", "fashion_mnist"]
    assert cells.notebook.notna().tolist() == [True, False]


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
    assert "Left out: 4_c never got as far as a metrics.json." in comparison.remarks


def test_nothing_to_compare_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no sweep in"):
        runs.matching([], tmp_path)
    with pytest.raises(UserError, match="no folder matches sweep="):
        runs.matching([str(tmp_path / "x*")], tmp_path)
    with pytest.raises(UserError, match="there is no run to compare in"):
        runs.collect([tmp_path])
    leave_run(tmp_path / "0", 0.9, status="running")
    leave_run(tmp_path / "1", 0.9, activation="tanh", status="diverged", reason="too fast")
    assert "No run is completed yet." in everything(tmp_path)[-1]


def test_every_figure_is_drawn_where_there_is_something_to_draw(tmp_path: Path) -> None:
    for lr in (0.0, 0.001, 0.1):
        for seed, noise in enumerate(NOISE):
            leave_run(tmp_path / f"{lr}-{seed}", 0.9 + lr / 10 + noise, seed, lr=lr)
    comparison, cells, *_ = everything(tmp_path)
    drawn = [name for name, _, _ in figures.every(comparison, cells, CURVES)]
    assert drawn == ["accuracy", "curves", "gap", "confusion", "time", "option"]


def test_newest_sweep_is_compared_on_one_page(command: Command, tmp_path: Path) -> None:
    leave_run(tmp_path / "outputs" / "sweeps" / "2026-01-01" / "0_x", 0.5)
    newest = tmp_path / "outputs" / "sweeps" / "2026-01-02"
    for seed, noise in enumerate(NOISE):
        leave_run(newest / f"{seed}_relu", 0.98 + noise, seed)
        leave_run(newest / f"{3 + seed}_tanh", 0.97 - noise, seed, "tanh")
    done = command("compare.py")
    assert done.returncode == 0, done.stderr
    assert "98.00 ± 0.09" in done.stdout
    assert "98.29 (15 epochs)" in done.stdout
    assert "relu beats tanh by 1.00 points" in done.stdout
    figure_files = {
        f"{name}.{kind}" for name in ("accuracy", "curves", "gap", "confusion", "time") for kind in ("png", "svg")
    }
    tables = {"table.csv", "summary.csv", "pairs.csv", "summary.md", "report.html"}
    assert {path.name for path in (newest / "comparison").iterdir()} == figure_files | tables
    html = (newest / "comparison" / "report.html").read_text()
    assert "relu beats tanh by 1.00 points" in html
    assert not [word for word in ("http:", "https:", "<script", "stylesheet") if word in html]  # needs no network
    assert html.count("data:image/svg+xml;base64,") == 5
    rows = list(csv.DictReader((newest / "comparison" / "table.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["0_relu", "1_relu", "2_relu", "3_tanh", "4_tanh", "5_tanh"]
    with Image.open(newest / "comparison" / "accuracy.png") as picture:
        assert picture.width > 1000
    assert {path.name for path in tmp_path.iterdir()} == {"data", "outputs"}


def test_several_sweeps_by_a_glob_are_compared_elsewhere(command: Command, tmp_path: Path) -> None:
    leave_run(tmp_path / "s1" / "0", 0.98)
    leave_run(tmp_path / "s2" / "0", 0.97, activation="tanh")
    done = command("compare.py", "sweep=s*", "output=there")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there" / "report.html").exists()
    for wrong, answer in (("sweep=3", "no folder matches sweep=3"), ("sweeps=s1", "Did you mean sweep?")):
        done = command("compare.py", wrong)
        assert done.returncode == 1
        assert answer in done.stderr
        assert "Traceback" not in done.stderr


def test_sweep_of_single_seeds_is_told_how_to_get_intervals(command: Command, tmp_path: Path) -> None:
    sweep = ["-m", "activation=relu,tanh", "trainer.max_epochs=1", "+trainer.limit_train_batches=60"]
    assert command("train.py", *sweep, "hydra.sweep.dir=sweep").returncode == 0
    done = command("compare.py", "sweep=sweep")
    assert done.returncode == 0, done.stderr
    assert "McNemar's test, corrected p" in done.stdout
    printed = next(line for line in done.stdout.splitlines() if line.startswith("python src/train.py -m"))
    assert printed == (
        "python src/train.py -m activation=relu,tanh trainer.max_epochs=1 +trainer.limit_train_batches=60 "
        "seed=0,1,2,3,4 hydra.sweep.dir=sweep"
    )


def test_comparing_does_not_import_torch() -> None:
    code = "import sys; from handgrad.report import figures, page, runs, statistics; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "statsmodels" in done.stdout
    assert "torch" not in done.stdout.split()


def test_p_value_below_a_thousandth_is_not_called_zero() -> None:
    assert statistics.p_value(pd.Series({"p_corrected": 0.0})) == "< 0.001"
    assert statistics.p_value(pd.Series({"p_corrected": 0.0281})) == "= 0.028"


def test_command_for_more_seeds_keeps_the_launcher(tmp_path: Path) -> None:
    assert page.command_for_more_seeds([tmp_path]).endswith("-m <the options of these runs> seed=0,1,2,3,4")
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "overrides.yaml").write_text("[activation=tanh, seed=3]")
    single = page.command_for_more_seeds([tmp_path / "run"])
    assert single == "python src/train.py -m activation=tanh seed=0,1,2,3,4"
    overrides = {
        "task": ["seed=3", "experiment=glob(notebook_*)"],
        "hydra": ["hydra/launcher=parallel", "hydra.mode=MULTIRUN"],
    }
    (tmp_path / "multirun.yaml").write_text(json.dumps({"hydra": {"overrides": overrides}}))
    assert page.command_for_more_seeds([tmp_path]) == (
        "python src/train.py -m hydra/launcher=parallel 'experiment=glob(notebook_*)' seed=0,1,2,3,4 "
        f"hydra.sweep.dir={tmp_path}"
    )
