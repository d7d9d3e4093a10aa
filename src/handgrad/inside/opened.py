"""From a run's folder, or a file of weights, to the trained network: how every command that looks inside begins."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from omegaconf import OmegaConf

from handgrad import checkpoint, results
from handgrad.assembly import Assembly, assemble_again
from handgrad.config import Training, UserError, check, resolved
from handgrad.inside.weights import layers_of
from handgrad.settings import same, shown


class Opened(NamedTuple):
    """A trained network, and where it comes from.

    assembly: Trainer, module with its weights, and data.
    source: the run's folder, or the file.
    record: of the run, None for a file.
    """

    assembly: Assembly
    source: Path
    record: dict[str, Any] | None


def reopened(wanted: Mapping[str, Any]) -> Opened:
    """Open the network that a command was asked for.

    Args:
        wanted: the command's configuration: `conf/trained.yaml` and what is chosen beside it.

    Raises:
        UserError: there is no such run, or its weights cannot be used; says why.
    """
    record, source = None, Path(wanted["checkpoint"] or wanted["run"] or "outputs").absolute()
    if wanted["checkpoint"] is None:
        source = source if wanted["run"] else results.newest(source)
        record, path = record_of(source), source / results.CHECKPOINTS / results.LAST
    elif wanted["run"] is None:
        path = source
    else:
        raise UserError("run=... and checkpoint=... are two networks: name one of them")
    try:
        content, sealed = checkpoint.read(path)
    except FileNotFoundError:
        what = f"the run was {record['status']} before an epoch ended" if record else "there is no such file"
        raise UserError(f"{path} is missing: {what}") from None
    layers = layers_of(content, path)
    hidden = [len(bias) for _, bias in layers[:-1]]
    activation, config = wanted.get("activation"), record["config"] if record else sealed
    if config is None:
        if activation is None:
            raise UserError(f"{path} does not say which function follows its layers: add activation=relu, or another")
        double = layers[0][0].dtype == torch.float64
        composed = hydra.compose("train", ["name=file", f"trainer.precision={64 if double else 32}-true"])
        config = resolved(composed) | {"activation": activation}
        config["network"] |= {"hidden_sizes": hidden}
    check(config, Training)
    if activation is not None and not same(activation, config["activation"]):
        raise UserError(
            f"activation={shown(activation['_target_'])} is not the one that {source} was trained with, "
            f"{shown(config['activation']['_target_'])}: leave it out"
        )
    if config["network"]["hidden_sizes"] != hidden:
        raise UserError(f"{path} has hidden layers of {hidden} units, its run {config['network']['hidden_sizes']}")
    chosen = {key: value for key, value in wanted["data"].items() if value is not None}
    config |= {"data": config["data"] | chosen, "threads": (record or {}).get("threads") or config["threads"]}
    assembly = assemble_again(OmegaConf.create(config), layers)
    return Opened(assembly, source, record)


def record_of(folder: Path) -> dict[str, Any]:
    """The record of a run that can be opened.

    Raises:
        UserError: the folder holds no run, or several.
    """
    record = results.read(folder)
    if record is None:
        runs = sorted(path.parent.name for path in folder.glob(f"*/{results.METRICS}"))
        where = f"it holds {len(runs)}: name one, e.g. run={folder / runs[0]}" if runs else "it has no metrics.json"
        raise UserError(f"{folder} is not a run's folder: {where}")
    return record
