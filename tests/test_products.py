"""Oracle: float64 products, and PyTorch's own switch."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import Here
from handgrad.nn.mlp import MLP
from handgrad.training import matmul
from handgrad.training.matmul import DEFAULT, FASTER, largest_errors, set_matmul_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def switched_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On a CPU that is not Intel's; leaves the other tests PyTorch's default."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "AMD EPYC"})
    yield
    torch.set_float32_matmul_precision(DEFAULT)


def test_an_error_is_that_of_the_worst_entry() -> None:
    """Of (O, I) = (10, 784) and B = 64: a default product in float32 is off by some units of its last place."""
    errors = largest_errors(MLP([500, 250, 100]).weights, 64, CPU)
    assert errors.shape == (4, 3)
    assert errors.dtype == torch.float64
    assert ((errors > 0) & (errors < 1e-6)).all()


@pytest.mark.parametrize("least", range(3))
def test_fastest_is_taken_only_where_every_product_is_as_exact(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    def made(factor: float) -> list[Tensor]:
        """What rounds one of a layer's three products `factor` times as much with the faster switch."""
        usual = torch.full((2, 3), 1e-7, dtype=torch.float64)
        faster = usual.clone()
        faster[1, least] *= factor
        return [usual, faster]

    for factor, taken in ((3.9, FASTER), (4.1, DEFAULT)):
        answers = iter(made(factor))
        monkeypatch.setattr(matmul, "largest_errors", lambda *_, answers=answers: next(answers))
        assert set_matmul_precision("fastest", [], 64, CPU) == taken
        assert torch.get_float32_matmul_precision() == taken


@pytest.mark.parametrize(
    ("name", "taken"),
    [("Intel Xeon", DEFAULT), ("AMD EPYC", FASTER), (None, FASTER)],
)
def test_fastest_is_the_default_on_a_cpu_of_intels(
    monkeypatch: pytest.MonkeyPatch, name: str | None, taken: str
) -> None:
    """Where both are as exact; what is not a CPU has no name for it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name} if name else {})
    monkeypatch.setattr(matmul, "largest_errors", lambda *_: torch.ones(1, 3))
    assert set_matmul_precision("fastest", [], 64, CPU) == taken


def test_rounding_to_bfloat16_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a CPU has no unit for it, nothing rounds by itself: here the products do."""
    exact = matmul.layer_matmuls

    def rounded(*factors: Tensor) -> list[Tensor]:
        if torch.get_float32_matmul_precision() == FASTER and factors[0].dtype == torch.float32:
            return exact(*(factor.bfloat16().float() for factor in factors))
        return exact(*factors)

    monkeypatch.setattr(matmul, "layer_matmuls", rounded)
    assert set_matmul_precision("fastest", MLP([20]).weights, 64, CPU) == DEFAULT


def test_record_says_which_products_were_made(here: Here, tmp_path: Path) -> None:
    """All in one process: what a run has switched on, the next one does not inherit."""
    sweep = ("-m", "matmul=high,default,medium", "hydra.sweep.dir=sweep")
    assert here(*sweep, "trainer.max_epochs=1", "logger=none")[0] == 0
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("sweep/*/metrics.json"))]
    assert [record["matmul"] for record in records] == ["high", "highest", "medium"]


def test_mistyped_products_are_refused_with_the_choices(here: Here) -> None:
    code, said = here("matmul=fast")
    assert code == 1
    assert "matmul=fast cannot be: it should be 'default', 'fastest', 'high' or 'medium'" in said
