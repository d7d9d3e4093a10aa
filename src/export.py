"""Write a trained network as a state_dict, as the notebook's dictionary, or as ONNX, and check what was written."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from handgrad import command
from handgrad.config import Exporting, check, resolved, writing_to
from handgrad.settings import plain


@hydra.main(version_base="1.3", config_path="../conf", config_name="export")
def main(cfg: DictConfig) -> None:
    """Open, write, read back, compare on the test set."""
    config = resolved(cfg)
    check(config, Exporting)
    from handgrad.inside import exported, opened  # nothing heavy before the configuration is checked

    network = opened.reopened(config)
    folder = network.source / "exported" if network.record else Path.cwd()
    path = Path(config["output"] or folder / exported.FILES[config["format"]]).absolute()
    with writing_to(path, "file"):
        difference, images = exported.write(network.assembly, config["format"], path)
    command.console().print(
        f"{plain(str(path))}\nread back, on {images:,} test images: the same predictions, "
        f"logits apart by {difference:.1e} of the largest at most",
        soft_wrap=True,
    )


if __name__ == "__main__":
    command.run(main)
