"""Show pictures of digits, drawn or photographed, to a trained network."""

import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from handgrad import command, results
from handgrad.config import Predicting, UserError, check, resolved, writing_to
from handgrad.settings import plain

if TYPE_CHECKING:
    from handgrad.inside.predictions import Prediction

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="../conf", config_name="predict")
def main(cfg: DictConfig) -> None:
    """Find the pictures, prepare them as MNIST was, predict, write, show; what is no picture is named."""
    config = resolved(cfg)
    check(config, Predicting)
    from handgrad.inside import figures, predictions  # nothing heavy before the configuration is checked
    from handgrad.inside.opened import reopened

    paths = predictions.found(config["images"])
    opened = reopened(config)
    predicted, refused = predictions.predict(opened.assembly, paths)
    for sentence in refused:
        log.error("%s", sentence)
    if predicted:
        start = Path(HydraConfig.get().runtime.cwd)
        folder = start / (config["output"] or f"outputs/predictions/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}")
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            results.write_rows(folder / results.PREDICTIONS, predictions.rows(predicted))
            results.write_figure(folder, "predictions", figures.pictures(predicted))
        show(predicted, folder)
    if refused:
        raise UserError(f"{len(refused)} of {len(paths)} pictures could not be used: see above")


def show(predicted: "list[Prediction]", folder: Path) -> None:
    """Print a row per picture, and where the rest is."""
    from rich.table import Table

    from handgrad.inside.predictions import HEADINGS, MOST, cells

    table = Table(*HEADINGS)
    for prediction in predicted[:MOST]:
        table.add_row(*cells(prediction))
    console = command.table_console()
    console.print(table)
    if (more := len(predicted) - MOST) > 0:
        console.print(f"and {more:,} more, in {results.PREDICTIONS}")
    console.print(f"what the network saw: {plain(str(folder / 'predictions.png'))}", soft_wrap=True)


if __name__ == "__main__":
    command.run(main)
