"""Oracle: the other engine under the same options; any two of the usual options meet in at least one run."""

from pathlib import Path

import pytest
from allpairspy import AllPairs

from conftest import RunScript, ran, record_of, without_seconds, words

SCHEDULE = "{_target_: torch.optim.lr_scheduler.%s, _partial_: true, %s}"
FACTORS = {
    "precision": ["64-true", "32-true", "bf16-mixed", "64-true deterministic"],
    "batches": ["", "+trainer.limit_train_batches=7", "+trainer.limit_train_batches=0.5", "+trainer.max_steps=5"],
    "scoring": [
        "",
        "+trainer.val_check_interval=3",
        "+trainer.check_val_every_n_epoch=2",
        "data.val_size=100 trainer.num_sanity_val_steps=2 callbacks=best_checkpoint",
    ],
    "optimizer": [
        "optimizer=sgd optimizer.fused=false optimizer.lr=0.05 +optimizer.momentum=0.9 +optimizer.nesterov=true",
        "optimizer=adam optimizer._target_=torch.optim.AdamW optimizer.fused=false optimizer.lr=0.001",
        "optimizer=adam optimizer._target_=torch.optim.RMSprop ~optimizer.fused optimizer.lr=0.0003",
        "optimizer=factored_sgd optimizer.lr=0.05 optimizer.momentum=0.9",
    ],
    "schedule": [
        "schedule=constant",
        "schedule=warmup schedule.total_iters=4",
        "~schedule +schedule=" + SCHEDULE % ("OneCycleLR", "max_lr: 0.01, total_steps: null, cycle_momentum: false"),
        "~schedule +schedule=" + SCHEDULE % ("ReduceLROnPlateau", "patience: 0"),
    ],
    "clipping": ["", "+trainer.gradient_clip_val=0.5"],
    "accumulation": ["", "+trainer.accumulate_grad_batches=3"],
    "regularization": [
        "regularizer=l2",
        "regularizer=dropout regularizer.adversarial=0.5",
        "regularizer=smoothing regularizer.dropout=[0.1,0.2]",
        "regularizer=l2 skip=0.5",
    ],
    "watching": ["logger=none", "logger=csv +trainer.log_every_n_steps=2", "debug=profile"],
}
ENGINES = ("manual", "autograd")
CASES = [dict(zip(FACTORS, options, strict=True)) for options in AllPairs(list(FACTORS.values()))]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning warns about unusual options
@pytest.mark.parametrize("case", CASES, ids=[str(number) for number in range(len(CASES))])
def test_engines_agree_under_options_in_pairs(run_script: RunScript, case: dict[str, str]) -> None:
    precision, *deterministic = case["precision"].split()
    shared = ["trainer.max_epochs=2", "network.hidden_sizes=[30]", "network.init=pytorch"]
    shared += [f"trainer.precision={precision}", *(f"+trainer.{option}=true" for option in deterministic)]
    for factor in ("batches", "scoring", "schedule", "clipping", "accumulation", "regularization", "watching"):
        shared += words(case[factor])
    found = []
    for engine in ENGINES:
        optimizer = case["optimizer"]
        if engine == "autograd":  # autograd has no factored form of these steps
            optimizer = optimizer.replace("factored_sgd", "sgd optimizer.fused=false")
            optimizer = optimizer.replace(" optimizer.momentum", " +optimizer.momentum")
        ran(run_script, f"engine={engine}", *words(optimizer), *shared, f"hydra.run.dir={engine}")
        found.append(everything(Path(engine)))
    tolerance = {"64-true": 1e-9, "32-true": 1e-3, "bf16-mixed": 0.1}[precision]
    assert found[0] == pytest.approx(found[1], rel=tolerance, abs=tolerance)


def everything(folder: Path) -> dict[str, float]:
    """Return every number on which equivalent runs must agree."""
    record = record_of(folder)
    assert record["status"] == "completed"
    rows = without_seconds(folder)
    numbers = {f"{key} {row['epoch']}": float(value) for row in rows for key, value in row.items() if value}
    return {**numbers, **record["metrics"]}
