"""Evaluate a trained network, from a run or a file, on its own images or on others."""

import hydra
from omegaconf import DictConfig

from handgrad.config import OpenConfig, check, to_dict
from handgrad.console import print_table, say
from handgrad.hydra_version import BASE
from handgrad.process import run

DOUBTFUL = 0.5  # test accuracy below which a file was probably misread


@hydra.main(**BASE, config_path="../conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Open a network, score every set, and compare with the recorded metrics."""
    config = to_dict(cfg)
    check(config, OpenConfig)
    from handgrad.inspection.reopen import open_network  # nothing heavy before the configuration is checked

    opened = open_network(config)
    trainer, module, data, _ = opened.assembly
    trainer.test(module, data, verbose=False)
    recorded = opened.record["metrics"] if opened.record else {}
    metrics = module.metrics_of(module.test_sets)
    show(metrics, recorded)
    if not opened.record and config["inputs"] is None and metrics.get("test/accuracy", 1.0) < DOUBTFUL:
        say(
            "Below 50 %: was it trained on normalized inputs? Then add inputs=normalized or inputs=[mean,deviation]. "
            "Or with another activation? Then correct activation=..."
        )
    say(str(opened.source))


def show(metrics: dict[str, float], recorded: dict[str, float]) -> None:
    """Print a row per metric, beside its recorded value."""
    rows = []
    for name, value in metrics.items():
        before = recorded.get(name)
        verdict = "the same" if before == value else "different" if before is not None else ""
        rows.append([name, repr(value), *([repr(before) if before is not None else "", verdict] if recorded else [])])
    print_table(["metric", "value", *(["recorded", ""] if recorded else [])], rows)


if __name__ == "__main__":
    run(main)
