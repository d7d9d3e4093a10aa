"""Export of a network, verified by reading the file back."""

import copy
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from handgrad.errors import UserError, as_user_error
from handgrad.inspection.weights import Layer, for_notebook, layers_of
from handgrad.nn.activations import Activation
from handgrad.nn.mlp import MLP
from handgrad.runs.checkpoint import read_checkpoint
from handgrad.runs.folder import replacing
from handgrad.training.build import Assembly
from handgrad.training.modules import mlp_of

FILES = {"state_dict": "state_dict.pt", "notebook": "notebook.pt", "onnx": "network.onnx"}
IMAGES = 1000  # random ones, because exporting needs no data set
TOLERANCE = 1e-5  # relative to the largest logit: other libraries sum in another order


def write(assembly: Assembly, kind: str, path: Path) -> float:
    """Export a network, read it back, and compare it with the module itself on random images.

    Returns:
        the largest difference of a logit, relative to the largest logit.

    Raises:
        UserError: ONNX is not installed, or the file does not reproduce the network.
    """
    module = assembly.module.cpu().float()
    network: nn.Module = module.network.eval()
    mlp = mlp_of(module, f"format={kind}") if kind == "notebook" or isinstance(network, MLP) else None
    if mlp is not None:
        network = sequential(list(zip(mlp.weights, mlp.biases, strict=True)), module.activation)
    inputs = mlp.weights[0].shape[1] if mlp is not None else assembly.data.inputs
    x = torch.rand(IMAGES, inputs, generator=torch.Generator().manual_seed(0))
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), replacing(path) as temporary:
        expected = module(x)
        if kind == "onnx":
            with as_user_error("format=onnx", Exception):
                found = through_onnx(network, x, temporary)
        else:
            torch.save(for_notebook(mlp) if mlp is not None and kind == "notebook" else network.state_dict(), temporary)
            content, _ = read_checkpoint(temporary)
            if kind == "notebook":
                network = sequential(layers_of(content, path), module.activation)
            else:
                network = copy.deepcopy(network)
                network.load_state_dict(content)
            found = network(x)
        difference = float((found - expected).abs().max() / expected.abs().max())
        if not found.argmax(dim=1).equal(expected.argmax(dim=1)) or difference > TOLERANCE:
            raise UserError(f"{path} was not written: read back, its logits are off by {difference:.1e} of the largest")
    return difference


def sequential(layers: list[Layer], activation: Activation) -> nn.Sequential:
    """Build the network as `nn.Sequential`: linear layers with the activation between them."""
    parts: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        linear.weight.data, linear.bias.data = weight.detach(), bias.detach()
        parts += [linear, activation.reference()]
    return nn.Sequential(*parts[:-1])


def through_onnx(network: nn.Module, x: Tensor, path: Path) -> Tensor:
    """Export a network to ONNX, x (B, I) to logits (B, C) for any B, and run it with onnxruntime."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError as error:
        raise UserError(f"format=onnx needs the extra export ({error}): pip install 'handgrad[export]'") from error
    for talker in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(talker).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (x[:2],),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("images")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(path)
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"images": x.numpy()})
    return torch.from_numpy(logits)
