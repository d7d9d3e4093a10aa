"""Oracle: docs/trainer-options.md, every row run by the real command, and Lightning's own signature."""

import inspect
import re
from pathlib import Path

import lightning
import pytest

from conftest import ROOT, RunScript, record_of, words

# A row of the table: options, verdict, and details with the quoted error message of a refusal.
ROW = re.compile(r"^\| `([^`]+)` \| (works|refused)[^|]*\|([^|]*)\|$", re.MULTILINE)
TABLE = (ROOT / "docs" / "trainer-options.md").read_text(encoding="utf-8")
ROWS = ROW.findall(TABLE)


@pytest.mark.filterwarnings("ignore")  # Lightning warns about unusual options
@pytest.mark.parametrize(("options", "verdict", "what"), ROWS, ids=[row[0] for row in ROWS])
def test_option_does_what_the_table_says(run_script: RunScript, options: str, verdict: str, what: str) -> None:
    usual = ["network.hidden_sizes=[30,20]", "trainer.max_epochs=2"]
    status, printed = run_script(*usual, "hydra.run.dir=run", *words(options))
    assert "Traceback" not in printed
    assert (status == 0) == (verdict == "works"), printed
    if verdict == "refused":
        for sentence in re.findall(r"“([^”]+)”", what):
            assert sentence in printed
        assert not Path("run", "history.csv").exists()
    elif "fast_dev_run" not in options and "debug=fast" not in options:
        run = record_of(Path("run"))
        assert run["status"] == "completed"
        assert 0 < run["metrics"]["train/accuracy"] <= 1
        assert run["metrics"]["train/loss"] < 3


def test_table_has_every_option_of_the_trainer() -> None:
    options = set(inspect.signature(lightning.Trainer).parameters)
    named = {match for row in ROWS for match in re.findall(r"trainer\.(\w+)", row[0])}
    assert options - named == set()
