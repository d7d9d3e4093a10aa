"""Compare the runs of one or more sweeps: print a table, write a report to the folder comparison/."""

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
from handgrad.process import run

ASKED = ("metric", "margin", "where", "group", "baseline")


@hydra.main(version_base="1.3", config_path="../conf", config_name="compare")
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
    folders = sources.matching([str(name) for name in named if name is not None], Path("outputs/sweeps"), start)
    state = progress.of_sweep(folders[0]) if len(folders) == 1 else None
    reference = None if config["reference"] is None else start / config["reference"]
    asked = CompareOptions(**{name: config[name] for name in ASKED}, reference=reference)
    report = build_report(folders, asked, start, str(state) if state else "")
    write_and_print(report, destination(config["output"], folders, start), config["refresh_seconds"] if state else None)
    return state is not None


def destination(output: str | None, sources: list[Path], start: Path) -> Path:
    """Return the report's folder: `output`, the only source's own, or for several sources a dated one."""
    if output is not None:
        return start / output
    if len(sources) == 1:
        return sources[0] / "comparison"
    return start / "outputs" / "comparisons" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"


def in_quotes(word: str) -> str:
    """Quote the value of `where` or `baseline` if Hydra's grammar cannot parse it."""
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
