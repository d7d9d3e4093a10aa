"""Oracle: the same run with one batch per call."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import Here, ended_at_scoring, record_of, words
from handgrad.data import BatchLoader, BlockLoader
from handgrad.modules import ManualModule

RUN = ["network.hidden_sizes=[30,20]", "activation=tanh", "trainer.max_epochs=3"]  # of 20 batches


def everything(folder: Path) -> dict[str, Any]:
    """All that a run leaves, but for its times."""
    found = {key: value for key, value in record_of(folder).items() if key in ("status", "metrics", "epoch", "step")}
    if (folder / "history.csv").exists():
        rows = csv.DictReader((folder / "history.csv").read_text(encoding="utf-8").splitlines())
        found["history"] = [{key: row[key] for key in row if key != "seconds"} for row in rows]
    if (folder / "predictions.csv").exists():
        found["predictions"] = (folder / "predictions.csv").read_bytes()
    if (folder / "checkpoints" / "last.ckpt").exists():
        saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        found["weights"] = {name: tensor.tolist() for name, tensor in saved["state_dict"].items()}
        found["optimizer"] = repr(saved["optimizer_states"]), repr(saved["lr_schedulers"]), saved["global_step"]
    board = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0})
    board.Reload()
    found["curves"] = {
        tag: [(event.step, event.value) for event in board.Scalars(tag) if math.isfinite(event.value)]
        for tag in board.Tags()["scalars"]
    }
    return found


def test_block_loader_serves_the_same_batches_and_the_last_one_alone(few: BatchLoader) -> None:
    loader = BatchLoader(few.images[:600], few.targets[:600], batch_size=64, seed=0)
    for block, sizes in ((4, [4, 4, 1, 1]), (3, [3, 3, 3, 1]), (50, [9, 1])):
        blocks = list(BlockLoader(loader, block))
        assert [len(some) for some in blocks] == sizes
        assert len(BlockLoader(loader, block)) == len(sizes)
        for ours, theirs in zip((batch for some in blocks for batch in some), loader, strict=True):
            assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize(
    "options",
    [
        "regularizer=l2 schedule=warmup schedule.total_iters=30",
        "optimizer=adam optimizer.lr=0.003 schedule=warmup_cosine schedule.warmup_steps=9",
        "optimizer=factored_sgd schedule=warmup_cosine schedule.warmup_steps=2 +trainer.accumulate_grad_batches=3",
        "optimizer=sgd +trainer.gradient_clip_val=0.1 +trainer.max_steps=33 trainer.precision=64-true",
        "schedule.total_iters=7 +trainer.max_steps=33 data.val_size=100 trainer.precision=bf16-mixed",
        "optimizer.lr=1e9 schedule.total_iters=1000 activation=relu",
    ],
    ids=["warm-up", "adam", "accumulated", "clipped", "cut", "diverged"],
)
@pytest.mark.usefixtures("undrawn")
def test_run_in_blocks_is_that_of_single_batches_bit_for_bit(
    here: Here, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    sound, calls = ManualModule.training_step, []

    def counted(module: ManualModule, batch: Any) -> None:
        calls.append(len(batch) if isinstance(batch, list) else 0)
        sound(module, batch)

    monkeypatch.setattr(ManualModule, "training_step", counted)
    left = []
    for block in (1, 7, 100):
        calls.clear()
        status, printed = here(*RUN, *words(options), f"data.block={block}", f"hydra.run.dir={block}")
        assert (status == 0) == ("1e9" not in options), printed
        assert max(calls) in {1: [0], 7: [7], 100: [18, 19]}[block]
        left.append(everything(Path(str(block))))
    assert left[0] == left[1] == left[2]
    assert left[0].get("step") or len(left[0]["curves"]) > 3


@pytest.mark.parametrize("block", [1, 7])
@pytest.mark.usefixtures("undrawn")
def test_run_in_blocks_goes_on_bit_for_bit(here: Here, block: int) -> None:
    assert here(*RUN, "data.block=1", "hydra.run.dir=whole")[0] == 0
    with ended_at_scoring(2):
        assert here(*RUN, f"data.block={block}", "hydra.run.dir=run")[0] == 143
    assert here(*RUN, f"data.block={block}", "hydra.run.dir=run")[0] == 0
    assert everything(Path("run")) == everything(Path("whole"))


@pytest.mark.parametrize(
    "options",
    [
        "engine=autograd",
        "+trainer.limit_train_batches=7",
        "+trainer.limit_train_batches=0.5",
        "+trainer.val_check_interval=5",
        "+trainer.overfit_batches=3",
        "+trainer.fast_dev_run=2",
        "callbacks=best_checkpoint data.val_size=100",
        "+trainer.callbacks=[{_target_: lightning.pytorch.callbacks.Timer}]",
    ],
)
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("undrawn")
def test_block_is_one_where_batches_are_counted_or_watched(
    here: Here, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("blocks are served")

    monkeypatch.setattr(BlockLoader, "__init__", refuse)
    status, printed = here("trainer.max_epochs=1", "data.block=7", "logger=none", *words(options))
    assert status == 0, printed
