"""Check the gradients by hand against autograd and finite differences, layer by layer, optionally with a bug."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from handgrad.config import CheckConfig, build, check, to_dict
from handgrad.console import table_console
from handgrad.errors import UserError, output_errors
from handgrad.process import run
from handgrad.runs.folder import CHECK, write_json
from handgrad.text import escape_control

if TYPE_CHECKING:
    from handgrad.nn.gradcheck import Row


@hydra.main(version_base="1.3", config_path="../conf", config_name="check")
def main(cfg: DictConfig) -> None:
    """Build or open a network, check its gradients on a batch, write and print them; status 1 if one is wrong."""
    config = to_dict(cfg)
    check(config, CheckConfig)
    from handgrad.nn import gradcheck  # nothing heavy before the configuration is checked

    network, phi, penalty, data, source = opened(cfg, config) if config["run"] else fresh(cfg)
    train = data.sets["train"]
    if len(train) < config["batch"]:
        raise UserError(f"batch={config['batch']} is more than the {len(train)} training examples")
    x, y = train.first(config["batch"])
    rows = gradcheck.check(network, phi, penalty, x, y, config["fd_entries"], config["inject_bug"])
    folder = Path(config["output"]) if config["output"] else source
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CHECK, gradcheck.report(rows, config["inject_bug"]))
    show(rows, config["inject_bug"], folder)
    if wrong := sum(row.verdict == "wrong" for row in rows):
        raise UserError(f"{wrong} of {len(rows)} gradients by hand are wrong")


def fresh(cfg: DictConfig) -> tuple[Any, ...]:
    """Build an untrained network, its activation, penalty and data; return them and an output folder."""
    import torch

    from handgrad.training.build import build_network, data_of

    data = data_of(cfg)
    torch.manual_seed(cfg.seed)
    folder = Path("outputs", "checks", f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}")
    sizes = [data.inputs, *cfg.network.hidden_sizes, len(data.class_names)]
    return build_network(cfg.network, sizes), build(cfg.activation), build(cfg.regularizer), data, folder


def opened(cfg: DictConfig, config: dict[str, Any]) -> tuple[Any, ...]:
    """Open a run; return its network, activation, penalty (or the one that was typed), data and folder.

    Raises:
        UserError: a setting was typed that the run determines.
    """
    from handgrad.inspection.reopen import open_network

    typed = {word.lstrip("+~").split("=")[0].split(".")[0] for word in HydraConfig.get().overrides.task}
    if decided := typed & {"activation", "network", "seed"}:
        raise UserError(f"{', '.join(sorted(decided))}: with run=... the run decides that: leave it out")
    wanted = {key: config[key] for key in ("run", "trust")}
    wanted |= {"checkpoint": None, "data": config["data"] if "data" in typed else {}}
    (_, module, data, _), source, _ = open_network(wanted)
    penalty = build(cfg.regularizer) if "regularizer" in typed else module.regularizer
    return module.network, module.activation, penalty, data, source


def show(rows: "list[Row]", broken: str | None, folder: Path) -> None:
    """Print a row per parameter, with errors in red, and the path of check.json."""
    from rich.table import Table
    from rich.text import Text

    from handgrad.nn.gradcheck import BROKEN, TOLERANCES

    console = table_console()
    if broken:
        console.print(f"{broken} is broken on purpose: {BROKEN[broken]}")
    table = Table("layer", "parameter", "shape", *(f"{reference}\n{precision}" for reference, precision in TOLERANCES))
    table.add_column("verdict")
    for row in rows:
        shares = [
            Text(f"{share:.1e}" + ("" if row.right(key) else " !"), "" if row.right(key) else "red")
            for key, share in row.apart.items()
        ]
        verdict = Text(row.verdict, "red" if row.verdict == "wrong" else "green")
        table.add_row(str(row.layer), row.parameter, " x ".join(map(str, row.shape)), *shares, verdict)
    tolerances = [f"{tolerance:.0e}" for tolerance in TOLERANCES.values()]
    table.add_section()
    table.add_row("", "tolerance", "", *tolerances, "")
    console.print(table)
    console.print(f"figures: {escape_control(str((folder / CHECK).absolute()))}", soft_wrap=True)


if __name__ == "__main__":
    run(main)
