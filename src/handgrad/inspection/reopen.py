"""Open a trained network from a run's folder or a file of weights, for every command that looks inside."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from omegaconf import OmegaConf

from handgrad.config import to_dict
from handgrad.errors import UserError
from handgrad.inspection.allowlist import allowed_parts
from handgrad.inspection.weights import Layer, layers_of, take_normalized
from handgrad.runs.checkpoint import read_checkpoint
from handgrad.runs.folder import CHECKPOINTS, LAST, METRICS
from handgrad.runs.record import newest_run, read_record
from handgrad.text import equal_typed, format_value
from handgrad.training.build import Assembly, assemble_for_scoring


class TrainedNetwork(NamedTuple):
    """A trained network, and where it comes from.

    assembly: Trainer, module with its weights, and data.
    source: the run's folder, or the file.
    record: of the run, None for a file.
    """

    assembly: Assembly
    source: Path
    record: dict[str, Any] | None


def open_network(wanted: Mapping[str, Any], images: bool = True) -> TrainedNetwork:
    """Open the network that a command was asked for.

    Args:
        wanted: the command's configuration: `conf/trained.yaml` and what is chosen beside it.
        images: read the data set too.

    Raises:
        UserError: there is no such run, or its weights cannot be used; says why.
    """
    record, source = None, Path(wanted["checkpoint"] or wanted["run"] or "outputs").absolute()
    if wanted["checkpoint"] is None:
        source = source if wanted["run"] else newest_run(source)
        record, path = record_of(source), source / CHECKPOINTS / LAST
    elif wanted["run"] is None:
        path = source
    else:
        raise UserError("run=... and checkpoint=... are two networks: name one of them")
    try:
        content, saved = read_checkpoint(path)
    except FileNotFoundError:
        what = f"the run was {record['status']} before an epoch ended" if record else "there is no such file"
        raise UserError(f"{path} is missing: {what}") from None
    layers = layers_of(content, path)
    # What is built comes from conf/; a recorded configuration adds to it what the allow list lets through.
    config = to_dict(hydra.compose("train", ["name=file"]))
    if record:
        recorded = record["config"] | ({"threads": record["threads"]} if record.get("threads") else {})
        config |= as_recorded(config, recorded, wanted, source / METRICS, images)
    elif saved is not None:
        config |= as_recorded(config, saved, wanted, path, images)
    else:
        layers = layers if wanted["inputs"] is None else take_normalized(layers, wanted["inputs"])
        config |= for_weights(config, layers, wanted.get("activation"), path)
    hidden = [len(bias) for _, bias in layers[:-1]]
    if (known := config["network"].get("hidden_sizes")) != hidden:
        raise UserError(f"{path} has hidden layers of {hidden} units, its run {format_value(known)}")
    config["data"] |= chosen_data(wanted)
    assembly = assemble_for_scoring(OmegaConf.create(config), layers, images)
    return TrainedNetwork(assembly, source, record)


def for_weights(
    config: Mapping[str, Any], layers: Sequence[Layer], activation: dict[str, Any] | None, path: Path
) -> dict[str, Any]:
    """What a file of weights without a configuration changes in the composed one.

    Raises:
        UserError: no activation was chosen.
    """
    if activation is None:
        raise UserError(f"{path} does not say which function follows its layers: add activation=relu, or another")
    precision = 64 if layers[0][0].dtype == torch.float64 else 32
    return {
        "activation": activation,
        "network": config["network"] | {"hidden_sizes": [len(bias) for _, bias in layers[:-1]]},
        "trainer": config["trainer"] | {"precision": f"{precision}-true"},
    }


def as_recorded(
    config: Mapping[str, Any], recorded: Mapping[str, Any], wanted: Mapping[str, Any], where: Path, images: bool
) -> dict[str, Any]:
    """What a recorded configuration changes in the composed one.

    Args:
        config: composed.
        recorded: by a run or in a checkpoint.
        wanted: the command's configuration.
        where: the file that it stands in.
        images: the data set will be read.

    Raises:
        UserError: it has what the allow list does not let through, another activation than the one that was typed, or
            images that are not there.
    """
    parts = allowed_parts(recorded, where, wanted["trust"])
    typed = wanted.get("activation")
    if typed is not None and not equal_typed(typed, parts["activation"]):
        raise UserError(
            f"activation={format_value(typed['_target_'])} is not the one that {where} records, "
            f"{format_value(parts['activation']['_target_'])}: leave it out"
        )
    if wanted["inputs"] is not None:
        raise UserError(f"inputs=...: the network of {where} takes pixels from 0 to 1: leave it out")
    root = parts["data"].get("root")
    # A file must not choose where data are downloaded to.
    if images and "root" not in chosen_data(wanted) and not Path(str(root)).is_dir():
        raise UserError(
            f"data.root={root}, recorded in {where}, is no folder here: add data.root=<where the images are>"
        )
    return parts | {"trainer": parts["trainer"] | {"profiler": config["trainer"]["profiler"]}}


def chosen_data(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed about the images."""
    return {key: value for key, value in wanted["data"].items() if value is not None}


def record_of(folder: Path) -> dict[str, Any]:
    """The record of a run that can be opened.

    Raises:
        UserError: the folder holds no run, or several.
    """
    record = read_record(folder)
    if record is None:
        runs = sorted(path.parent.name for path in folder.glob(f"*/{METRICS}"))
        where = f"it holds {len(runs)}: name one, e.g. run={folder / runs[0]}" if runs else "it has no metrics.json"
        raise UserError(f"{folder} is not a run's folder: {where}")
    return record
