"""Write a lesson page of a trained network: draw a digit, go forward and backward, take a step in the browser."""

import webbrowser
from pathlib import Path

import hydra
from omegaconf import DictConfig

from handgrad.config import ExplainConfig, check, to_dict
from handgrad.console import say
from handgrad.errors import output_errors
from handgrad.hydra_version import BASE
from handgrad.process import run


@hydra.main(**BASE, config_path="../conf", config_name="explain")
def main(cfg: DictConfig) -> None:
    """Open a network, write its page, print the path; on request, show the page in the browser."""
    config = to_dict(cfg)
    check(config, ExplainConfig)
    from handgrad.inspection import explain, reopen  # nothing heavy before the configuration is checked

    network = reopen.open_network(config)
    folder = network.source if network.record else Path.cwd()
    path = Path(config["output"] or folder / "explain.html").absolute()
    name = str(network.record["name"]) if network.record else network.source.name
    with output_errors(path, "file"):
        rounding = explain.write(network.assembly, name, path)
    say(rounding)
    say(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    if config["open"] and not webbrowser.open(path.as_uri()):
        say("No browser could be started: open the file yourself.")


if __name__ == "__main__":
    run(main)
