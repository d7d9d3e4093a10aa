"""Oracle: float64 products, and PyTorch's own precision setting."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import RunScript
from handgrad.nn.backprop import FactoredGradient, hidden_delta, pre_activation
from handgrad.training.matmul import DEFAULT, FASTER, set_matmul_precision

CPU = torch.device("cpu")
SHAPES = [(500, 784), (250, 500), (100, 250), (10, 100)]  # (O, I) of every layer
MOST = 4.0  # largest error allowed, in multiples of the default's


@pytest.fixture(autouse=True)
def switched_back() -> Iterator[None]:
    """Restore PyTorch's default precision after the test."""
    yield
    torch.set_float32_matmul_precision(DEFAULT)


def largest_errors() -> Tensor:
    """Return (L, 3): largest error over largest entry of every layer's pre-activations, deltas and weight gradient."""
    generator = torch.Generator().manual_seed(0)
    errors = []
    for outputs, inputs in SHAPES:
        sizes = [(inputs, 64), (outputs, 64), (inputs, 64), (inputs, outputs), (1, outputs)]
        factors = [torch.randn(*size, generator=generator).T for size in sizes]  # column-major
        made, exact = products(*factors), products(*(factor.double() for factor in factors))
        errors += [(one - right).abs().max() / right.abs().max() for one, right in zip(made, exact, strict=True)]
    return torch.stack(errors).view(-1, 3)


def products(a: Tensor, delta: Tensor, slope: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Return a layer's three products: pre-activations, hidden deltas, weight gradient."""
    gradient = FactoredGradient(delta, a).weight()
    return [pre_activation(a, weight, bias[:, 0]), hidden_delta(delta, weight, slope), gradient]


def test_auto_is_as_exact_as_the_default_on_this_machine() -> None:
    set_matmul_precision("default", CPU)
    usual = largest_errors()
    assert ((usual > 0) & (usual < 1e-6)).all()
    set_matmul_precision("auto", CPU)
    assert float((largest_errors() / usual).max()) <= MOST


def test_rounding_to_bfloat16_would_be_noticed() -> None:
    a, delta, slope, weight, bias = (torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) for _ in range(5))
    exact = products(*(each.double() for each in (a, delta, slope, weight, bias)))
    usual = products(a, delta, slope, weight, bias)
    rounded = products(*(each.bfloat16().float() for each in (a, delta, slope, weight, bias)))
    for right, one, other in zip(exact, usual, rounded, strict=True):
        assert (other - right).abs().max() > 100 * MOST * (one - right).abs().max()


@pytest.mark.parametrize(
    ("cpu", "taken"),
    [
        ({"cpu_name": "AMD EPYC", "architecture": "x86_64"}, FASTER),
        ({"cpu_name": "AMD EPYC", "architecture": "x86_64", "avx512_bf16": True}, DEFAULT),
        ({"cpu_name": "Intel Xeon", "architecture": "x86_64"}, DEFAULT),
        ({"cpu_name": "Intel Xeon", "architecture": "x86_64", "amx_bf16": True}, DEFAULT),
        ({"cpu_name": "Neoverse", "architecture": "aarch64"}, DEFAULT),
        ({}, DEFAULT),
    ],
)
def test_auto_is_faster_only_where_nothing_is_rounded(
    monkeypatch: pytest.MonkeyPatch, cpu: dict[str, Any], taken: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu, raising=False)
    assert set_matmul_precision("auto", CPU) == torch.get_float32_matmul_precision() == taken
    assert set_matmul_precision("auto", torch.device("cuda")) == DEFAULT


def test_record_names_the_matmul_precision(run_script: RunScript, tmp_path: Path) -> None:
    """All in one process: a run does not inherit the precision of the one before."""
    sweep = ("-m", "matmul=high,default,medium", "hydra.sweep.dir=sweep")
    assert run_script(*sweep, "trainer.max_epochs=1", "logger=none")[0] == 0
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("sweep/*/metrics.json"))]
    assert [record["matmul"] for record in records] == ["high", "highest", "medium"]
