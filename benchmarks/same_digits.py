"""Bitwise regression test against another checkout: python benchmarks/same_digits.py CHECKOUT.

Trains fifteen small networks, the notebook's seven rows included, with this checkout's code and with the other's, on
1,280 training and 400 test images, with one thread and `matmul=default` (what `auto` chooses depends on version and
CPU). Compares metrics, history (without seconds), predictions, confusion matrices and weights. Exits with status 1 if a
bit differs. Three minutes on two cores.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from forks import ROOT, make_data, results_of

ROWS = [
    f"experiment=notebook_{row}"
    for row in (
        "manual-sigmoid-none",
        "manual-relu-none",
        "manual-tanh-none",
        "autograd-sigmoid-none",
        "autograd-sigmoid-l2",
        "autograd-relu-none",
        "autograd-relu-l2",
    )
]
OTHERS = [
    "engine=manual activation=tanh optimizer=sgd trainer.precision=64-true optimizer.lr=0.1",
    "engine=autograd activation=gelu optimizer=adam trainer.precision=64-true regularizer=l2",
    "engine=manual activation=silu optimizer=adam optimizer.lr=0.001 regularizer=l2",
    "engine=manual activation=softplus optimizer=grouped_sgd regularizer=l2 trainer.precision=64-true",
    "engine=manual activation=leaky_relu optimizer=factored_sgd optimizer.lr=0.1 schedule=warmup_cosine "
    "schedule.warmup_steps=5 data.val_size=100 regularizer=l2",
    "engine=autograd activation=tanh optimizer=sgd optimizer.lr=0.1 schedule=warmup data.val_size=100",
    "engine=manual activation=relu +trainer.gradient_clip_val=0.5 +trainer.accumulate_grad_batches=3",
    "engine=manual activation=gelu optimizer=sgd optimizer.lr=0.1 trainer.precision=bf16-true",
]
COMMON = ["threads=1", "matmul=default", "trainer.max_epochs=3", "logger=none", "hydra.run.dir=run"]


def left(folder: Path) -> dict[str, Any]:
    """Return everything a run wrote that two equal runs share."""
    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {key: record[key] for key in ("status", "name", "seed", "metrics", "epochs")} | results_of(folder)


def trained(checkout: Path, options: str, data: Path) -> dict[str, Any]:
    """Train a network with a checkout's code and return its results."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, checkout / "src" / "train.py", *COMMON, f"data.root={data}", *options.split()],
            cwd=home,
            env=os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{checkout}: {options}\n{done.stderr}")
        return left(Path(home, "run"))


def main(other: str) -> None:
    """Train every network twice and list what differs."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        data = Path(folder, "data")
        make_data(data)
        for options in [*ROWS, *OTHERS]:
            one, two = pool.map(lambda checkout, o=options: trained(checkout, o, data), (Path(other).absolute(), ROOT))
            differ = [name for name in one.keys() | two.keys() if one.get(name) != two.get(name)]
            wrong += bool(differ)
            print(f"{'differs: ' + ', '.join(sorted(differ)) if differ else 'the same':10} {options}", flush=True)
    print(f"{wrong} of {len(ROWS) + len(OTHERS)} differ")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
