"""Check the gradients by hand, optionally with a bug, or a student's functions, against autograd."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from handgrad.checks import check_options
from handgrad.config import CheckConfig, build, check, to_dict
from handgrad.console import table_console
from handgrad.errors import UserError, output_errors
from handgrad.hydra_version import BASE
from handgrad.process import import_from_here, run
from handgrad.runs.folder import CHECK, VERDICTS, write_json, write_rows
from handgrad.text import escape_control

if TYPE_CHECKING:
    from torch import Tensor

    from handgrad.nn.gradcheck import Objective, Row
    from handgrad.training.data import ClassificationData

SECRET = "secret"


@hydra.main(**BASE, config_path="../conf", config_name="check")
def main(cfg: DictConfig) -> None:
    """Check what the configuration names: a guess, a student's functions, or the gradients of a network."""
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
    """Build or open a network, check its gradients on a batch, write and print them.

    Raises:
        UserError: a gradient is wrong without a bug, or a bug that was asked for does not show.
    """
    from handgrad.inspection import secret  # nothing heavy before the configuration is checked
    from handgrad.nn import gradcheck

    objective, source = opened(cfg, config) if config["run"] or config["checkpoint"] else fresh(cfg)
    broken, told = config["inject_bug"], config["inject_bug"]
    if broken == SECRET:
        broken = secret.chosen([bug for bug in gradcheck.BROKEN if any(gradcheck.affected(objective, bug))])
    rows = gradcheck.check(*objective[:5], config["fd_entries"], broken)
    folder = Path(config["output"]) if config["output"] else source
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sealed = {"secret": secret.sealed(broken)} if told == SECRET else {}
        write_json(folder / CHECK, gradcheck.report(rows, told) | sealed)
    show(rows, told, folder)
    wrong = [row.verdict == "wrong" for row in rows]
    count = f"{sum(wrong)} of {len(rows)} gradients"
    if broken is None and any(wrong):
        raise UserError(f"{count} by hand are wrong")
    if broken is None:
        return
    if wrong != gradcheck.affected(objective, broken):
        raise UserError(f"{count} are wrong, which are not those with {told} broken")
    if not any(wrong):
        hint = f" (it needs regularizer={gradcheck.NEEDS[broken]})" if told in gradcheck.NEEDS else ""
        raise UserError(
            f"no gradient is wrong although {told} is broken: with this configuration it does not show{hint}"
        )
    which = "a term broken: which? guess=BP1, ..." if told == SECRET else f"{told} broken"
    table_console().print(f"{count} are wrong, as they should be with {which}", soft_wrap=True)


def guess(config: dict[str, Any]) -> None:
    """Say whether a guess names the bug of the latest secret check.

    Raises:
        UserError: it does not, or there is no such check.
    """
    from handgrad.inspection import secret

    folder = config["output"] or config["run"]
    path, seal = secret.latest(Path(folder) if folder else None)
    if not secret.is_it(config["guess"], seal):
        raise UserError(f"no, {config['guess']} is not what is broken in {path}: look again, and guess again")
    from handgrad.nn.gradcheck import BROKEN

    console = table_console()
    console.print(f"yes, {config['guess']} was broken: {BROKEN[config['guess']]}", soft_wrap=True)


def judge(cfg: DictConfig, config: dict[str, Any]) -> None:
    """Write a file to fill in, judge a student's functions, or all hand-ins of a folder.

    Raises:
        UserError: a function is not right; the file to write exists already; there is nothing to judge.
    """
    from handgrad.inspection import exercise, judging

    if config["mine"] == "new":
        option = str(HydraConfig.get().runtime.choices["activation"])
        path = exercise.write_template(Path.cwd(), build(cfg.activation), option)
        table_console().print(f"{path.name} has seven functions for you to write: python src/check.py mine={path.name}")
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
        style = "green" if verdict.right else "red"
        table_console().print(repr(verdict), style=style, soft_wrap=True)
    right = f"{sum(verdict.right for verdict in verdicts)} of {len(verdicts)} functions are right"
    if not all(verdict.right for verdict in verdicts):
        raise UserError(right)
    table_console().print(right)


def show_class(rows: "list[list[str]]", folder: Path) -> None:
    """Write verdicts.csv and print it as a table."""
    from rich.table import Table

    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(folder / VERDICTS, rows)
    table = Table(*(heading.replace("_", " ") for heading in rows[0]))  # can be broken
    for row in rows[1:]:
        table.add_row(*row)
    table_console().print(table)
    table_console().print(f"table: {escape_control(str((folder / VERDICTS).absolute()))}", soft_wrap=True)


def fresh(cfg: DictConfig) -> "tuple[Objective, Path]":
    """Build an untrained network and a batch for it; return them and an output folder."""
    import torch

    from handgrad.nn.gradcheck import Objective
    from handgrad.nn.mlp import MLP
    from handgrad.training.build import data_of
    from handgrad.training.modules import check_regularizer
    from handgrad.training.network import build_network, sizes_of

    import_from_here()
    data = data_of(cfg)
    torch.manual_seed(cfg.seed)
    network = build_network(cfg.network, sizes_of(cfg, data), data.image_shape)
    if not isinstance(network, MLP):
        raise UserError(f"network._target_={cfg.network._target_}: by hand there are gradients of MLP only")
    parts = (network, build(cfg.activation), build(cfg.regularizer))
    check_regularizer(parts[2], 0, network)
    return Objective(*parts, *first_examples(data, cfg.batch)), new_folder()


def opened(cfg: DictConfig, config: dict[str, Any]) -> "tuple[Objective, Path]":
    """Open a run; return its network, activation, regularizer (or the one that was typed) and images, and its folder.

    Raises:
        UserError: a setting was typed that the run determines.
    """
    from handgrad.inspection.reopen import open_network
    from handgrad.nn.gradcheck import Objective
    from handgrad.training.modules import check_regularizer, mlp_of

    typed = {word.lstrip("+~").split("=")[0].split(".")[0] for word in HydraConfig.get().overrides.task}
    if decided := typed & ({"network", "seed"} | ({"activation"} if config["run"] else set())):
        raise UserError(f"{', '.join(sorted(decided))}: the network that is opened decides that: leave it out")
    wanted = {key: config[key] for key in ("run", "checkpoint", "trust")}
    wanted |= {key: config[key] for key in ("activation", "data") if key in typed}
    (_, module, data, _), source, record = open_network(wanted)
    regularizer = build(cfg.regularizer) if "regularizer" in typed else module.regularizer
    network = mlp_of(module, "check")
    check_regularizer(regularizer, 0, network)
    return Objective(
        network, module.activation, regularizer, *first_examples(data, cfg.batch)
    ), source if record else new_folder()


def new_folder() -> Path:
    """Return the folder for a check that belongs to no run."""
    return Path("outputs", "checks", f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}")


def first_examples(data: "ClassificationData", batch: int) -> "tuple[Tensor, Tensor]":
    """Return the first training examples and their targets.

    Raises:
        UserError: there are not that many.
    """
    train = data.sets["train"]
    if len(train) < batch:
        raise UserError(f"batch={batch} is more than the {len(train)} training examples")
    return train.first(batch)


def show(rows: "list[Row]", broken: str | None, folder: Path) -> None:
    """Print a row per parameter, with errors in red, and the path of check.json."""
    from rich.table import Table
    from rich.text import Text

    from handgrad.nn.gradcheck import BROKEN, TOLERANCES

    console = table_console()
    if broken:
        what = f"{broken} is broken on purpose: {BROKEN[broken]}" if broken != SECRET else "one term is broken"
        console.print(what)
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
