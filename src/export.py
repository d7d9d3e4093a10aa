"""Export a trained network as a state_dict, the notebook's dictionary or ONNX, and verify the file."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from handgrad.config import ExportConfig, check, to_dict
from handgrad.console import say
from handgrad.errors import output_errors
from handgrad.hydra_version import BASE
from handgrad.process import run


@hydra.main(**BASE, config_path="../conf", config_name="export")
def main(cfg: DictConfig) -> None:
    """Open a network, export it, read it back, compare on the test set."""
    config = to_dict(cfg)
    check(config, ExportConfig)
    from handgrad.inspection import export, reopen  # nothing heavy before the configuration is checked

    network = reopen.open_network(config, images=False)
    folder = network.source / "exported" if network.record else Path.cwd()
    path = Path(config["output"] or folder / export.FILES[config["format"]]).absolute()
    with output_errors(path, "file"):
        difference = export.write(network.assembly, config["format"], path)
    say(str(path))
    say(
        f"read back, on {export.IMAGES:,} random images: the same predictions, "
        f"logits apart by {difference:.1e} of the largest at most"
    )


if __name__ == "__main__":
    run(main)
