"""Classify pictures of digits, drawn or photographed, or the rows of a file, with a trained network."""

import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from handgrad.config import PredictConfig, check, to_dict
from handgrad.console import table_console
from handgrad.errors import UserError, output_errors
from handgrad.hydra_version import BASE
from handgrad.process import run
from handgrad.runs.folder import PREDICTIONS, write_figure, write_rows
from handgrad.text import escape_control

if TYPE_CHECKING:
    from handgrad.inspection.predict import Prediction

log = logging.getLogger(__name__)


@hydra.main(**BASE, config_path="../conf", config_name="predict")
def main(cfg: DictConfig) -> None:
    """Find the pictures, preprocess them as MNIST was, predict, write, print; name unusable files."""
    config = to_dict(cfg)
    check(config, PredictConfig)
    if config["rows"]:
        predict_rows(config)
        return
    from handgrad.inspection import predict
    from handgrad.inspection.figures import pictures  # nothing heavy before the configuration is checked
    from handgrad.inspection.reopen import open_network

    paths = predict.found(config["images"])
    opened = open_network(config, images=False)
    predicted, refused = predict.predict(opened.assembly, paths)
    for sentence in refused:
        log.error("%s", sentence)
    if predicted:
        folder = folder_of(config)
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_rows(folder / PREDICTIONS, predict.rows(predicted))
            write_figure(folder, "predictions", pictures(predicted))
        show(predicted, folder)
    if refused:
        raise UserError(f"{len(refused)} of {len(paths)} pictures could not be used: see above")


def predict_rows(config: dict[str, Any]) -> None:
    """Classify the rows of a file, write `predictions.csv`, and print the first rows.

    Raises:
        UserError: pictures were named too, or the rows do not fit the network's data.
    """
    if config["images"] is not None:
        raise UserError("images=... and rows=... are of different networks: name one of them")
    from rich.table import Table

    from handgrad.inspection import predict
    from handgrad.inspection.reopen import open_network

    predicted = predict.predict_rows(open_network(config).assembly, Path(config["rows"]))
    cells = [(str(number), name, f"{p:.6g}") for number, (name, p) in enumerate(predicted, start=1)]
    folder = folder_of(config)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(folder / PREDICTIONS, [("row", "class", "probability"), *cells])
    table = Table("row", "class", "probability")
    for row in cells[: predict.MOST]:
        table.add_row(*map(escape_control, row))
    table_console().print(table)
    table_console().print(f"all {len(cells):,}: {escape_control(str(folder / PREDICTIONS))}", soft_wrap=True)


def folder_of(config: dict[str, Any]) -> Path:
    """Return the folder for the predictions."""
    start = Path(HydraConfig.get().runtime.cwd)
    return start / (config["output"] or f"outputs/predictions/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}")


def show(predicted: "list[Prediction]", folder: Path) -> None:
    """Print a row per picture, and the path of the figure."""
    from rich.table import Table

    from handgrad.inspection.predict import HEADINGS, MOST, cells

    table = Table(*HEADINGS)
    for prediction in predicted[:MOST]:
        table.add_row(*cells(prediction))
    console = table_console()
    console.print(table)
    if (more := len(predicted) - MOST) > 0:
        console.print(f"and {more:,} more, in {PREDICTIONS}")
    console.print(f"what the network saw: {escape_control(str(folder / 'predictions.png'))}", soft_wrap=True)


if __name__ == "__main__":
    run(main)
