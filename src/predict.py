"""Classify pictures of digits, drawn or photographed, or the rows of a file, with a trained network."""

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from handgrad.config import PredictConfig, check, to_dict
from handgrad.console import print_table, say
from handgrad.errors import UserError, output_errors
from handgrad.hydra_version import BASE
from handgrad.process import run
from handgrad.runs.folder import PREDICTIONS, write_figure, write_rows

log = logging.getLogger(__name__)
HEADINGS = ("picture", "digit", "class", "probability", "runner-up", "its probability", "doubts")
COLUMNS = ("picture", "digit", "class", "probability", "runner_up", "runner_up_probability", "doubts")


@hydra.main(**BASE, config_path="../conf", config_name="predict")
def main(cfg: DictConfig) -> None:
    """Classify pictures, preprocessed as MNIST was, or the rows of a file; write, print; name unusable files."""
    config = to_dict(cfg)
    check(config, PredictConfig)
    (predict_rows if config["rows"] else predict_pictures)(config)


def predict_pictures(config: dict[str, Any]) -> None:
    """Find the pictures, classify them, write `predictions.csv` and a figure, and print the first ones."""
    from handgrad.inspection import predict  # nothing heavy before the configuration is checked
    from handgrad.inspection.reopen import open_network

    paths = predict.found(config["images"])
    predicted, refused = predict.predict(open_network(config, images=False).assembly, paths)
    for sentence in refused:
        log.error("%s", sentence)
    if predicted:
        folder = folder_of(config)
        with output_errors(folder):
            write_rows(folder / PREDICTIONS, [COLUMNS, *predict.rows(predicted)])
            write_figure(folder, "predictions", predict.plot(predicted))
        print_table(HEADINGS, predict.rows(predicted[: predict.MOST], ".1%"))
        if (more := len(predicted) - predict.MOST) > 0:
            say(f"and {more:,} more, in {PREDICTIONS}")
        say(f"what the network saw: {folder / 'predictions.png'}")
    if refused:
        raise UserError(f"{len(refused)} of {len(paths)} pictures could not be used: see above")


def predict_rows(config: dict[str, Any]) -> None:
    """Classify the rows of a file, write `predictions.csv`, and print the first rows."""
    if config["images"] is not None:
        raise UserError("images=... and rows=... are for different networks: give one of them")
    from handgrad.inspection import predict
    from handgrad.inspection.reopen import open_network

    predicted = predict.predict_rows(open_network(config).assembly, Path(config["rows"]))
    cells = [(str(number), name, f"{p:.6g}") for number, (name, p) in enumerate(predicted, start=1)]
    folder = folder_of(config)
    with output_errors(folder):
        write_rows(folder / PREDICTIONS, [("row", "class", "probability"), *cells])
    print_table(("row", "class", "probability"), cells[: predict.MOST])
    say(f"all {len(cells):,}: {folder / PREDICTIONS}")


def folder_of(config: dict[str, Any]) -> Path:
    """Return the folder for the predictions."""
    start = Path(HydraConfig.get().runtime.cwd)
    return start / (config["output"] or f"outputs/predictions/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}")


if __name__ == "__main__":
    run(main)
