"""Compare the runs of one or more sweeps: print a table, write a report to the folder comparison/."""

import hashlib
import re
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

from handgrad.comparison.again import for_hydra
from handgrad.config import CompareConfig, check, to_dict
from handgrad.errors import UserError
from handgrad.hydra_version import BASE
from handgrad.process import run

LONGEST = 80  # most characters of a folder's name
ASKED = ("metric", "margin", "where", "group", "baseline", "seed", "better", "unit")


@hydra.main(**BASE, config_path="../conf", config_name="compare")
def main(cfg: DictConfig) -> None:
    """Compare once or, with `refresh_seconds`, repeatedly until the sweep has no job left."""
    config = to_dict(cfg)
    check(config, CompareConfig)
    start = Path(HydraConfig.get().runtime.cwd)  # Hydra may have changed the working directory
    while compared(config, start) and config["refresh_seconds"]:
        time.sleep(config["refresh_seconds"])


def compared(config: dict[str, Any], start: Path) -> bool:
    """Build, write and print the report; tell whether the sweep has jobs left."""
    # Nothing heavy before the configuration is checked.
    from handgrad.comparison import progress, sources
    from handgrad.comparison.report import build_report, write_and_print
    from handgrad.comparison.table import CompareOptions

    named = config["sweep"] if isinstance(config["sweep"], list) else [config["sweep"]]
    table, reference = (None if config[name] is None else start / config[name] for name in ("table", "reference"))
    if table is not None and config["sweep"] is not None:
        raise UserError("table= and sweep= cannot both be given: compare one, then the other")
    patterns = [str(name) for name in named if name is not None]
    folders = [] if table else sources.matching(patterns, Path("outputs/sweeps"), start)
    state = progress.of_sweep(folders[0]) if len(folders) == 1 else ""
    asked = CompareOptions(**{name: config[name] for name in ASKED}, reference=reference, table=table)
    report = build_report(folders, asked, start, state)
    folder = start / config["output"] if config["output"] else destination(config, folders, table, start)
    write_and_print(report, folder, config["refresh_seconds"] if state else None)
    return state != ""


def destination(config: dict[str, Any], sources: list[Path], table: Path | None, start: Path) -> Path:
    """Return the report's folder, named by the options: in the only source's, or in outputs/comparisons/."""
    options = [f"{name}={config[name]}" for name in (*ASKED, "reference") if config[name] is not None]
    asked = "_".join(["comparison", *options])
    name = re.sub(r"[^\w.=,-]+", "-", asked)[:LONGEST]
    if name != asked:  # two questions never share a folder
        name = f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
    if len(sources) == 1:
        return sources[0] / name
    of = table.stem if table else f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    return start / "outputs" / "comparisons" / of / name


def in_quotes(word: str) -> str:
    """Quote the value of `where`, `metric` and the like if Hydra's grammar cannot parse it."""
    key, _, text = word.partition("=")
    if key not in ("where", "baseline", "table", "metric", "unit", "seed"):
        return word
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return f"{key}={for_hydra(text)}"
    return word


if __name__ == "__main__":
    sys.argv[1:] = [in_quotes(word) for word in sys.argv[1:]]
    run(main)
