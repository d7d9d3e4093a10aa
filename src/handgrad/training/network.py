"""The network of a run: an MLP, for either engine, or a class of your own, for autograd."""

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

import hydra
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from handgrad.errors import UserError
from handgrad.hydra_version import TRUSTED_NODE
from handgrad.nn.mlp import MLP
from handgrad.training.data import ClassificationData

OF_MLP = ("hidden_sizes", "init")  # keys of conf/network/mlp.yaml, which stay when only `_target_` is replaced


def sizes_of(cfg: DictConfig, data: ClassificationData) -> list[int]:
    """Return the units per layer, from the data's inputs to their classes."""
    return [data.inputs, *cfg.network.get("hidden_sizes", ()), len(data.class_names)]


def build_network(node: DictConfig, sizes: Sequence[int], image_shape: Sequence[int] | None = None) -> nn.Module:
    """Build the network of a `conf/network/` node; UserError if it does not name a class that maps x to logits.

    A class of your own is an `nn.Module` that maps x (B, I) to logits (B, C). It gets the node's arguments, and as far
    as its signature names them `inputs` I, `classes` C, `image_shape`, and MLP's `hidden_sizes` and `init`. Of `sizes`,
    the units per layer of an MLP, only the first and the last count, I and C.
    """
    kind = find_class(node._target_)
    if isinstance(kind, type) and issubclass(kind, MLP):
        mlp: MLP = build_with(node, [str(key) for key in node if key != "hidden_sizes"], sizes=list(sizes))
        return mlp
    taken = inspect.signature(kind).parameters
    arguments = [str(key) for key in node if key in taken or key not in OF_MLP]
    known = {"inputs": sizes[0], "classes": sizes[-1], "image_shape": image_shape}
    given = {key: value for key, value in known.items() if key in taken}
    try:
        network = build_with(node, arguments, **given)
    except UserError as error:
        if image_shape is None and "image_shape" in taken:
            raise UserError(f"{error} (image_shape is null: the rows of these data are not pictures)") from error
        raise
    check_network(network, node._target_, sizes[0], sizes[-1])
    own: nn.Module = network
    return own


def build_with(node: DictConfig, keys: list[str], **objects: Any) -> Any:
    """Build a network with some keys of its node, and with `objects`."""
    return build(OmegaConf.create({"network": OmegaConf.masked_copy(node, keys)}).network, **objects)


def find_class(target: str) -> Any:
    """Import the class of a network by its full name; UserError if there is none."""
    if not isinstance(target, str):
        raise UserError("network._target_ must be a class by its full name, e.g. my_cnn.CNN")
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs the file
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"network._target_={target} cannot be imported ({reason}): for the class CNN in my_cnn.py, start the "
            "command in that file's folder with network._target_=my_cnn.CNN"
        ) from error


def check_network(network: Any, target: str, inputs: int, classes: int) -> None:
    """Check on two black examples that a network is an `nn.Module` that maps x (B, I) to logits (B, C)."""
    if not isinstance(network, nn.Module):
        raise UserError(f"network._target_={target} is not a torch.nn.Module but {type(network).__name__}")
    x = torch.zeros(2, inputs)
    try:
        with torch.no_grad():
            logits = network.eval()(x)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"network._target_={target} fails on x {tuple(x.shape)}: {type(error).__name__}: {reason}"
        ) from error
    finally:
        network.train()
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (2, classes):
        raise UserError(
            f"network._target_={target} must map x {tuple(x.shape)} to logits {(2, classes)}, not to {shape}"
        )


def build(node: DictConfig, **objects: Any) -> Any:
    """Instantiate a config group; `objects` are arguments that YAML cannot express.

    UserError if the target rejects the group's values; names the group and repeats the reason.
    """
    try:
        return hydra.utils.instantiate(node, _convert_="all", **TRUSTED_NODE, **objects)
    except Exception as error:  # Hydra 1.3 wraps what the target raises, 1.4 does not
        said = (error.__cause__ or error) if isinstance(error, InstantiationException) else error
        raise UserError(f"{node._get_full_key(None)}: {said}") from error
