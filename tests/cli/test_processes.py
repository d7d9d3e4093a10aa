"""Oracle: a single process trained on batches of the same examples; float64."""

import math
import os
import signal
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from omegaconf import DictConfig
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from conftest import RunScript, compose, record_of, start, wait_for
from handgrad.training.build import assemble

PROCESSES = 2
BATCH = 64  # total over all processes
WAYS: list[tuple[str, ...]] = [
    ("engine=manual", f"optimizer={name}") for name in ("notebook_sgd", "factored_sgd", "adam")
]
WAYS += [("engine=autograd", f"optimizer={name}") for name in ("adam", "sgd")]
PENALTIES = ("none", "l2")
DEFORMED = {"sigmoid": "none", "relu": "elastic", "tanh": "none"}
# Every engine and optimizer twice, with different activations and penalties.
CASES = [(("sigmoid", "relu", "tanh")[n % 3], PENALTIES[n % 2], WAYS[n % 5]) for n in range(10)]
BY_HAND, BY_AUTOGRAD = ("engine=manual", "optimizer=factored_sgd"), ("engine=autograd", "optimizer=sgd")
NESTEROV = ("optimizer.momentum=0.9", "optimizer.nesterov=true")
CASES += [
    ("relu", "dropout", (*BY_HAND, *NESTEROV)),
    ("tanh", "dropout", (*BY_AUTOGRAD, "skip=0.8")),
    ("relu", "adversarial", BY_HAND),
    ("tanh", "adversarial", BY_AUTOGRAD),
    ("tanh", "none", ("engine=manual", "optimizer=notebook_sgd", "skip=0.8")),
]
HELD_OUT = {"none": 11}  # else 63: the last batch has 53 images, or 1, which leaves one process without any


class Replica(Callback):
    """Callback that copies this process's weights after every epoch."""

    def __init__(self) -> None:
        self.kept: list[list[Tensor]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.kept.append([parameter.detach().clone() for parameter in pl_module.parameters()])


def composed(tiny_mnist: Path, *overrides: str) -> DictConfig:
    """Compose the real configuration: three epochs of 20 steps, the last batch of each smaller."""
    usual = [f"data.root={tiny_mnist}", "logger=none", "network.hidden_sizes=[30,20,10]", "trainer.precision=64-true"]
    usual += ["trainer.accelerator=cpu", "trainer.max_epochs=3", "name=x", "schedule=constant"]
    return compose(*usual, *overrides)


def trained(cfg: DictConfig, folder: Path, processes: int) -> dict[str, Any]:
    """Train and score on batches of 64 images in total over all processes."""
    cfg.data.batch_size, cfg.trainer.devices = BATCH // processes, processes
    trainer, module, data, history = assemble(cfg, folder, show_progress=False)
    replica = Replica()
    cast(Any, trainer).callbacks.insert(0, replica)
    trainer.precision_plugin.convert_module(module)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    return {
        "steps": trainer.global_step,
        "replicas": replica.kept,
        "losses": [row["train/loss"] for row in history.rows],
        "numbers": [module.metrics_of(module.test_sets), *({**row, "seconds": 0.0} for row in history.rows)],
        "counts": [module.scores_of(name).confusion_matrix() for name in module.test_sets],
        "logits": torch.cat(module.test_logits),
    }


def work(rank: int, port: int, folder: Path, configs: list[DictConfig]) -> None:
    """Run every case in turn in one of the processes and save the results."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
    torch.save([trained(cfg, folder, PROCESSES) for cfg in configs], folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def results(tiny_mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """Results of every case: from a single process, then from each of two processes."""
    folder = tmp_path_factory.mktemp("together")
    configs = [
        composed(
            tiny_mnist,
            f"activation={phi}",
            f"regularizer={penalty}",
            f"data.val_size={HELD_OUT.get(penalty, 63)}",
            f"data/deform={DEFORMED[phi]}",
            *way,
        )
        for phi, penalty, way in CASES
    ]
    start_processes(  # type: ignore[no-untyped-call]
        work, (find_free_network_port(), folder, configs), PROCESSES, start_method="forkserver"
    )
    together = [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]
    return [[trained(cfg, folder, 1), *both] for cfg, *both in zip(configs, *together, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(CASES)), ids=["-".join((a, r, *w)) for a, r, w in CASES])
def test_two_processes_equal_one_of_twice_the_batch(results: list[list[dict[str, Any]]], case: int) -> None:
    alone, first, second = results[case]
    assert alone["steps"] == first["steps"] == second["steps"] == 60
    for after_epoch in zip(first["replicas"], second["replicas"], strict=True):
        torch.testing.assert_close(*after_epoch, rtol=0, atol=0)
    for found in (first, second):
        torch.testing.assert_close(found["replicas"], alone["replicas"], rtol=0, atol=1e-10)
        torch.testing.assert_close(found["logits"], alone["logits"], rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(found["losses"], alone["losses"], rtol=0, atol=1e-10)
        torch.testing.assert_close(found["numbers"], alone["numbers"], rtol=0, atol=1e-6)  # summed in float32
        assert all(a.equal(b) for a, b in zip(found["counts"], alone["counts"], strict=True))


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_resumed_run_of_two_processes_leaves_the_files_of_one(
    run_script: RunScript, tiny_mnist: Path, tmp_path: Path
) -> None:
    usual = ("trainer.max_epochs=6", "trainer.precision=64-true", "+trainer.log_every_n_steps=5")
    together = (*usual, "trainer.devices=2", "data.batch_size=32", "hydra.run.dir=together")
    process = start(tmp_path, tiny_mnist, *together)
    wait_for(tmp_path, "together/history.csv")
    process.terminate()
    output = "".join(process.communicate(timeout=60))  # returns once the helper has closed its output too
    assert process.returncode == 143
    assert "Traceback" not in output
    assert record_of(tmp_path / "together")["status"] == "running"

    process = start(tmp_path, tiny_mnist, *together)
    output = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, output
    assert output.count("epoch 6/6") == 1
    assert run_script(*usual, "hydra.run.dir=alone")[0] == 0
    record, expected = (record_of(tmp_path / name) for name in ("together", "alone"))
    for name, value in expected["metrics"].items():
        assert math.isclose(record["metrics"][name], value, rel_tol=1e-5), name
    for name in ("confusion_train.csv", "confusion_test.csv", "predictions.csv"):
        assert (tmp_path / "together" / name).read_text() == (tmp_path / "alone" / name).read_text(), name
    left = {path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").rglob("*.*")}
    assert {path for path in left if "tfevents" not in path.name} == {
        path.relative_to(tmp_path / "together")
        for path in (tmp_path / "together").rglob("*.*")
        if "tfevents" not in path.name
    }


@pytest.mark.slow
def test_death_of_a_helper_ends_the_run_in_one_sentence(tiny_mnist: Path, tmp_path: Path) -> None:
    for run in ("first", "second", "third"):
        process = start(tmp_path, tiny_mnist, "trainer.devices=2", f"hydra.run.dir={run}", "trainer.max_epochs=1000")
        wait_for(tmp_path, f"{run}/history.csv")
        helpers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(helpers[-1]), signal.SIGKILL)
        output = "".join(process.communicate(timeout=60))
        if process.returncode != -signal.SIGKILL:  # Lightning looks every 5 s, and kills the others if it comes first
            break
    assert process.returncode == 1
    assert "a process of the distributed training has ended" in output
    assert "Traceback" not in output
    assert record_of(tmp_path / run)["status"] == "failed"
