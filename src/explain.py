"""Make a page of a trained network: draw a digit, go forward and backward, take a step, all in the browser."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from handgrad import command
from handgrad.config import Explaining, check, resolved, writing_to
from handgrad.settings import plain


@hydra.main(version_base="1.3", config_path="../conf", config_name="explain")
def main(cfg: DictConfig) -> None:
    """Open, write, say where the page is."""
    config = resolved(cfg)
    check(config, Explaining)
    from handgrad.inside import lesson, opened  # nothing heavy before the configuration is checked

    network = opened.reopened(config)
    folder = network.source if network.record else Path.cwd()
    path = Path(config["output"] or folder / "explain.html").absolute()
    name = str(network.record["name"]) if network.record else network.source.name
    with writing_to(path, "file"):
        made = lesson.write(network.assembly, name, path)
    command.console().print(f"{made.rounding}\n{plain(str(path))} ({made.size / 1e6:.1f} MB)", soft_wrap=True)


if __name__ == "__main__":
    command.run(main)
