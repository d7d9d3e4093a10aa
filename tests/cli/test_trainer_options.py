"""Oracle: docs/trainer-options.md, every row run by the real command, and Lightning's own signature."""

import inspect
import re
from pathlib import Path

import lightning
import pytest

from conftest import ROOT, RunScript, ended_at_scoring, ran, record_of, rows_of, words

# A row of the table: options, verdict, and details with the quoted error message of a refusal.
ROW = re.compile(r"^\| `([^`]+)` \| (works|refused)[^|]*\|([^|]*)\|$", re.MULTILINE)
TABLE = (ROOT / "docs" / "trainer-options.md").read_text(encoding="utf-8")
ROWS = ROW.findall(TABLE)
SIZES = "network.hidden_sizes=[30,20]"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning warns about unusual options
@pytest.mark.parametrize(("options", "verdict", "what"), ROWS, ids=[row[0] for row in ROWS])
def test_option_does_what_the_table_says(run_script: RunScript, options: str, verdict: str, what: str) -> None:
    status, printed = run_script(SIZES, "trainer.max_epochs=2", "hydra.run.dir=run", *words(options))
    assert "Traceback" not in printed
    assert (status == 0) == (verdict == "works"), printed
    if verdict == "refused":
        for sentence in re.findall(r"“([^”]+)”", what):
            assert sentence in printed
        assert not Path("run", "history.csv").exists()
    elif "fast_dev_run" not in options and "debug=fast" not in options:
        if ".callbacks." in options:
            check_one_network(run_script, options)
        run = record_of(Path("run"))
        assert run["status"] == "completed"
        assert 0 < run["metrics"]["train/accuracy"] <= 1
        assert run["metrics"]["train/loss"] < 3


def test_table_has_every_option_of_the_trainer() -> None:
    named = {match for row in ROWS for match in re.findall(r"trainer\.(\w+)", row[0])}
    assert set(inspect.signature(lightning.Trainer).parameters) - named == set()


def check_one_network(run_script: RunScript, options: str) -> None:
    """Check that history, record and evaluation are of the same network, by both engines."""
    for engine in ("manual", "autograd") if "engine=" not in options else (re.findall(r"engine=(\w+)", options)[0],):
        folder, typed = f"by_{engine}", [*words(options), f"engine={engine}", "optimizer.lr=0.01"]
        ran(run_script, SIZES, "trainer.max_epochs=2", f"hydra.run.dir={folder}", *dict.fromkeys(typed))
        last, metrics = rows_of(folder)[-1], record_of(folder)["metrics"]
        for name in ("test/loss", "test/accuracy"):
            assert float(last[name]) == pytest.approx(metrics[name], rel=1e-6)
        assert ran(run_script, f"run={folder}", script="evaluate.py").count("the same") == 4


def test_table_has_every_callback_of_lightning() -> None:
    abstract = {"BaseFinetuning", "BasePredictionWriter", "Callback", "Checkpoint", "ProgressBar"}
    named = set(re.findall(r"lightning\.pytorch\.callbacks\.(\w+)", TABLE))
    assert set(lightning.pytorch.callbacks.__all__) - abstract - named == set()


def test_averaged_network_is_one_after_a_run_that_goes_on(run_script: RunScript) -> None:
    average = "+callbacks.x={_target_: lightning.pytorch.callbacks.EMAWeightAveraging, decay: 0.9}"
    options = [SIZES, "trainer.max_epochs=3", "trainer.precision=64-true", average]
    with ended_at_scoring(3):
        assert run_script(*options, "hydra.run.dir=run")[0] == 143
    assert run_script(*options, "hydra.run.dir=run")[0] == 0
    assert run_script(*options, "hydra.run.dir=whole")[0] == 0
    resumed, whole = (record_of(Path(folder))["metrics"] for folder in ("run", "whole"))
    assert resumed == pytest.approx(whole, rel=1e-12)
    assert run_script("run=run", script="evaluate.py")[1].count("the same") == 4
