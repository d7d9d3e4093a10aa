"""Make docs/lesson.ckpt, the network of the lesson and of the notebooks: python studies/lesson.py.

One epoch of the default recipe; weights as 16-bit floats, so that every class has the same network on every processor.
It computes in float64, where products differ by rounding of 1e-16 between processors, not 1e-7.
"""

from pathlib import Path

import torch

import handgrad
from handgrad.runs.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[1]

if __name__ == "__main__":
    run = handgrad.train("trainer.max_epochs=1", "name=lesson", f"data.root={ROOT / 'data'}")
    content, config = read_checkpoint(run.folder / "checkpoints" / "last.ckpt")
    assert config is not None
    config["data"]["root"] = "data"
    config["trainer"]["precision"] = "64-true"
    weights = {name: tensor.half() for name, tensor in content["state_dict"].items()}
    torch.save({"state_dict": weights, "hyper_parameters": config}, ROOT / "docs" / "lesson.ckpt")
