"""Check hand-derived gradients, optionally with a bug, or a student's functions, against autograd."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from handgrad.checks import check_options
from handgrad.config import CheckConfig, check, to_dict
from handgrad.console import print_table, say, table_console
from handgrad.errors import UserError, output_errors
from handgrad.hydra_version import BASE
from handgrad.process import import_from_here, run
from handgrad.runs.folder import CHECK, VERDICTS, write_json, write_rows

if TYPE_CHECKING:
    from handgrad.nn.activations import Activation
    from handgrad.nn.gradcheck import Objective, Row
    from handgrad.nn.mlp import MLP
    from handgrad.nn.regularizers import Regularizer
    from handgrad.training.data import ClassificationData

SECRET = "secret"


@hydra.main(**BASE, config_path="../conf", config_name="check")
def main(cfg: DictConfig) -> None:
    """Check a network's gradients, a student's functions, or a guess, as configured."""
    config = to_dict(cfg)
    check(config, CheckConfig)
    check_options(config)
    if config["data"].get("deform"):
        raise UserError("data/deform=...: the gradients are checked on images as they are: leave it out")
    asked = [key for key in ("guess", "mine", "inject_bug") if config[key]]
    if len(asked) > 1 or (config["mine"] and config["run"]):
        others = asked if len(asked) > 1 else ["mine", "run"]
        raise UserError(f"{' and '.join(f'{key}=...' for key in others)} are separate checks: name one of them")
    if config["guess"]:
        guess(config)
    elif config["mine"]:
        judge(cfg, config)
    else:
        check_gradients(cfg, config)


def check_gradients(cfg: DictConfig, config: dict[str, Any]) -> None:
    """Check a network's gradients on a batch, write and print the result; UserError if it is not the expected one."""
    from handgrad.inspection import secret  # nothing heavy before the configuration is checked
    from handgrad.nn import gradcheck

    objective, source = opened(cfg, config) if config["run"] or config["checkpoint"] else fresh(cfg)
    broken = told = config["inject_bug"]
    bugs = list(gradcheck.BROKEN) if told == SECRET else [told] if told else []
    affected = gradcheck.affected(objective, bugs)
    if told == SECRET:
        broken = secret.chosen([bug for bug, wrong in affected.items() if any(wrong)])
    rows = gradcheck.check(*objective[:5], config["fd_entries"], broken)
    folder = Path(config["output"] or source)
    with output_errors(folder):
        sealed = {"secret": secret.sealed(broken)} if told == SECRET else {}
        write_json(folder / CHECK, gradcheck.report(rows, told) | sealed)
    show(rows, told, folder)
    wrong = [row.verdict == "wrong" for row in rows]
    count = f"{sum(wrong)} of {len(rows)} gradients"
    if broken is None:
        if any(wrong):
            raise UserError(f"{count} by hand are wrong")
        return
    if wrong != affected[broken]:
        raise UserError(f"{count} are wrong, but not exactly those that {told} affects")
    if not any(wrong):
        hint = f" (it needs regularizer={gradcheck.NEEDS[broken]})" if told in gradcheck.NEEDS else ""
        raise UserError(f"no gradient is wrong: with this configuration a broken {told} has no effect{hint}")
    which = "a term broken: which? guess=BP1, ..." if told == SECRET else f"{told} broken"
    say(f"{count} are wrong, as they should be with {which}")


def guess(config: dict[str, Any]) -> None:
    """Say whether a guess names the bug of the latest secret check."""
    from handgrad.inspection import secret

    folder = config["output"] or config["run"]
    path, seal = secret.latest(Path(folder) if folder else None)
    if not secret.is_it(config["guess"], seal):
        raise UserError(f"no, {config['guess']} is not what is broken in {path}: look again, and guess again")
    from handgrad.nn.gradcheck import BROKEN

    say(f"yes, {config['guess']} was broken: {BROKEN[config['guess']]}")


def judge(cfg: DictConfig, config: dict[str, Any]) -> None:
    """Write a file to fill in, or judge a student's functions or all hand-ins of a folder."""
    from handgrad.inspection import exercise, judging
    from handgrad.training.network import build

    if config["mine"] == "new":
        option = str(HydraConfig.get().runtime.choices["activation"])
        path = exercise.write_template(Path.cwd(), build(cfg.activation), option)
        say(f"{path.name} has seven functions for you to write: python src/check.py mine={path.name}")
        return
    path = Path(config["mine"])
    files = judging.found(path)
    objective, _ = fresh(cfg)
    cases = exercise.all_cases(objective.phi, objective.network, objective.x, objective.y)
    judged = judging.judge_files(files, objective.phi, cases, quiet=path.is_dir())
    if path.is_dir():
        show_class(judging.rows(judged), Path(config["output"] or path))
        return
    ((_, verdicts),) = judged
    for verdict in verdicts:
        table_console().print(repr(verdict), style="green" if verdict.right else "red", soft_wrap=True)
    count = sum(verdict.right for verdict in verdicts)
    right = f"{count} of {len(verdicts)} functions are right"
    if count < len(verdicts):
        raise UserError(right)
    say(right)


def show_class(rows: list[list[str]], folder: Path) -> None:
    """Write verdicts.csv and print it as a table."""
    with output_errors(folder):
        write_rows(folder / VERDICTS, rows)
    print_table([heading.replace("_", " ") for heading in rows[0]], rows[1:])  # spaces let headings wrap
    say(f"table: {(folder / VERDICTS).absolute()}")


def fresh(cfg: DictConfig) -> "tuple[Objective, Path]":
    """Build an untrained network and a batch for it; return them and an output folder."""
    import torch

    from handgrad.nn.mlp import MLP
    from handgrad.training.build import data_of
    from handgrad.training.network import build, build_network, sizes_of

    import_from_here()
    data = data_of(cfg)
    torch.manual_seed(cfg.seed)
    network = build_network(cfg.network, sizes_of(cfg, data), data.image_shape)
    if not isinstance(network, MLP):
        raise UserError(f"network._target_={cfg.network._target_}: hand-derived gradients exist only for MLP")
    return objective_of(network, build(cfg.activation), build(cfg.regularizer), data, cfg.batch), new_folder()


def opened(cfg: DictConfig, config: dict[str, Any]) -> "tuple[Objective, Path]":
    """Open a network; return its objective, with the regularizer from the command line if any, and a folder."""
    from handgrad.inspection.reopen import open_network
    from handgrad.training.modules import mlp_of
    from handgrad.training.network import build

    typed = {word.lstrip("+~").split("=")[0].split(".")[0] for word in HydraConfig.get().overrides.task}
    if decided := typed & ({"network", "seed"} | ({"activation"} if config["run"] else set())):
        raise UserError(f"{', '.join(sorted(decided))}: the opened network determines that: remove it")
    wanted = {key: config[key] for key in ("run", "checkpoint", "trust")}
    wanted |= {key: config[key] for key in ("activation", "data") if key in typed}
    (_, module, data, _), source, record = open_network(wanted)
    regularizer = build(cfg.regularizer) if "regularizer" in typed else module.regularizer
    objective = objective_of(mlp_of(module, "check"), module.activation, regularizer, data, cfg.batch)
    return objective, source if record else new_folder()


def new_folder() -> Path:
    """Return the folder for a check that belongs to no run."""
    return Path("outputs", "checks", f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}")


def objective_of(
    network: "MLP", phi: "Activation", regularizer: "Regularizer", data: "ClassificationData", batch: int
) -> "Objective":
    """Return a network's objective on the first training examples; refuse a regularizer that does not fit it."""
    from handgrad.nn.gradcheck import Objective
    from handgrad.training.modules import check_regularizer

    check_regularizer(regularizer, 0, network)
    train = data.sets["train"]
    if len(train) < batch:
        raise UserError(f"batch={batch} is more than the {len(train)} training examples")
    return Objective(network, phi, regularizer, *train.first(batch))


def show(rows: "list[Row]", broken: str | None, folder: Path) -> None:
    """Print a row per parameter, with errors in red, and the path of check.json."""
    from rich.table import Table
    from rich.text import Text

    from handgrad.nn.gradcheck import BROKEN, TOLERANCES

    console = table_console()
    if broken:
        console.print("one term is broken" if broken == SECRET else f"{broken} is broken on purpose: {BROKEN[broken]}")
    table = Table("layer", "parameter", "shape", *(f"{reference}\n{precision}" for reference, precision in TOLERANCES))
    table.add_column("verdict")
    for row in rows:
        shares = [
            Text(f"{share:.1e}") if row.right(key) else Text(f"{share:.1e} !", "red")
            for key, share in row.apart.items()
        ]
        verdict = Text(row.verdict, "red" if row.verdict == "wrong" else "green")
        table.add_row(str(row.layer), row.parameter, " x ".join(map(str, row.shape)), *shares, verdict)
    table.add_section()
    table.add_row("", "tolerance", "", *(f"{tolerance:.0e}" for tolerance in TOLERANCES.values()), "")
    console.print(table)
    say(f"figures: {(folder / CHECK).absolute()}")


if __name__ == "__main__":
    run(main)
