"""`hydra/launcher=population`: a sweep's runs that differ only in seed, rate or penalty train in one tensor."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from handgrad.settings import canonical

log = logging.getLogger(__name__)
Job = tuple[int, Sequence[str]]  # its number and its options


class PopulationLauncher(Launcher):
    """Trains groups of networks, several groups at once, each run in the folder and to the numbers it has alone.

    Args:
        networks: at most so many in a tensor; None for what is fastest, 4 on a CPU, 64 on an accelerator.
        processes: groups at once; None for one per core, on an accelerator one.
    """

    config: DictConfig
    hydra_context: HydraContext
    task_function: TaskFunction

    def __init__(self, networks: int | None = None, processes: int | None = None) -> None:
        self.networks = networks
        self.processes = processes

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands over.

        Raises:
            UserError: a number is none.
        """
        from handgrad.config import UserError

        for name, value in (("networks", self.networks), ("processes", self.processes)):
            if value is not None and (type(value) is not int or value < 1):
                raise UserError(f"hydra.launcher.{name}={value} cannot be: it should be a number from 1 on, or null")
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from joblib import Parallel, delayed

        from handgrad.sweep import configured

        setup_globals()
        hydra = self.config.hydra
        configure_log(hydra.hydra_logging, hydra.verbose)
        Path(str(hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        jobs: list[Job] = list(enumerate(job_overrides, start=initial_job_idx))
        settings = {job[0]: configured(self.config, job[1]) for job in jobs}
        on_cpu = not any(map(accelerated, settings.values()))
        processes = self.processes or (os.cpu_count() or 1 if on_cpu else 1)
        most = min(self.networks or (4 if on_cpu else 64), -(-len(jobs) // processes))
        if any("filename" in handler for handler in (hydra.job_logging.get("handlers") or {}).values()):
            log.info("Every run is trained alone: hydra/job_logging writes a file of each process, not of each run")
            most = 1
        elif hydra.job.env_set:
            log.info("Every run is trained alone: hydra.job.env_set is one for a whole process")
            most = 1
        groups = grouped(jobs, settings, most)
        log.info("Launching %d jobs, those of a group together: %s", len(jobs), "; ".join(map(named, groups)))
        for number, overrides in jobs:
            log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
        together = partial(
            train, self.hydra_context, self.config, self.task_function, Singleton.get_state(), os.getpid()
        )
        found = Parallel(n_jobs=min(processes, len(groups)), backend="loky", batch_size=1, verbose=11)(
            delayed(together)(group) for group in groups
        )
        configure_log(hydra.hydra_logging, hydra.verbose)
        returned = dict(pair for pairs in found for pair in pairs)
        return [returned[number] for number, _ in jobs]


def grouped(jobs: Sequence[Job], settings: dict[int, dict[str, Any] | None], most: int) -> list[list[Job]]:
    """Jobs in groups of at most so many, the members of each alike but for seed, learning rate and strength.

    Args:
        jobs: of a sweep.
        settings: of each job by its number, None where they cannot be.
        most: networks in a group.
    """
    kinds: dict[str, list[Job]] = {}
    known = set()
    for job in jobs:
        config = settings[job[0]]
        reason = "its configuration cannot be" if config is None else obstacle(config)
        if reason is None and canonical(config) in known:
            reason = "it stands twice"
        if reason:
            log.info("#%d is trained alone: %s", job[0], reason)
        known.add(canonical(config))
        kinds.setdefault(str(job[0]) if reason else canonical(shared(config or {})), []).append(job)
    for key, kind in kinds.items():
        if len(kind) == 1 < most and key != str(kind[0][0]):
            log.info("#%d is trained alone: no other run differs from it only in seed, rate and strength", kind[0][0])
    return [kind[first : first + most] for kind in kinds.values() for first in range(0, len(kind), most)]


def shared(config: dict[str, Any]) -> dict[str, Any]:
    """What the members of a group have in common."""
    common = {key: value for key, value in config.items() if key not in ("seed", "name")}
    for part, key in (("optimizer", "lr"), ("regularizer", "strength")):
        common[part] = {name: value for name, value in (config.get(part) or {}).items() if name != key}
    return common


# Optimizers whose step is written for several networks, with the options that it knows.
SGD = {"_target_", "_partial_", "lr", "fused", "foreach", "weight_reduction", "weight_factor"}
MOVED = {
    "handgrad.optim.FactoredSGD": SGD,
    "handgrad.optim.grouped_sgd": SGD,
    "torch.optim.SGD": SGD,
    "torch.optim.Adam": {"_target_", "_partial_", "lr", "fused", "foreach", "betas", "eps"},
}
WHOLE = (None, 32, 64, "32", "64", "32-true", "64-true")
USUAL = {
    "accumulate_grad_batches": 1,
    "gradient_clip_val": 0,
    "fast_dev_run": 0,
    "strategy": "auto",
    "plugins": None,
    "devices": 1,
    "num_nodes": 1,
    "max_time": None,  # its clock counts what the others take
    "profiler": {"_target_": "handgrad.callbacks.NoProfiler"},  # so does another's
}
SCHEDULES = "torch.optim.lr_scheduler.", "handgrad.optim."
MOMENTUM = "OneCycleLR", "CyclicLR"  # which they move with the rate
KNOWN = "lightning.pytorch.callbacks.EarlyStopping", "lightning.pytorch.callbacks.ModelCheckpoint"


def obstacle(config: dict[str, Any]) -> str | None:
    """Why a run cannot share a tensor with others, None if it can.

    Args:
        config: a checked configuration.
    """
    optimizer, trainer = config.get("optimizer") or {}, config.get("trainer") or {}
    if target(config.get("engine")) != "handgrad.modules.ManualModule":
        return "its gradients are not by hand, or not by ours"
    if not set(optimizer) <= MOVED.get(target(optimizer), set()):
        return f"optimizer {target(optimizer)} with {', '.join(optimizer)} is not written for several networks"
    if trainer.get("precision") not in WHOLE:
        return f"trainer.precision={trainer['precision']}"
    for key, usual in USUAL.items():
        if trainer.get(key, usual) not in (usual, None):
            return f"trainer.{key}={trainer[key]}"
    theirs = trainer.get("callbacks") or []
    ours = (config.get("callbacks") or {}).values()
    for name in map(target, [*ours, *(theirs if isinstance(theirs, list) else [theirs])]):
        if name not in KNOWN:
            return f"{name} may look at an optimizer's steps"
    schedule = config.get("schedule")
    if not target(schedule).startswith(SCHEDULES) or any(name in canonical(schedule) for name in MOMENTUM):
        return f"schedule {target(schedule)} may move more than the rate"
    return None


def target(node: Any) -> str:
    """The class or function that a node of a configuration names."""
    return str(node.get("_target_") if isinstance(node, dict) else node)


def accelerated(config: dict[str, Any] | None) -> bool:
    """Whether a run is trained on something else than the CPU."""
    accelerator = config["trainer"].get("accelerator", "auto") if config else "cpu"
    if accelerator != "auto":
        return bool(accelerator != "cpu")
    import torch

    return torch.accelerator.is_available()


def named(group: Sequence[Job]) -> str:
    """A group by its jobs' numbers."""
    return " ".join(f"#{number}" for number, _ in group)


def train(
    hydra_context: HydraContext,
    config: DictConfig,
    task_function: TaskFunction,
    state: dict[Any, Any],
    launcher: int,
    group: Sequence[Job],
) -> list[tuple[int, JobReturn]]:
    """Run a group's jobs, each in a thread that waits for the others wherever its network learns; one alone as it is.

    Args:
        hydra_context: Hydra's.
        config: of the sweep.
        task_function: what a job runs.
        state: of Hydra's singletons in the launching process.
        launcher: that process's number.
        group: of jobs.

    Returns:
        of every job, its number and what came of it.
    """
    from handgrad import command
    from handgrad.meeting import Meeting
    from handgrad.population import learn

    setup_globals()
    Singleton.set_state(state)
    command.prepare()
    if os.getpid() != launcher:
        command.end_with_parent()
    meeting = Meeting(len(group), learn) if len(group) > 1 else None

    def run(job: Job) -> tuple[int, JobReturn]:
        number, overrides = job
        with meeting.attended() if meeting else nullcontext():
            cfg = hydra_context.config_loader.load_sweep_config(config, list(overrides))
            with open_dict(cfg):
                cfg.hydra.job.id = cfg.hydra.job.num = number
            return number, run_job(
                hydra_context=hydra_context,
                task_function=task_function,
                config=cfg,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )

    before = HydraConfig.instance().cfg
    try:
        if meeting is None:  # in this thread, as any launcher has it
            return [run(group[0])]
        with ThreadPoolExecutor(len(group)) as threads:
            running = [threads.submit(run, job) for job in group]
            try:
                ended, _ = wait(running, return_when=FIRST_EXCEPTION)
                return [each.result() for each in ended]
            except BaseException:  # a signal
                meeting.end()
                raise
    finally:
        HydraConfig.instance().cfg = before
