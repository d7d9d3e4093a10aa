"""Open a trained network from a run's folder or a weights file, for every command that uses one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from omegaconf import OmegaConf
from torch import Tensor

from handgrad.config import to_dict
from handgrad.errors import UserError
from handgrad.identity import in_todays_names
from handgrad.inspection.allowlist import ALLOWED, allowed_parts
from handgrad.inspection.weights import Layer, layers_of, take_normalized
from handgrad.process import import_from_here
from handgrad.runs.checkpoint import read_checkpoint
from handgrad.runs.folder import CHECKPOINTS, LAST, METRICS
from handgrad.runs.record import newest_run, read_record
from handgrad.text import equal_typed, format_value
from handgrad.training.build import Assembly, assemble_for_scoring

UNSAID: dict[str, Any] = dict.fromkeys(("run", "checkpoint", "activation", "inputs")) | {"data": {}, "trust": False}


class TrainedNetwork(NamedTuple):
    """Trained network and its origin.

    assembly: Trainer, module with its weights, and data.
    source: the run's folder, or the weights file.
    record: the run's record, None for a file.
    """

    assembly: Assembly
    source: Path
    record: dict[str, Any] | None


def open_network(wanted: Mapping[str, Any], images: bool = True) -> TrainedNetwork:
    """Open the network, and with `images` the data set, that a command's configuration or a part of it names.

    Raises:
        UserError: there is no such run or file, or its weights cannot be used; says why.
    """
    wanted = UNSAID | dict(wanted)
    record, source = find_source(wanted)
    path = source / CHECKPOINTS / LAST if record else source
    try:
        content, saved = read_checkpoint(path)
    except FileNotFoundError:
        what = f"the run was {record['status']} before an epoch ended" if record else "there is no such file"
        raise UserError(f"{path} is missing: {what}") from None
    if record:
        saved = record["config"] | ({"threads": record["threads"]} if record.get("threads") else {})
    if wanted["trust"]:
        import_from_here()
    own = saved is not None and has_own_network(saved)
    layers = [] if own else layers_of(content, path)
    if saved is None and wanted["inputs"] is not None:
        layers = take_normalized(layers, wanted["inputs"])
    # The configuration is conf/'s; a recorded one overrides only the parts that the allow list accepts.
    config = to_dict(hydra.compose("train", ["name=file"]))
    if saved is None:
        config |= for_weights(config, layers, wanted.get("activation"), path)
    else:
        config |= as_recorded(config, saved, wanted, source / METRICS if record else path, images)
    hidden = [len(bias) for _, bias in layers[:-1]]
    if (known := config["network"].get("hidden_sizes")) != hidden and not own:
        raise UserError(f"{path} has hidden layers of {hidden} units, its run {format_value(known)}")
    chosen = chosen_data(wanted)
    same = chosen.get("_target_") in (None, config["data"]["_target_"])
    config["data"] = config["data"] | chosen if same else chosen
    sizes = None if own else [layers[0][0].shape[1], *(len(bias) for _, bias in layers)]
    state = dict(content)["state_dict"] if own else as_state(layers)
    return TrainedNetwork(assemble_for_scoring(OmegaConf.create(config), state, sizes, images), source, record)


def find_source(wanted: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Path]:
    """Find the run's record and folder, or the weights file, that a command's configuration names."""
    source = Path(wanted["checkpoint"] or wanted["run"] or "outputs").absolute()
    if wanted["checkpoint"] is None:
        source = source if wanted["run"] else newest_run(source)
        return record_of(source), source
    if wanted["run"] is None:
        return None, source
    raise UserError("run=... and checkpoint=... are two networks: name one of them")


def has_own_network(config: Mapping[str, Any]) -> bool:
    """Tell whether a recorded configuration has a network of another class than the allow list's."""
    network = in_todays_names(config).get("network")
    target = network.get("_target_") if isinstance(network, Mapping) else None
    return isinstance(target, str) and target not in ALLOWED["network"]


def as_state(layers: Sequence[Layer]) -> dict[str, Tensor]:
    """Return the state_dict of a module whose MLP has these layers."""
    return {
        f"network.layers.{number}.{name}": tensor
        for number, pair in enumerate(layers)
        for name, tensor in zip(("weight", "bias"), pair, strict=True)
    }


def for_weights(
    config: Mapping[str, Any], layers: Sequence[Layer], activation: dict[str, Any] | None, path: Path
) -> dict[str, Any]:
    """Return the changes to the composed configuration for a weights file without one."""
    if activation is None:
        raise UserError(f"{path} does not record its activation function: add activation=relu, or another")
    precision = 64 if layers[0][0].dtype == torch.float64 else 32
    return {
        "activation": activation,
        "network": config["network"] | {"hidden_sizes": [len(bias) for _, bias in layers[:-1]]},
        "trainer": config["trainer"] | {"precision": f"{precision}-true"},
    }


def as_recorded(
    config: Mapping[str, Any], recorded: Mapping[str, Any], wanted: Mapping[str, Any], where: Path, images: bool
) -> dict[str, Any]:
    """Return the changes to the composed configuration by a recorded one, from the file `where`.

    Raises:
        UserError: the allow list rejects a part, the activation differs from the one that was typed, or the folder of
            images does not exist although they are needed.
    """
    parts = allowed_parts(recorded, where, wanted["trust"])
    typed = wanted.get("activation")
    if typed is not None and not equal_typed(typed, parts["activation"]):
        raise UserError(
            f"activation={format_value(typed['_target_'])} is not the one that {where} records, "
            f"{format_value(parts['activation']['_target_'])}: leave it out"
        )
    if wanted.get("inputs") is not None:
        raise UserError(f"inputs=...: the network of {where} takes pixels from 0 to 1: leave it out")
    root = parts["data"].get("root")
    # A file must not choose where data are downloaded to.
    local = "path" in parts["data"] or "root" in chosen_data(wanted) or root is None or Path(str(root)).is_dir()
    if images and not local:
        raise UserError(
            f"data.root={root}, recorded in {where}, is not a folder here: add data.root=<folder of the images>"
        )
    return parts | {"trainer": parts["trainer"] | {"profiler": config["trainer"]["profiler"]}}


def chosen_data(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data options that were typed; the hash of a run's file stays the recorded one."""
    return {key: value for key, value in wanted["data"].items() if value is not None and key != "sha256"}


def record_of(folder: Path) -> dict[str, Any]:
    """Read the record of a run's folder.

    Raises:
        UserError: the folder holds no run, or several.
    """
    record = read_record(folder)
    if record is None:
        runs = sorted(path.parent.name for path in folder.glob(f"*/{METRICS}"))
        where = f"it holds {len(runs)}: name one, e.g. run={folder / runs[0]}" if runs else "it has no metrics.json"
        raise UserError(f"{folder} is not a run's folder: {where}")
    return record
