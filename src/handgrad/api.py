"""The Python interface to runs: train, load, check; for notebooks. docs/api.md explains it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from torch import Tensor

from handgrad.errors import CONF, UserError, describe_error
from handgrad.hydra_version import BASE
from handgrad.inspection.exercise import Verdict, all_cases, judge_function
from handgrad.inspection.reopen import open_network, record_of
from handgrad.job import find_or_train
from handgrad.nn import gradcheck
from handgrad.nn.activations import Activation, ReLU, is_activation
from handgrad.nn.mlp import MLP
from handgrad.nn.regularizers import Regularizer
from handgrad.process import SIGNALLED, exit_on_signal
from handgrad.runs.folder import HISTORY, LAYERS
from handgrad.training.mnist import MNISTDataModule
from handgrad.training.modules import Classifier, mlp_of


@dataclass(frozen=True)
class Run:
    """A finished run, from `train` or `Run(folder)`.

    folder: the run's folder; docs/run-folder.md lists its files.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    @property
    def record(self) -> dict[str, Any]:
        """Content of `metrics.json`: choices, configuration, metrics, seconds."""
        return record_of(self.folder)

    @property
    def metrics(self) -> dict[str, float]:
        """Losses in nats per example, accuracies in [0, 1], of every scored set."""
        return dict(self.record["metrics"])

    @property
    def history(self) -> pd.DataFrame:
        """A row per epoch: losses, accuracies, learning rate, seconds."""
        return pd.read_csv(self.file(HISTORY))

    @property
    def layers(self) -> pd.DataFrame:
        """A row per epoch and layer, of a run with diagnostics=layers; else UserError."""
        path = self.file(LAYERS)
        if not path.exists():
            raise UserError(f'{path} is missing: train with "diagnostics=layers"')
        return pd.read_csv(path)

    def file(self, name: str) -> Path:
        """Return the path of one of the run's files; UserError if there is no run in the folder."""
        record_of(self.folder)
        return self.folder / name

    @property
    def network(self) -> MLP:
        """The trained network."""
        return mlp_of(load(self), "Run.network")


def train(*overrides: str, show: bool = True) -> Run:
    """Train one network, score it, and write its folder, as `python src/train.py` with these overrides does.

    Args:
        overrides: as typed on the command line, e.g. "activation=tanh", "trainer.max_epochs=1".
        show: show a progress bar and the result.

    Returns:
        the run; the same run again, without training, if "hydra.run.dir=..." names a finished one.

    Raises:
        UserError: an override is invalid, the run diverged, or it could not be finished.
        KeyboardInterrupt: it was interrupted; says how to resume.
    """
    if torch.get_default_dtype() != torch.float32:
        raise UserError("torch.set_default_dtype changes a run's numbers: set float32, and trainer.precision=64-true")
    if strange := [word for word in overrides if not isinstance(word, str) or word.startswith("-")]:
        raise UserError(f"train takes overrides such as 'activation=tanh', not {strange[0]!r}; sweeps: src/train.py -m")
    threads = torch.get_num_threads()
    with hydra_of("train", *overrides) as cfg, isolate_rng():
        HydraConfig.instance().set_config(cfg)
        own = Path(cfg.hydra.run.dir).absolute()
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.runtime.output_dir = cfg.hydra.run.dir = str(own)
        try:
            with stop_button():
                composed = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
                folder, record = find_or_train(composed, own, quiet=not show)
        except KeyboardInterrupt:
            words = [word for word in overrides if not word.startswith("hydra.run.dir=")]
            again = ", ".join(map(repr, [*words, f"hydra.run.dir={cfg.hydra.run.dir}"]))
            raise KeyboardInterrupt(f"interrupted: train({again}) resumes after the last complete epoch") from None
        finally:
            torch.set_num_threads(threads)
    if not record:
        raise UserError("trainer.fast_dev_run leaves no run: leave it out")
    return Run(folder)


def load(source: Run | Path | str, activation: Activation | str | None = None, *, trust: bool = False) -> Classifier:
    """Open a trained network.

    Args:
        source: a run, its folder, or a file: checkpoint, state_dict or the notebook's dictionary.
        activation: the activation of a file that does not record it, e.g. ReLU() or "relu".
        trust: instantiate foreign classes that the source names; they may run any code.

    Returns:
        the engine's LightningModule, in evaluation mode: called with x (B, I), it returns logits (B, C);
        `.network` holds the weights, `.activation` phi.

    Raises:
        UserError: there is no such run or file, or its weights cannot be used; says why.
    """
    path = Path(source.folder if isinstance(source, Run) else source)
    chosen: dict[str, Any] = {"run" if path.is_dir() else "checkpoint": str(path), "trust": trust}
    overrides = [f"activation={activation}"] if isinstance(activation, str) else []
    with hydra_of("trained", *overrides) as cfg, isolate_rng():
        if overrides:
            chosen["activation"] = dict(cfg.activation)
        elif activation is not None:
            kind = type(activation)
            chosen["activation"] = {"_target_": f"{kind.__module__}.{kind.__qualname__}", **vars(activation)}
        module = open_network(chosen, images=False).assembly.module
    module.network.requires_grad_(False)
    return module.eval()


def check(
    network: MLP,
    phi: Activation,
    x: Tensor,
    y: Tensor,
    *,
    strength: float = 0.0,
    fd_entries: int = 20,
    inject_bug: str | None = None,
) -> pd.DataFrame:
    """Compare the gradients by hand with autograd and finite differences, as `python src/check.py` does.

    Args:
        network: network of any sizes; not modified.
        phi: activation.
        x: (B, I) inputs.
        y: (B, C) targets; each row sums to 1.
        strength: lambda of the L2 penalty.
        fd_entries: entries of each parameter to check by finite differences: those with the largest gradients.
        inject_bug: equation to break on purpose: BP1, BP2, BP3, BP4, phi or L2.

    Returns:
        a row per parameter: layer, parameter, shape, relative errors per reference and precision, verdict.

    Raises:
        UserError: there is no such bug, or network or phi is of another kind.
        ValueError, TypeError: the shapes do not fit, see `forward`.
    """
    if not isinstance(network, MLP):
        raise UserError(f"the network must be a handgrad.MLP, not {type(network).__name__}")
    check_activation(phi)
    bugs = [bug for bug in gradcheck.BROKEN if bug not in gradcheck.NEEDS]  # L2 is the only regularizer here
    if inject_bug is not None and inject_bug not in bugs:
        raise UserError(f"inject_bug must be one of {', '.join(bugs)}, not {inject_bug!r}")
    rows = gradcheck.check(network, phi, Regularizer(strength), x, y, fd_entries, inject_bug)
    return pd.DataFrame(gradcheck.report(rows, inject_bug)["rows"])


def judge(function: Callable[..., Any], phi: Activation | None = None) -> Verdict:
    """Judge a function of the exercise, as `python src/check.py mine=my_backprop.py` does; MNIST is read from data/.

    Args:
        function: phi, derivative, output_delta, hidden_delta, bias_gradient, weight_gradient or update.
        phi: the activation that it belongs to; None: relu.

    Returns:
        the verdict, which a notebook shows: "right", or the first wrong number and the mistake that it looks like.

    Raises:
        UserError: the function has another name, or there is no MNIST.
    """
    phi = phi or ReLU()
    check_activation(phi)
    data = MNISTDataModule()
    data.prepare_data()
    data.setup()
    return judge_function(function, phi, all_cases(phi, MLP(), *data.sets["train"].first(64)))


def check_activation(phi: Any) -> None:
    """Refuse an object that is not an activation with a derivative and a PyTorch reference."""
    if not is_activation(phi):
        raise UserError(f"phi must be an activation, e.g. handgrad.activations.ReLU(), not {phi!r}")
    if not isinstance(getattr(phi, "reference", lambda: None)(), torch.nn.Module):
        raise UserError(f"{type(phi).__name__} has no reference(), which must return PyTorch's module for it")


HYDRA = threading.RLock()  # its state is global


@contextmanager
def hydra_of(name: str, *overrides: str) -> Iterator[DictConfig]:
    """Compose a command's configuration, and keep Hydra initialised to compose further ones."""
    if not CONF.is_dir():
        raise UserError(f"{CONF} is missing: install a wheel, or from a clone by pip install --editable .")
    with HYDRA:
        users_own = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
        GlobalHydra.instance().clear()
        try:
            with sentences(), hydra.initialize_config_dir(str(CONF), **BASE):
                yield hydra.compose(name, list(overrides), return_hydra_config=True)
        finally:
            GlobalHydra.instance().hydra, HydraConfig.instance().cfg = users_own


@contextmanager
def sentences() -> Iterator[None]:
    """Raise a UserError of one sentence in place of the errors that `describe_error` describes."""
    try:
        yield
    except Exception as error:
        sentence = describe_error(error)
        if sentence is None or isinstance(error, UserError):
            raise
        if "--multirun" in sentence:
            sentence = "train takes one value per key: call it once for each, or python src/train.py -m"
        raise UserError(" ".join(sentence.split())) from None


@contextmanager
def stop_button() -> Iterator[None]:
    """Turn SIGINT into a KeyboardInterrupt after the run has been closed; Lightning would ignore further ones."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, exit_on_signal)
    try:
        yield
    except SystemExit as stop:
        if stop.code == SIGNALLED + signal.SIGINT:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)
