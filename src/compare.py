"""Compare the runs of a sweep, or of several: a table here, the whole report in the folder comparison/."""

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from handgrad.compare.again import for_hydra
from handgrad.config import CompareConfig, check, to_dict
from handgrad.process import run

ASKED = ("metric", "margin", "where", "group", "baseline")


@hydra.main(version_base="1.3", config_path="../conf", config_name="compare")
def main(cfg: DictConfig) -> None:
    """Compare, once or, with `refresh_seconds`, again and again until the sweep has no job left."""
    config = to_dict(cfg)
    check(config, CompareConfig)
    start = Path(HydraConfig.get().runtime.cwd)  # Hydra may have changed the working directory
    while compared(config, start) and config["refresh_seconds"]:
        time.sleep(config["refresh_seconds"])


def compared(config: dict[str, Any], start: Path) -> bool:
    """Collect, pool, test, draw, write, show; tell whether a sweep is still to go on."""
    # Nothing heavy before the configuration is checked.
    from handgrad.compare import progress, sources
    from handgrad.compare.comparison import CompareOptions
    from handgrad.compare.report import build_report, write_and_print

    named = config["sweep"] if isinstance(config["sweep"], list) else [config["sweep"]]
    folders = sources.matching([str(name) for name in named if name is not None], Path("outputs/sweeps"), start)
    state = progress.of_sweep(folders[0]) if len(folders) == 1 else None
    reference = None if config["reference"] is None else start / config["reference"]
    asked = CompareOptions(**{name: config[name] for name in ASKED}, reference=reference)
    report = build_report(folders, asked, start, str(state) if state else "")
    write_and_print(report, destination(config["output"], folders, start), config["refresh_seconds"] if state else None)
    return state is not None


def destination(output: str | None, sources: list[Path], start: Path) -> Path:
    """Where the report goes: what `output` says, the sweep's own folder, or, of several, a folder with today's date."""
    if output is not None:
        return start / output
    if len(sources) == 1:
        return sources[0] / "comparison"
    return start / "outputs" / "comparisons" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"


def in_quotes(word: str) -> str:
    """An argument whose value is a condition or a cell, as Hydra reads it: its signs are no grammar of Hydra's."""
    key, _, text = word.partition("=")
    if key not in ("where", "baseline"):
        return word
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return f"{key}={for_hydra(text)}"
    return word


if __name__ == "__main__":
    sys.argv[1:] = [in_quotes(word) for word in sys.argv[1:]]
    run(main)
