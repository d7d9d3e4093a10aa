"""Train one network, score it, and write the results to its folder; with -m, run a sweep."""

import logging
import os
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from handgrad.errors import UserError
from handgrad.hydra_version import BASE, TRUSTED
from handgrad.job import find_or_train
from handgrad.process import end_with_parent, install_handlers, run
from handgrad.sweep import Sweep

log = logging.getLogger(__name__)


@hydra.main(**BASE, **TRUSTED, config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Check the configuration, train, print; skip a run that is finished, resume one that was interrupted.

    Returns the metric that `optimized_metric` names, for a search.
    """
    install_handlers()  # a worker of a parallel sweep starts here
    job = HydraConfig.get()
    sweep = job.mode == RunMode.MULTIRUN
    if sweep and "joblib" in job.launcher._target_:
        end_with_parent()
    os.chdir(job.runtime.cwd)  # relative paths refer to the directory of the start, whatever hydra.job.chdir is
    try:
        _, record = find_or_train(cfg, Path(job.runtime.output_dir), sweep)
        return optimized_metric(cfg.optimized_metric, record["metrics"]) if record else None
    except UserError as error:
        if sweep:  # Hydra continues, and at the end shows only the first job's error
            log.error("%s: %s", cfg.get("name"), error)
        raise


def optimized_metric(name: str | None, metrics: dict[str, float]) -> float | None:
    """Return the metric that a search optimizes, None without a name; UserError if no metric has that name."""
    if name is not None and name not in metrics:
        raise UserError(f"optimized_metric={name} is not among this run's metrics: {', '.join(metrics) or 'none'}")
    return None if name is None else metrics[name]


if __name__ == "__main__":
    run(main, on_error=Sweep.report)  # if a job fails, Hydra ends a sweep without calling its callbacks
