"""Oracle: the notebooks themselves, executed from the first cell to the last in a new kernel, on the small data."""

import json
import runpy
from pathlib import Path

import pytest

from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs_from_the_first_cell_to_the_last(path: Path, tiny_mnist: Path, tmp_path: Path) -> None:
    for name in ("conf", "docs", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").symlink_to(tiny_mnist)
    (tmp_path / "notebooks").mkdir()
    executed = runpy.run_path(str(ROOT / "notebooks" / "execute.py"))["executed"](path, tmp_path / "notebooks")
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_small_and_has_its_outputs(path: Path) -> None:
    assert path.stat().st_size < 1_500_000
    text = path.read_text(encoding="utf-8")
    assert str(ROOT) not in text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
