"""What the tests share: real MNIST, the real command line, and every core for one test at a time."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from handgrad.data import BatchLoader, MNISTDataModule

ROOT = Path(__file__).parents[1]
Command = Callable[..., subprocess.CompletedProcess[str]]

torch.set_num_threads(1)  # two test processes share two cores


@pytest.fixture(scope="session")
def mnist() -> MNISTDataModule:
    """The whole of MNIST, as training sees it."""
    data = MNISTDataModule(root=str(ROOT / "data"))
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture(scope="session")
def few(mnist: MNISTDataModule) -> BatchLoader:
    """The first 640 training images in ten batches of 64, the order of each epoch drawn with seed 0."""
    train = mnist.train_dataloader()
    return BatchLoader(train.images[:640], train.targets[:640], batch_size=64, seed=0)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs `python src/<script>` in an empty folder that sees the project's data; returns what it printed."""
    (tmp_path / "data").symlink_to(ROOT / "data")

    def call(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, ROOT / "src" / script, *arguments],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=200,
        )

    return call
