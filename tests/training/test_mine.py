"""Oracle: the built-in engine, whose history right functions must repeat."""

import hashlib
import shutil
from pathlib import Path

import pytest

from conftest import ROOT, RunScript, ran, record_of, refused, without_seconds
from handgrad.resolvers import content_hash
from handgrad.training import handin
from handgrad.training.mine import MineModule

SOURCE = """import torch
def phi(z): return torch.tanh(z)
def derivative(z, a): return 1 - a * a
def output_delta(p, y): return (p - y) / len(p)
def hidden_delta(delta, w, slope): return delta @ w * slope
def bias_gradient(delta): return delta.sum(0)
def weight_gradient(delta, a): return delta.T @ a
def update(parameter, gradient, lr): return parameter - lr * gradient
"""
USUAL = ["activation=tanh", "mine=mine.py", "network.hidden_sizes=[30,20]", "logger=none", "trainer.max_epochs=2"]
RUN = ["engine=mine", *USUAL, "hydra.run.dir=run"]


def history(folder: Path) -> list[list[float]]:
    """Return the numbers of history.csv, without the seconds."""
    return [list(map(float, row.values())) for row in without_seconds(folder)]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["optimizer=sgd", "schedule=constant", "regularizer=l2", "regularizer.strength=1e-3"],
        ["optimizer=grouped_sgd", "schedule=warmup_cosine", "schedule.warmup_steps=5", "data.batch_size=50"],
        ["optimizer=factored_sgd", "optimizer.lr=0.2", "regularizer=l2", "+trainer.limit_train_batches=7"],
    ],
    ids=str,
)
def test_right_functions_repeat_the_built_in_engine(run_script: RunScript, options: list[str]) -> None:
    Path("mine.py").write_text(SOURCE)
    options = [*USUAL, "trainer.precision=64-true", "hydra.sweep.dir=sweep", *options]
    ran(run_script, "-m", "engine=mine,manual", *options)
    mine, manual = sorted(Path("sweep").glob("*_tanh-*"))
    assert len(history(mine)) == 2
    for ours, theirs in zip(history(mine), history(manual), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-10, abs=1e-10)
    assert record_of(mine)["metrics"] == pytest.approx(record_of(manual)["metrics"], rel=1e-10)


def test_network_learns_by_the_students_functions_alone(run_script: RunScript) -> None:
    Path("mine.py").write_text(SOURCE.replace("parameter - lr", "parameter - 0 * lr"))
    assert run_script(*RUN)[0] == 0
    first, second = history(Path("run"))
    assert first[1:-2] == second[1:-2]  # no step at all: the same scores


def test_run_keeps_its_file_and_is_opened_without_executing_it(run_script: RunScript, tiny_mnist: Path) -> None:
    source = SOURCE + "with open('executed', 'a') as file: file.write('once ')\n"
    Path("mine.py").write_bytes(f"# coding: latin-1\r\n# größer\r\n{source}".encode("latin-1"))
    assert run_script(*RUN, "diagnostics=layers")[0] == 0
    assert Path("executed").read_text() == "once "
    assert Path("run/my_backprop.py").read_bytes() == Path("mine.py").read_bytes()
    assert record_of(Path("run"))["config"]["engine"] == {
        "_target_": "handgrad.training.mine.MineModule",
        "_partial_": True,
        "file": "mine.py",
        "sha256": hashlib.sha256(Path("mine.py").read_bytes()).hexdigest(),
    }
    assert len(Path("run/layers.csv").read_text().splitlines()) == 1 + 3 * 3
    Path("mine.py").unlink()
    shutil.copy(ROOT / "docs" / "images" / "lesson.png", "digit.png")
    opening = [["evaluate.py"], ["check.py", "fd_entries=2"], ["explain.py"], ["export.py"]]
    for script, *options in [*opening, ["predict.py", "images=digit.png"]]:
        ran(run_script, "run=run", *options, script=script)
    assert Path("executed").read_text() == "once "
    assert Path("run/explain.html").exists()


def test_edited_file_is_another_run_and_the_same_one_is_skipped(run_script: RunScript) -> None:
    Path("mine.py").write_text(SOURCE)
    sweep = ["-m", *RUN[:-1], "trainer.max_epochs=1", "hydra.sweep.dir=sweep"]
    assert run_script(*sweep)[0] == 0
    assert "completed before, skipped" in run_script(*sweep)[1]
    Path("mine.py").write_text(SOURCE + "# edited\n")
    printed = ran(run_script, *sweep)
    assert "skipped" not in printed
    assert len(list(Path("sweep").glob("*/metrics.json"))) == 2


def test_mine_changes_no_run_of_another_engine(run_script: RunScript) -> None:
    run = ["engine=manual", *USUAL, "hydra.run.dir=run"]
    assert "mine=mine.py has no effect: only engine=mine" in ran(run_script, *run)
    assert "completed before, skipped" in run_script(*[word for word in run if word != "mine=mine.py"])[1]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("def update", "def step", "def update(...) is missing from the file"),
        (
            "delta.sum(0)",
            "delta.sum(7)",
            "mine.py, bias_gradient, line 6, `def bias_gradient(delta): return delta.sum(7)`",
        ),
        ("delta.sum(0)", "delta.sum(1)", "bias_gradient returned a tensor of shape (3,), not a tensor of shape (10,)"),
        ("delta.sum(0)", "None", "bias_gradient returned None, not a tensor"),
        ("import torch", "import torch; 1 / 0", "mine.py, line 1, `import torch; 1 / 0`: ZeroDivisionError"),
        ("def phi(z):", "def phi(z:", "line 2"),
        (
            "import torch",
            "import torch\nwhile True: pass",
            "mine.py, line 2, `while True: pass`: TimeoutError: still running",
        ),
        (
            "return torch.tanh(z)",
            "\n  while True: z",
            "mine.py, phi, line 3, `while True: z`: TimeoutError: still running",
        ),
        ("import torch", "import torch; quit()", "mine.py, line 1, `import torch; quit()`: SystemExit"),
        ("parameter - lr * gradient", "quit(5)", "mine.py, update, line 8"),
    ],
)
def test_file_that_cannot_train_is_refused_before_an_epoch(
    run_script: RunScript, monkeypatch: pytest.MonkeyPatch, old: str, new: str, told: str
) -> None:
    monkeypatch.setattr(handin, "LIMIT", 1.0)
    Path("mine.py").write_text(SOURCE.replace(old, new))
    refused(run_script, told, *RUN)
    assert not Path("run/history.csv").exists()


UNFIT = {  # option: what is said
    "mine=gone.py": "cannot use gone.py (No such file or directory)",
    "mine=null": "engine=mine needs mine=my_backprop.py",
    "optimizer=adam": "engine=mine updates by your function, with the learning rate alone",
    "optimizer=sgd +optimizer.momentum=0.9": "without momentum and weight_decay",
    "optimizer=factored_sgd optimizer.momentum=0.9": "without momentum and weight_decay",
    "regularizer=dropout": "engine=mine regularizes by the L2 penalty alone",
    "skip=0.02": "engine=mine regularizes by the L2 penalty alone: regularizer=none or l2, skip=0",
    "+trainer.gradient_clip_val=1": "engine=mine neither clips nor accumulates",
    "+trainer.accumulate_grad_batches=2": "engine=mine neither clips nor accumulates",
    "trainer.precision=16-mixed": "precision",
    "trainer.precision=bf16-true": "engine=mine needs trainer.precision=32-true or 64-true, not bf16-true",
}


@pytest.mark.parametrize(("option", "told"), UNFIT.items(), ids=list(UNFIT))
@pytest.mark.filterwarnings("ignore")  # Lightning warns about half precision
def test_option_that_it_cannot_follow_is_refused(run_script: RunScript, option: str, told: str) -> None:
    Path("mine.py").write_text(SOURCE)
    refused(
        run_script, told, *[word for word in RUN if word != "mine=mine.py" or "mine=" not in option], *option.split()
    )


def test_other_activation_than_the_scored_one_is_remarked(run_script: RunScript) -> None:
    Path("mine.py").write_text(SOURCE)
    printed = ran(run_script, *[word for word in RUN if "activation" not in word], "trainer.max_epochs=1")
    assert "phi is not the activation with which the network is scored" in printed


def test_file_changed_at_the_start_is_refused(run_script: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.py").write_text(SOURCE)
    read = MineModule.read

    def edited(module: MineModule) -> bytes:
        Path("mine.py").write_text(SOURCE + "#")
        return read(module)

    monkeypatch.setattr(MineModule, "read", edited)
    refused(run_script, "mine.py was changed while the command started", *RUN)


def test_hash_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert content_hash(str(tmp_path / "a")).startswith("ba7816bf8f01cfea")
