"""Build data, module and Trainer from a configuration, for every command and benchmark."""

import copy
import csv
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from filelock import FileLock
from lightning.pytorch import callbacks as kinds
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from handgrad.config import to_dict
from handgrad.errors import UserError, as_user_error
from handgrad.nn.mlp import MLP
from handgrad.resolvers import best_is
from handgrad.runs.folder import CHECKPOINTS, MLFLOW, write_text
from handgrad.training import callbacks
from handgrad.training.checkpoint_io import AtomicCheckpointIO
from handgrad.training.data import ClassificationData
from handgrad.training.matmul import set_matmul_precision
from handgrad.training.modules import Classifier
from handgrad.training.network import build, build_network, sizes_of

# Lightning's callbacks that cannot be used, and what to use instead; docs/trainer-options.md lists all of them.
REFUSED: dict[type[lightning.Callback], str] = {
    kinds.BackboneFinetuning: "freezes a module's `backbone`, which this network does not have",
    kinds.BatchSizeFinder: "changes the batch size after it is recorded: set or sweep data.batch_size",
    kinds.LearningRateFinder: "changes the rate after it is recorded: sweep optimizer.lr, or use hydra/sweeper=search",
    kinds.ModelPruning: "prunes the network while it is being saved, so that the scored one is another",
    kinds.StochasticWeightAveraging: "averages after the last checkpoint is saved, so that the average is in no file: "
    "use lightning.pytorch.callbacks.WeightAveraging or EMAWeightAveraging",
}
REFUSED_BY_HAND: dict[type[lightning.Callback], str] = {
    kinds.GradientAccumulationScheduler: "needs engine=autograd: by hand use trainer.accumulate_grad_batches",
    kinds.SpikeDetection: "needs engine=autograd, whose training_step returns the loss",
}
STEPPING = ("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")


class Assembly(NamedTuple):
    """Components of a training run."""

    trainer: lightning.Trainer
    module: Classifier
    data: ClassificationData
    history: callbacks.History


def assemble(
    cfg: DictConfig,
    folder: Path,
    show_progress: bool = True,
    terminal: bool = False,
    resumed_at: int = 0,
    sizes: Sequence[int] | None = None,
    read: bool = True,
) -> Assembly:
    """Seed the process and build data, module and Trainer with loggers and callbacks, for results in a folder.

    A progress bar is shown on a terminal, a line per epoch elsewhere. TensorBoard purges steps later than the logged
    one at which a run resumes. `sizes` are the units per layer of a trained network; None: from the data's inputs to
    its classes. UserError if the data are unusable, or a library rejects a value of the configuration.
    """
    prepare_process(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    data = data_of(cfg, read, sizes)
    sizes = sizes or sizes_of(cfg, data)
    lightning.seed_everything(cfg.seed, verbose=False)
    options = copy.deepcopy(cfg).trainer
    module = build_module(cfg, options, sizes, data.image_shape)
    with open_dict(options):
        bar = options.pop("enable_progress_bar", True) and show_progress and terminal
    history = callbacks.History(folder, lines=show_progress and not bar)
    trainer = build_trainer(cfg, options, history, bar, resumed_at)
    check_strategy(trainer.strategy, str(cfg.trainer.get("strategy")))
    check_callbacks(trainer.callbacks, module)  # type: ignore[attr-defined]
    set_matmul_precision(cfg.get("matmul", "default"), trainer.strategy.root_device)
    return Assembly(trainer, module, data, history)


def build_trainer(
    cfg: DictConfig, options: DictConfig, history: callbacks.History, bar: bool, resumed_at: int
) -> lightning.Trainer:
    """Build the Trainer with our loggers, callbacks and plugins beside the user's.

    `options` is the rest of `cfg.trainer`, `resumed_at` the logged step at which the run resumes.
    """
    folder = history.folder
    theirs = {key: built_alone(options.get(key)) for key in ("logger", "callbacks", "plugins")}
    with open_dict(options):
        for key in theirs:  # after they were built: Hydra 1.4.0rc3 cannot copy a node that its parent lost
            options.pop(key, None)
        root = options.pop("default_root_dir", folder)
    loggers = [*loggers_of(cfg, folder, resumed_at), *theirs["logger"]]
    watching = [callbacks.DivergenceGuard(), *([callbacks.EpochBar(history)] if bar else [])]
    watching += [*optional_callbacks(cfg, folder, history, bool(loggers)), *theirs["callbacks"], history]
    trainer: lightning.Trainer = build(
        options,
        enable_progress_bar=bar,
        logger=loggers,
        callbacks=[*watching, callbacks.LastCheckpoint(folder)],
        plugins=[AtomicCheckpointIO(), *theirs["plugins"]],
        default_root_dir=root,
        use_distributed_sampler=False,  # EpochBatches already shards
    )
    return trainer


def build_module(
    cfg: DictConfig, options: DictConfig, sizes: Sequence[int], image_shape: Sequence[int] | None
) -> Classifier:
    """Build the engine of a network with these sizes; UserError if it cannot be built, or needs autograd.

    With manual optimization, move the `STEPPING` options from the Trainer's options to it.
    """
    parts = {name: build(cfg[name]) for name in ("activation", "regularizer", "optimizer", "schedule")}
    network = build_network(cfg.network, sizes, image_shape)
    parts |= {"network": network, "classes": sizes[-1], "skip": cfg.get("skip", 0)}
    engine = build(cfg.engine)
    if not engine.func.automatic_optimization:
        if not isinstance(network, MLP):
            raise UserError(
                f"network._target_={cfg.network._target_}: hand-derived gradients exist only for MLP: engine=autograd"
            )
        with open_dict(options):  # Lightning rejects these options
            parts |= {key: options.pop(key) for key in STEPPING if key in options}
    module: Classifier = engine(**parts)
    module.save_hyperparameters(to_dict(cfg), logger=False)  # for checkpoints; loggers get them with the scores
    return module


def prepare_process(cfg: DictConfig) -> None:
    """Set process-wide state: thread count, flushing of denormals, filters for Lightning's warnings."""
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.*",  # Lightning 2.6 uses an API that torch 2.14 deprecates
        ".*does not have many workers.*",  # the images are in memory
        ".*exists and is not empty.*",  # a resumed run
        ".*smaller than the logging interval.*",  # small data: steps are counted over epochs
    ):
        warnings.filterwarnings("ignore", message, module="lightning")
    warnings.filterwarnings("ignore", ".*epoch parameter in", module="torch")  # SequentialLR of torch 2.6 passes it
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    # Denormals (below 1e-38), to which a dead unit's weights decay, are ten times slower on an Intel CPU.
    # Threads inherit the flag from the thread that starts them, so set it before the first matmul.
    torch.set_flush_denormal(True)


def optional_callbacks(cfg: DictConfig, folder: Path, history: callbacks.History, logged: bool) -> list[Any]:
    """Build the optional callbacks: learning-rate monitor, diagnostics, `conf/callbacks/`, signals under DDP."""
    built: list[Any] = [kinds.LearningRateMonitor("step")] if logged else []
    if cfg.get("diagnostics"):
        built.append(build(cfg.diagnostics, folder=folder, history=history))
    if cfg.trainer.devices != 1:
        built.append(callbacks.OwnSignals())
    return built + [built_callback(node, folder / CHECKPOINTS) for node in (cfg.get("callbacks") or {}).values()]


def built_callback(node: DictConfig, checkpoints: Path | None = None) -> Any:
    """Build a callback, with `mode` from the monitored metric and `dirpath` for its checkpoints."""
    given: dict[str, Any] = {}
    if node._target_.endswith(("ModelCheckpoint", "EarlyStopping")) and node.get("monitor") and "mode" not in node:
        given["mode"] = best_is(node.monitor)
    if checkpoints and node._target_.endswith("ModelCheckpoint"):
        given["dirpath"] = checkpoints
    return build(node, **given)


def data_of(cfg: DictConfig, read: bool = True, sizes: Sequence[int] | None = None) -> ClassificationData:
    """Build the data module of a configuration and, on request, read its examples.

    UserError if they are unusable, or do not fit a trained network's units per layer, `sizes`.
    """
    data: ClassificationData = build(cfg.data, seed=cfg.seed)
    check_fit(sizes, data)  # MNIST's sizes are known before
    if read or not (sizes or hasattr(data, "inputs")):
        data.prepare_data()
        data.setup()
        check_fit(sizes, data)
    return data


def assemble_for_scoring(
    cfg: DictConfig, weights: Mapping[str, Tensor], sizes: Sequence[int] | None, images: bool = True
) -> Assembly:
    """Build a run with trained weights for scoring: on one device, without loggers and optional callbacks.

    `weights` are the module's state_dict, `sizes` the units per layer of an MLP, None for a network of its own. The
    data are read for `images`. UserError if they are unusable, or the weights are those of another network.
    """
    cfg = copy.deepcopy(cfg)
    cfg.trainer.devices = 1
    cfg.logger = cfg.callbacks = cfg.diagnostics = None
    assembly = assemble(cfg, Path.cwd(), show_progress=False, sizes=sizes, read=images)
    module = assembly.module
    assembly.trainer.precision_plugin.convert_module(module)
    try:
        module.load_state_dict(weights)
    except (RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the weights are not those of {cfg.network._target_}, or it was changed: {reason}") from error
    return assembly


def check_fit(sizes: Sequence[int] | None, data: ClassificationData) -> None:
    """Check that a trained network of these sizes fits the data, if their inputs and classes are known."""
    known = (data.inputs, len(data.class_names)) if hasattr(data, "inputs") else None
    if sizes and known and known != (sizes[0], sizes[-1]):
        raise UserError(
            f"the network has {sizes[0]} inputs and {sizes[-1]} classes, its data {known[0]} and {known[1]}: "
            "name the data that it was trained on, data=... and data.root=... or data.path=..."
        )


def check_strategy(strategy: Strategy, name: str) -> None:
    """Check that the strategy replicates the whole network and leaves the trained one in this process.

    Others shard it, or train it only in child processes (spawn, fork, notebook).
    """
    one_device = isinstance(strategy, SingleDeviceStrategy)
    elsewhere = any(method in name for method in ("spawn", "fork", "notebook"))
    if not one_device and (type(strategy) is not DDPStrategy or elsewhere):
        raise UserError(f"trainer.strategy={name} shards or moves the trained network: use ddp")


def check_callbacks(used: Sequence[lightning.Callback], module: Classifier) -> None:
    """Check that no callback trains, scores or saves another network than the checkpoint's."""
    for callback in used:
        for kind, reason in (REFUSED if module.automatic_optimization else REFUSED | REFUSED_BY_HAND).items():
            if isinstance(callback, kind):
                raise UserError(f"callbacks: {type(callback).__name__} {reason}")


def loggers_of(cfg: DictConfig, folder: Path, resumed_at: int) -> list[Any]:
    """Build the loggers of `conf/logger/`; they write to the run's folder, MLflow to its tracking store."""
    loggers: list[Any] = []
    for node in (cfg.get("logger") or {}).values():
        if node._target_.endswith("MLFlowLogger"):
            loggers.append(in_store(node, str(cfg.name), folder / MLFLOW))
        elif node._target_.endswith("TensorBoardLogger"):  # steps after the checkpoint are logged again
            loggers.append(build(node, save_dir=folder, purge_step=resumed_at))
        else:
            loggers.append(build(node, save_dir=folder))
        if isinstance(loggers[-1], CSVLogger):
            keep_rows(loggers[-1], resumed_at)
    return loggers


def keep_rows(logger: CSVLogger, resumed_at: int) -> None:
    """Log the rows before a resumed step again: Lightning's CSVLogger deletes an existing file."""
    path = Path(logger.log_dir, "metrics.csv")
    if resumed_at and path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            if (step := int(row.pop("step"))) < resumed_at:
                logger.log_metrics({name: value for name, value in row.items() if value}, step)  # type: ignore[misc]


def in_store(node: DictConfig, name: str, known: Path) -> MLFlowLogger:
    """Build MLflow's logger: create its store under a lock; resume the MLflow run whose ID is in the file `known`."""
    uri = str(node.get("tracking_uri"))
    store = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else known
    store.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{store}.lock"), as_user_error("logger.mlflow", Exception):
        logger: MLFlowLogger = build(node, run_name=name, run_id=known.read_text() if known.exists() else None)
        if logger.run_id:  # None except on rank 0
            write_text(known, logger.run_id)
    return logger


def built_alone(node: Any) -> list[Any]:
    """Build the user's own loggers, callbacks or plugins, given as a list or as a single node."""
    if OmegaConf.is_list(node):
        return [built_callback(each) for each in node]
    return [built_callback(node)] if OmegaConf.is_dict(node) else []
