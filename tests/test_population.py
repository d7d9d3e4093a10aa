"""Oracle: the same run alone, by PyTorch's own optimizers and by the launcher that Hydra has; Adam by hand: torch's."""

import math
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import Parameter

from conftest import Here, ended_at_scoring, record_of, start, wait_for
from handgrad import backprop, loss
from handgrad.activation import Activation
from handgrad.data import BatchLoader
from handgrad.meeting import Meeting, clock
from handgrad.network import MLP
from handgrad.optim import FactoredSGD, adam_step, grouped_sgd, rates_of
from handgrad.population import Lesson, learn
from hydra_plugins.population import grouped
from test_activation import ACTIVATIONS
from test_blocks import everything

POPULATION = ["hydra/launcher=population", "hydra.launcher.processes=1"]
RUN = ["network.hidden_sizes=[30,20]", "trainer.precision=64-true", "logger=tensorboard"]
OPTIMIZERS: dict[str, Any] = {
    "factored_sgd": FactoredSGD,
    "notebook_sgd": partial(FactoredSGD, weight_reduction="sum"),
    "sgd": torch.optim.SGD,
    "grouped_sgd": partial(grouped_sgd, weight_factor=64),
    "adam": torch.optim.Adam,
    "adam, fused": partial(torch.optim.Adam, fused=True, betas=(0.8, 0.99), eps=1e-6),
}
RATES, DECAYS = (0.003, 0.001, 0.002), (0.0, 1e-3, 1e-4)


def close(ours: Any, theirs: Any) -> bool:
    """Whether all numbers are the same to the rounding of float64, and all else is equal."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(close(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    try:
        return math.isclose(float(ours), float(theirs), rel_tol=1e-6, abs_tol=1e-9) or ours == theirs
    except (TypeError, ValueError):
        return bool(ours == theirs)


@pytest.fixture(scope="module")
def batches(few: BatchLoader) -> list[list[tuple[Tensor, Tensor]]]:
    """Of three networks, 200 batches each, in an order of its own."""
    found: list[list[tuple[Tensor, Tensor]]] = [[], [], []]
    for number, its in enumerate(found):
        loader = BatchLoader(few.images, few.targets, batch_size=64, seed=number)
        for epoch in range(20):
            loader.sampler.set_epoch(epoch)
            its += [(x.double(), y.double()) for x, y in loader]
    return found


@pytest.mark.parametrize("phi", ACTIVATIONS, ids=lambda phi: type(phi).__name__)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_networks_learn_in_one_tensor_as_each_does_alone(
    batches: list[list[tuple[Tensor, Tensor]]], name: str, phi: Activation
) -> None:
    lessons, alone = [], []
    for seed, (rate, decay) in enumerate(zip(RATES, DECAYS, strict=True)):
        torch.manual_seed(seed)
        ours, theirs = MLP([12, 8]).double(), MLP([12, 8]).double()
        theirs.load_state_dict(ours.state_dict())
        lessons.append((ours, OPTIMIZERS[name](ours.named_parameters(), lr=rate), decay))
        alone.append((theirs, OPTIMIZERS[name](theirs.named_parameters(), lr=rate), decay))
    for first in range(0, 200, 40):  # what an optimizer remembers goes on
        these = [
            Lesson(network, optimizer, phi, decay, some[first : first + 40], [rates_of(optimizer, 64)] * 40)
            for (network, optimizer, decay), some in zip(lessons, batches, strict=True)
        ]
        losses = learn(these)
    assert [len(its) for its in losses] == [40, 40, 40]
    for (network, optimizer, decay), some in zip(alone, batches, strict=True):
        last = [step_alone(network, optimizer, phi, decay, x, y) for x, y in some][-40:]
        torch.testing.assert_close(torch.stack(losses.pop(0)), torch.stack(last), rtol=1e-11, atol=0)
    for (ours, kept, _), (theirs, remembered, _) in zip(lessons, alone, strict=True):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert float((one - other).detach().abs().max() / other.detach().abs().max()) < 1e-12
            assert kept.state[one].keys() == remembered.state[other].keys() - {"momentum_buffer"}
            for key, value in kept.state[one].items():
                torch.testing.assert_close(value, remembered.state[other][key], rtol=1e-9, atol=1e-18)


@torch.no_grad()
def step_alone(network: MLP, optimizer: Any, phi: Activation, decay: float, x: Tensor, y: Tensor) -> Tensor:
    """A batch's loss, and a step of torch's optimizer on its gradient multiplied out."""
    passed = backprop.forward(x, network.weights, network.biases, phi)
    log_p = loss.log_softmax(passed.logits)
    gradients = backprop.backward(loss.cross_entropy_delta(log_p, y), passed, network.weights, phi)
    if isinstance(optimizer, FactoredSGD):
        optimizer.step(gradients=gradients, decay=decay)
    else:
        for linear, gradient in zip(network.linear, gradients, strict=True):
            linear.weight.grad = gradient.weight() + decay * linear.weight
            linear.bias.grad = gradient.bias()
        optimizer.step()
    return loss.cross_entropy(log_p, y)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)], ids=str)
def test_adam_by_hand_is_torchs(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    theirs = Parameter(torch.randn(5, 4, generator=generator, dtype=dtype))
    ours, moments = theirs.detach().clone(), (torch.zeros(5, 4, dtype=dtype), torch.zeros(5, 4, dtype=dtype))
    optimizer = torch.optim.Adam([theirs], lr=0.01, betas=(0.8, 0.999))
    for step in range(1, 101):
        theirs.grad = torch.randn(5, 4, generator=generator, dtype=dtype)
        optimizer.step()
        rate, steps = torch.tensor(0.01, dtype=dtype), torch.tensor(float(step), dtype=dtype)
        adam_step(ours, theirs.grad, moments, rate, steps, betas=(0.8, 0.999), eps=1e-8)
        torch.testing.assert_close(ours, theirs.detach(), rtol=tolerance, atol=tolerance)


def test_adam_by_hand_in_a_first_step_goes_as_far_as_its_rate_by_hand() -> None:
    # m / (1 - 0.9) = g and v / (1 - 0.999) = g^2: the step is rate * g / |g|.
    weight = torch.tensor([1.0, 2.0])
    moments = torch.zeros(2), torch.zeros(2)
    rate, steps = torch.tensor(0.25), torch.tensor(1.0)
    adam_step(weight, torch.tensor([3.0, -5.0]), moments, rate, steps, betas=(0.9, 0.999), eps=0.0)
    torch.testing.assert_close(weight, torch.tensor([0.75, 2.25]))


@pytest.mark.parametrize(
    "options",
    [
        "seed=0,1 regularizer=l2 optimizer=adam schedule=warmup_cosine schedule.warmup_steps=9 +trainer.max_steps=33",
        "optimizer.lr=0.01,1e6 activation=leaky_relu callbacks=early_stopping data.val_size=100",
    ],
    ids=["adam", "one diverges"],
)
@pytest.mark.usefixtures("undrawn")
def test_population_leaves_what_its_runs_leave_alone(here: Here, options: str) -> None:
    expected, _ = here("-m", *RUN, *options.split(), "trainer.max_epochs=2", "hydra.sweep.dir=alone")
    together = ["trainer.max_epochs=2", "hydra.sweep.dir=together", *POPULATION]
    assert here("-m", *RUN, *options.split(), *together)[0] == expected
    folders = [sorted(file.parent for file in Path(name).glob("*/metrics.json")) for name in ("alone", "together")]
    assert [folder.name for folder in folders[0]] == [folder.name for folder in folders[1]]
    assert len(folders[0]) == 2
    assert [record_of(folder)["status"] == "diverged" for folder in folders[0]] == [False, "1e6" in options]
    for one, other in zip(*folders, strict=True):
        ours, theirs = everything(other), everything(one)
        for found in (ours, theirs):
            found["steps"] = found.pop("optimizer", (None,))[-1]
        assert close(ours, theirs), one
        files = [{path.relative_to(folder).as_posix() for path in folder.rglob("*.[cjyp]*")} for folder in (one, other)]
        assert files[0] == files[1]
        assert record_of(one)["config"] == record_of(other)["config"]


@pytest.mark.usefixtures("undrawn")
def test_run_alone_is_trained_as_without_the_launcher(here: Here) -> None:
    """With options that no population knows; and what is left over of a group, in float32."""
    options = "optimizer=sgd +optimizer.momentum=0.9 +trainer.gradient_clip_val=0.05 +trainer.accumulate_grad_batches=3"
    left_over = "seed=0,1,2 hydra.launcher.networks=2 trainer.precision=32-true"
    for name, these, number in (("options", options, 0), ("left over", left_over, 2)):
        rest = [word for word in [*RUN, *these.split(), "trainer.max_epochs=1"] if "launcher" not in word]
        assert here("-m", *rest, f"hydra.sweep.dir={name}/alone")[0] == 0
        theirs = [word for word in these.split() if "launcher" in word]
        assert here("-m", *rest, *POPULATION, *theirs, f"hydra.sweep.dir={name}/together")[0] == 0
        one, other = (next(Path(name, kind).glob(f"{number}_*")) for kind in ("alone", "together"))
        assert everything(one) == everything(other)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("hydra/job_logging=default", "hydra/job_logging writes a file of each process, not of each run"),
        ("+hydra.job.env_set.A=b", "hydra.job.env_set is one for a whole process"),
    ],
)
def test_what_a_process_has_but_once_keeps_its_runs_apart(here: Here, option: str, reason: str) -> None:
    sweep = ["-m", *RUN[:1], "logger=none", "seed=0,1", "trainer.max_epochs=1", *POPULATION, option]
    status, said = here(*sweep)
    assert status == 0
    assert f"Every run is trained alone: {reason}" in said
    assert "those of a group together: #0; #1" in said


@pytest.mark.usefixtures("undrawn")
def test_killed_population_goes_on_bit_for_bit(here: Here) -> None:
    sweep = ["-m", *RUN, *POPULATION, "seed=0,1", "optimizer=adam", "optimizer.lr=0.001", "trainer.max_epochs=3"]
    assert here(*sweep, "hydra.sweep.dir=whole")[0] == 0
    with ended_at_scoring(3):  # of two members: in the second epoch
        assert here(*sweep, "hydra.sweep.dir=killed")[0] == 143
    folders = sorted(path.parent for path in Path("killed").glob("*/metrics.json"))
    assert [record_of(folder)["reason"] for folder in folders] == ["interrupted"] * 2
    assert here(*sweep, "hydra.sweep.dir=killed")[0] == 0
    for folder in folders:
        assert everything(folder) == everything(Path("whole", folder.name))


def test_signal_ends_every_member(tmp_path: Path, small: Path) -> None:
    sweep = ["-m", "hydra/launcher=population", "seed=range(0,4)", "trainer.max_epochs=400", "hydra.sweep.dir=sweep"]
    options = ["network.hidden_sizes=[20]", "logger=none"]
    process = start(tmp_path, small, *sweep, *options)
    wait_for(tmp_path, "sweep/*/checkpoints/last.ckpt", count=4)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert "interrupted (SIGTERM)" in process.communicate()[1]
    folders = [path.parent for path in (tmp_path / "sweep").glob("*/metrics.json")]
    deadline = time.monotonic() + 20
    while any(record_of(folder)["status"] == "running" for folder in folders):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert [record_of(folder)["reason"] for folder in folders] == ["interrupted"] * 4


def test_signal_ends_a_member_that_waits_for_another_process(tmp_path: Path, small: Path) -> None:
    sweep = ["-m", *POPULATION, "seed=0,1", "trainer.max_epochs=4000", "optimizer.lr=0.001", "hydra.sweep.dir=sweep"]
    (tmp_path / "sweep" / "s0").mkdir(parents=True)
    with FileLock(tmp_path / "sweep" / "s0" / ".lock"):
        process = start(tmp_path, small, *sweep, *RUN[:1], "logger=none", "hydra.sweep.subdir=s${seed}")
        wait_for(tmp_path, "sweep/s1/checkpoints/last.ckpt")  # the other goes on meanwhile
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert record_of(tmp_path / "sweep" / "s1")["reason"] == "interrupted"
    process.communicate()


def test_jobs_are_grouped_where_they_differ_only_in_seed_rate_and_strength(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    def job(engine: str = "Manual", seed: int = 0, strength: float = 0.0, **others: Any) -> dict[str, Any]:
        optimizer = {"_target_": "torch.optim.Adam", "lr": 0.1 * (seed + 1)} | others.pop("optimizer", {})
        return {
            "engine": {"_target_": f"handgrad.modules.{engine}Module"},
            "optimizer": optimizer,
            "regularizer": {"_target_": "handgrad.regularizer.L2", "strength": strength},
            "callbacks": others.pop("group", None),
            "schedule": others.pop("schedule", {"_target_": "torch.optim.lr_scheduler.LinearLR"}),
            "trainer": {"devices": 1, "precision": "32-true"} | others,
            "seed": seed,
            "name": f"run-{seed}",
        }

    settings: list[dict[str, Any] | None] = [
        job(seed=0),
        job(seed=1, strength=1e-3),
        job("Autograd", seed=2),
        job(seed=3),
        job(seed=4, max_epochs=3),
        job(seed=5, max_epochs=3),
        job(seed=6, gradient_clip_val=1.0),
        job(seed=7, optimizer={"amsgrad": True}),
        job(seed=8, precision="bf16-mixed"),
        job(seed=0),
        None,
        job(seed=9),
        job(seed=10, accumulate_grad_batches=2),
        job(seed=11, optimizer={"_target_": "torch.optim.RMSprop"}),
        job(seed=12, devices=2),
        job(seed=13, fast_dev_run=True),
        job(seed=14, strategy="ddp"),
        job(seed=15, callbacks=["their.Watcher"]),
        job(seed=16, group={"theirs": {"_target_": "their.Averaging"}}),
        job(seed=17, schedule={"_target_": "torch.optim.lr_scheduler.OneCycleLR"}),
        job(seed=18, gradient_clip_val=0, accumulate_grad_batches=1, strategy="auto", callbacks=[]),
        job(seed=19, max_time="00:00:00:03"),
        job(seed=20, profiler="simple"),
        job(seed=21, profiler={"_target_": "handgrad.callbacks.NoProfiler"}),
        job("their.handgrad.modules.Noisy", seed=22),
        job(seed=23, schedule={"_target_": "their.cycle"}),
        {key: value for key, value in job(seed=24).items() if key != "callbacks"},
        job(seed=25) | {"optimizer": {"lr": 0.1}},
    ]
    groups = grouped([(number, []) for number in range(len(settings))], dict(enumerate(settings)), most=3)
    assert [[number for number, _ in group] for group in groups] == [
        *([0, 1, 3], [11], [2], [4, 5], [6], [7], [8], [9], [10], [12], [13], [14], [15]),
        *([16], [17], [18], [19], [20], [21], [22], [23], [24], [25], [26], [27]),
    ]
    said = caplog.text
    for sentence in (
        "#2 is trained alone: its gradients are not by hand",
        "#6 is trained alone: trainer.gradient_clip_val=1.0",
        "#7 is trained alone: optimizer torch.optim.Adam with _target_, lr, amsgrad is not written",
        "#8 is trained alone: trainer.precision=bf16-mixed",
        "#9 is trained alone: it stands twice",
        "#10 is trained alone: its configuration cannot be",
        "#12 is trained alone: trainer.accumulate_grad_batches=2",
        "#13 is trained alone: optimizer torch.optim.RMSprop",
        "#14 is trained alone: trainer.devices=2",
        "#15 is trained alone: trainer.fast_dev_run=True",
        "#16 is trained alone: trainer.strategy=ddp",
        "#17 is trained alone: their.Watcher may look at an optimizer's steps",
        "#18 is trained alone: their.Averaging may look",
        "#19 is trained alone: schedule torch.optim.lr_scheduler.OneCycleLR may move more than the rate",
        "#20 is trained alone: no other run differs from it only in seed, rate and strength",
        "#21 is trained alone: trainer.max_time=00:00:00:03",
        "#22 is trained alone: trainer.profiler=simple",
        "#23 is trained alone: no other run differs",
        "#24 is trained alone: its gradients are not by hand, or not by ours",
        "#25 is trained alone: schedule their.cycle may move",
        "#26 is trained alone: no other run differs",
        "#27 is trained alone: optimizer None with lr",
    ):
        assert sentence in said
    assert said.count("is trained alone") == 22


@pytest.mark.parametrize("option", ["networks=0", "processes=-1", "networks=many", "processes=1.5"])
def test_a_number_of_networks_that_cannot_be_is_one_sentence(here: Here, tmp_path: Path, option: str) -> None:
    status, said = here("-m", "hydra/launcher=population", f"hydra.launcher.{option}", "seed=0,1")
    assert status == 1
    assert said == f"hydra.launcher.{option} cannot be: it should be a number from 1 on, or null\n"
    assert not list(tmp_path.rglob("metrics.json"))


def in_meeting(work: Any, *runs: Any) -> list[Any]:
    """What every run returned or raised."""
    meeting = Meeting(len(runs), work)

    def attend(run: Any) -> Any:
        with meeting.attended():
            try:
                return run(meeting)
            except (Exception, SystemExit) as error:
                return error

    with ThreadPoolExecutor(len(runs)) as threads:
        return [each.result(timeout=20) for each in [threads.submit(attend, run) for run in runs]]


def test_runs_meet_as_often_as_they_ask_and_those_that_leave_are_not_waited_for() -> None:
    asked = []

    def work(numbers: Sequence[int]) -> list[int]:
        asked.append(sorted(numbers))
        return [10 * number for number in numbers]

    def run(number: int, times: int, meeting: Meeting) -> list[int]:
        return [meeting.ask(number + time) for time in range(times)]

    found = in_meeting(work, partial(run, 1, 3), partial(run, 5, 1), partial(run, 7, 2))
    assert found == [[10, 20, 30], [50], [70, 80]]
    assert asked == [[1, 5, 7], [2, 8], [3]]


def test_a_failure_of_the_common_work_reaches_every_run() -> None:
    def work(_: Sequence[int]) -> list[int]:
        raise MemoryError("no room")

    found = in_meeting(work, *[lambda meeting: meeting.ask(1)] * 3)
    assert [str(error) for error in found] == ["no room"] * 3


def test_a_run_that_waits_for_something_else_is_not_waited_for() -> None:
    free = threading.Event()

    def waits(meeting: Meeting) -> int:
        with meeting.away():
            assert free.wait(20)
        return int(meeting.ask(1))

    def goes_on(meeting: Meeting) -> int:
        answer = int(meeting.ask(2))
        free.set()
        return answer

    assert in_meeting(lambda numbers: numbers, waits, goes_on) == [1, 2]


def test_an_ended_meeting_sends_everyone_home() -> None:
    def work(numbers: Sequence[int]) -> Sequence[int]:
        return numbers

    meeting = Meeting(3, work)

    def attend() -> None:
        with meeting.attended():
            while True:
                meeting.ask(1)

    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(attend) for _ in range(3)]
        meeting.end()
        assert [type(each.exception(timeout=20)) for each in running] == [SystemExit] * 3


def test_a_runs_clock_leaves_out_what_it_waits_for_others() -> None:
    def run(seconds: float, meeting: Meeting) -> float:
        began = clock()
        for _ in range(2):
            time.sleep(seconds)
            meeting.ask(None)
        return clock() - began

    def work(questions: Sequence[None]) -> Sequence[None]:
        time.sleep(0.3)
        return questions

    began = time.perf_counter()
    slow, fast = in_meeting(work, partial(run, 0.2), partial(run, 0.0))
    whole = time.perf_counter() - began
    # Each has its own time and half of the common one; a busy machine only adds to that.
    assert 0.7 <= slow <= whole
    assert 0.3 <= fast < slow
    assert slow + fast <= whole + 0.2
