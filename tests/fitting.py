"""Small modules and short trainings, for the tests of engines and callbacks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning import Trainer
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LinearLR

from conftest import head_of
from handgrad.nn.activations import Activation, Tanh
from handgrad.nn.mlp import MLP
from handgrad.nn.regularizers import Regularizer
from handgrad.training.data import Examples, make_loader
from handgrad.training.manual import ManualModule
from handgrad.training.modules import AutogradModule, Classifier

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "momentum": partial(SGD, lr=0.05, momentum=0.9, nesterov=True),
    "adam": partial(Adam, lr=0.001, fused=True),
}
Module = TypeVar("Module", bound=Classifier)
Engine = type[ManualModule] | type[AutogradModule]


def make(engine: type[Module], phi: Activation | None = None, **changes: Any) -> Module:
    """Return a small module with fixed initial weights."""
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "network": MLP([784, 30, 20, 10, 10]),
        "classes": 10,
        "regularizer": Regularizer(1e-3),
        "optimizer": OPTIMIZERS["momentum"],
        "schedule": partial(LinearLR, start_factor=0.01, total_iters=20),
    }
    return engine(activation=phi or Tanh(), **(parts | changes))


def fit(
    module: Classifier,
    images: Examples,
    epochs: int,
    ckpt: Path | None = None,
    watched: str = "test",
    precision: Any = "64-true",
    **options: Any,
) -> Trainer:
    """Train with Lightning's own parts only, on batches of 64 in the order of seed 0.

    The first 64 images are the validation set, named `watched`. A manual module gets the options of its steps, as
    `assemble` does.
    """
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    quiet |= {"enable_progress_bar": False}
    if isinstance(module, ManualModule):
        module.batches_per_step = options.pop("accumulate_grad_batches", 1)
        module.clip_val = options.pop("gradient_clip_val", None)
        module.clip_algorithm = options.pop("gradient_clip_algorithm", "norm")
    trainer = Trainer(accelerator="cpu", precision=precision, max_epochs=epochs, **(quiet | options))
    if precision == "64-true":
        module.double()  # Lightning restores a checkpoint before it converts the module, and would round it to float32
    scored = make_loader(head_of(images, 64), 64)
    trainer.fit(module, make_loader(images, 64, seed=0), {watched: scored}, ckpt_path=ckpt, weights_only=True)
    return trainer
