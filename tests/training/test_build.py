"""Oracle: what a seed and a thread count promise."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import ROOT, compose
from handgrad.training.build import assemble
from handgrad.training.modules import mlp_of


def begun(tiny_mnist: Path, folder: Path, *options: str) -> tuple[Tensor, Tensor]:
    """Return a new run's first-layer weights and the targets of its first batch."""
    cfg = compose("name=x", "logger=none", f"data.root={tiny_mnist}", *options)
    _, module, data, _ = assemble(cfg, folder, show_progress=False)
    return mlp_of(module, "a test").weights[0].detach(), next(iter(data.train_dataloader()))[1]


def test_seed_determines_weights_and_data_order_for_both_engines(tiny_mnist: Path, tmp_path: Path) -> None:
    for engine in ("manual", "autograd"):
        first, again, other = (begun(tiny_mnist, tmp_path, f"engine={engine}", f"seed={seed}") for seed in (1, 1, 2))
        assert all(map(torch.equal, first, again))
        assert not any(map(torch.equal, first, other))


def test_thread_count_is_set(tiny_mnist: Path, tmp_path: Path) -> None:
    begun(tiny_mnist, tmp_path, "threads=2")
    assert torch.get_num_threads() == 2
    begun(tiny_mnist, tmp_path, "threads=1")
    assert torch.get_num_threads() == 1


@pytest.mark.slow
def test_denormals_are_flushed_in_every_thread(tiny_mnist: Path, tmp_path: Path) -> None:
    """Runs in a new process: threads that exist already would not get the setting."""
    code = f"""
import pathlib, hydra, torch
from handgrad.hydra_version import BASE
from handgrad.training.build import assemble
with hydra.initialize_config_dir({str(ROOT / "conf")!r}, **BASE):
    cfg = hydra.compose("train", ["name=x", "logger=none", "threads=2", "data.root={tiny_mnist}"])
assert float(torch.full((1,), 1e-30) * 1e-10)
assemble(cfg, pathlib.Path(), show_progress=False)
assert not (torch.full((4_000_000,), 1e-30) * 1e-10).any()
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
