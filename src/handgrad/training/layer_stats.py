"""Layer diagnostics during training: saturation, dead units, deltas, gradients, updates."""

import copy
import logging
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor
from torchvision.utils import make_grid

from handgrad.nn import backprop, gradcheck
from handgrad.nn.activations import Activation
from handgrad.nn.backprop import FactoredGradient
from handgrad.nn.mlp import MLP
from handgrad.runs.folder import LAYERS, write_figure, write_rows
from handgrad.runs.record import summarize
from handgrad.training.artifacts import log_figure
from handgrad.training.callbacks import History
from handgrad.training.figures import layers
from handgrad.training.modules import Classifier, mlp_of

log = logging.getLogger(__name__)

CHECKED = 64  # sample images for the gradient check and the histograms
SATURATED = 0.01  # saturation threshold on |phi'|, relative to its maximum
SHOWN = 64  # first-layer units shown as images


class Layer(NamedTuple):
    """One layer's values on a sample of B images.

    activation: (B, O) output of the layer; the logits for the last layer.
    slope: (B, O) phi'(z); None for the last layer, which has no phi.
    gradient: gradient of the sample's mean loss, in factored form.
    """

    activation: Tensor
    slope: Tensor | None
    gradient: FactoredGradient


def run_layers(network: MLP, phi: Activation, x: Tensor, y: Tensor) -> list[Layer]:
    """Run the forward and backward pass on a sample; return every layer's values, in layer order."""
    _, passed, gradients = backprop.loss_and_gradients(x, y, network.weights, network.biases, phi)
    outputs = [*passed.inputs[1:], passed.logits]
    return [Layer(*parts) for parts in zip(outputs, [*passed.slopes, None], gradients, strict=True)]


def max_slope(phi: Activation) -> float:
    """Return the maximum of |phi'(z)| over z, to four digits."""
    z = torch.linspace(-10, 10, 20001, dtype=torch.float64)
    return float(phi.derivative(z, phi(z)).abs().max())


@torch.no_grad()
def layer_stats(layer: Layer, weight: Tensor, decay: float, most: float) -> dict[str, float | None]:
    """Compute a layer's statistics on a sample, named as in `layers.csv` and the loggers.

    Mean and standard deviation of the activation; saturated share of units and images (|phi'| below 1 % of its maximum,
    `most`) and dead share of units (phi' zero on the whole sample), both None for the last layer; Euclidean norms of
    delta and of the weight gradient including the penalty's, `decay` times the weights (O, I).
    """
    saturated = dead = None
    if layer.slope is not None:
        saturated = float((layer.slope.abs() < SATURATED * most).float().mean())
        dead = float((layer.slope == 0).all(dim=0).float().mean())
    return {
        "activation_mean": float(layer.activation.mean()),
        "activation_std": float(layer.activation.std(correction=0)),
        "saturated": saturated,
        "dead": dead,
        "delta_norm": float(layer.gradient.delta.norm()),
        "gradient_norm": float((layer.gradient.weight() + decay * weight).norm()),
    }


class LayerDiagnostics(Callback):
    """Records layer statistics before training and after every epoch, excluded from the epoch's time.

    Writes `layers.csv` and `layers.png` to the run's folder. TensorBoard also gets scalars, histograms, the first
    layer's weights, the confusion matrix and the figure; MLflow scalars and the figure; other loggers scalars. The
    sample is the start of the training set.
    """

    def __init__(self, folder: Path, history: History, examples: int = 256) -> None:
        self.folder = folder
        self.history = history
        self.examples = examples
        self.rows: list[dict[str, Any]] = []
        self.before: list[Tensor] = []  # weights before the epoch's last step
        self.updates: list[float | None] = []  # per layer: log10 of |step| / |weights| at the last step
        self.most = math.nan  # maximum of |phi'|, set when training starts
        self.looks: list[float] = []  # seconds per measurement

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]

    def setup(self, trainer: Trainer, pl_module: Classifier, stage: str) -> None:
        self.network = mlp_of(pl_module, "diagnostics=layers")  # refuses another network before training

    def on_train_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        self.most = max_slope(pl_module.activation)
        if not self.rows:  # empty unless resumed
            self.look(trainer, pl_module, epoch=0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Classifier) -> None:
        self.updates = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Classifier, batch: Any, batch_idx: int) -> None:
        if trainer.is_last_batch:
            self.before = [weight.detach().clone() for weight in self.network.weights]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Classifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.before:
            steps = zip(self.before, self.network.weights, strict=True)
            shares = [float((after.detach() - before).norm() / before.norm()) for before, after in steps]
            self.updates = [math.log10(share) if share > 0 else None for share in shares]
            self.before = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        with self.history.paused():
            self.look(trainer, pl_module, epoch=trainer.current_epoch + 1)

    def on_train_end(self, trainer: Trainer, pl_module: Classifier) -> None:
        if not trainer.is_global_zero or not self.looks:
            return
        figure = layers(self.rows)
        write_figure(self.folder, "layers", figure)
        log_figure(trainer, "layers", figure)
        look, epoch = statistics.median(self.looks), summarize(self.history.rows)["seconds_per_epoch"]
        log.info("diagnostics=layers took %.3f s per epoch, %.1f %% of its training", look, 100 * look / epoch)

    def look(self, trainer: Trainer, module: Classifier, epoch: int) -> None:
        """Compute, write and log the statistics of every layer after a number of epochs."""
        # Before the return of other ranks: the confusion matrix may need a collective.
        counts = {name: module.scores_of(name).confusion_matrix() for name in module.val_sets if module.val_is_fresh}
        if trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        began = time.perf_counter()
        train = trainer.datamodule.sets["train"]  # type: ignore[attr-defined]
        network, weights = self.network, self.network.weights
        dtype = torch.promote_types(weights[0].dtype, torch.float32)
        network = network if weights[0].dtype == dtype else copy.deepcopy(network).to(dtype)
        x, y = train.first(self.examples, like=network.weights[0])
        layers = run_layers(network, module.activation, x, module.regularizer.smooth(y))
        checks = gradcheck.Objective(network, module.activation, module.regularizer, x[:CHECKED], y[:CHECKED])
        apart = checked(gradcheck.frozen(checks))
        rows = [
            {"epoch": epoch, "layer": number}
            | layer_stats(layer, weight, module.regularizer.weight_decay, self.most)
            | {"log10_update": self.updates[number - 1] if self.updates else None, "gradient_check": share}
            for number, (layer, weight, share) in enumerate(zip(layers, network.weights, apart, strict=True), start=1)
        ]
        self.rows += rows
        write_rows(self.folder / LAYERS, [list(rows[0]), *(row.values() for row in self.rows)])
        # Lightning's step for epoch-end logs: the last step, or the last batch under manual optimization.
        step = max(module.logged_step - module.automatic_optimization, 0)
        for logger in trainer.loggers:
            logger.log_metrics(scalars(rows), step)
            if isinstance(logger, TensorBoardLogger):
                show(logger.experiment, step, layers, counts)
                if shape := trainer.datamodule.image_shape:  # type: ignore[attr-defined]
                    images = tiled(weights[0][:SHOWN].view(-1, *shape))
                    logger.experiment.add_image("layer_1/weights", images, step, dataformats="HW")
        self.looks.append(time.perf_counter() - began)


def checked(objective: gradcheck.Objective) -> list[float]:
    """Return every layer's largest relative error of the gradients by hand against autograd's."""
    ours, theirs = gradcheck.by_hand(objective), gradcheck.by_autograd(objective)
    shares = [gradcheck.relative_error(mine, other) for mine, other in zip(ours, theirs, strict=True)]
    return [max(pair) for pair in zip(shares[::2], shares[1::2], strict=False)]  # without that of the inputs


def scalars(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Flatten one epoch's rows to scalars for a logger ("layer_1/saturated", ...), dropping None."""
    return {
        f"layer_{row['layer']}/{name}": value
        for row in rows
        for name, value in row.items()
        if name not in ("epoch", "layer") and value is not None
    }


def show(board: Any, step: int, layers: Sequence[Layer], counts: Mapping[str, Tensor]) -> None:
    """Log histograms and the (C, C) confusion matrices of every set to TensorBoard's `SummaryWriter`."""
    for number, layer in enumerate(layers, start=1):
        board.add_histogram(f"layer_{number}/activation", layer.activation[:CHECKED], step)
        board.add_histogram(f"layer_{number}/delta", layer.gradient.delta[:CHECKED], step)
    for name, matrix in counts.items():
        board.add_image(f"confusion_by_epoch/{name}", pictured(matrix.cpu()), step)


def tiled(weights: Tensor) -> Tensor:
    """Tile weights as images (U, H, W) into one of bytes; grey is 0, white the largest magnitude."""
    images = weights.detach().float().cpu()[:, None]
    grey = (images / (2 * images.abs().max().clamp(min=1e-12)) + 0.5).clamp(0, 1)
    grid: Tensor = make_grid(grey, nrow=8, padding=1)
    return (255 * grid[0]).to(torch.uint8)


def pictured(counts: Tensor) -> Tensor:
    """Draw a confusion matrix with its counts as (3, H, W) bytes, with Pillow: matplotlib is 50 times slower."""
    side, classes = 30, len(counts)
    lights = 255 - 255 * (counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).sqrt()
    picture = Image.new("RGB", (side * classes, side * classes), "white")
    pen = ImageDraw.Draw(picture)
    cells = zip(lights.int().tolist(), counts.int().tolist(), strict=True)
    for row, (shades, numbers) in enumerate(cells):
        for column, (light, number) in enumerate(zip(shades, numbers, strict=True)):
            if number:
                left, top = side * column, side * row
                pen.rectangle((left, top, left + side - 2, top + side - 2), fill=(light, light, 170 + light // 3))
                colour = "white" if light < 128 else "black"
                pen.text((left + side / 2, top + side / 2), str(number), fill=colour, anchor="mm")
    channels: Tensor = pil_to_tensor(picture)
    return channels
