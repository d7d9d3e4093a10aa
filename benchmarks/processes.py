"""Communication cost of data-parallel training by two processes: bytes and seconds per step.

Counts the bytes on the loopback interface (Linux) for two ways to combine the processes' gradients: gather the factors
(deltas and inputs), or multiply them out and all-reduce the gradients. Prints a CSV table.
"""

import csv
import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from torch import distributed
from torch.multiprocessing.spawn import spawn

from handgrad.nn.backprop import FactoredGradient
from handgrad.training.distributed import all_gather_factors, all_reduce_list

SIZES = (784, 500, 250, 100, 10)
BATCHES = (16, 32, 64, 128, 256, 512)  # per process
ROUNDS, STEPS = 5, 40


def carried() -> int:
    """Return the bytes that the loopback interface has carried so far."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.lstrip().startswith("lo:"))
    return int(line.split()[1])


def factors(batch: int) -> list[FactoredGradient]:
    """Return random gradient factors, a delta and an input for every layer."""
    return [
        FactoredGradient(torch.rand(batch, outputs), torch.rand(batch, inputs)) for inputs, outputs in pairwise(SIZES)
    ]


def by_factors(batch: int) -> Callable[[], object]:
    """Return a step that gathers the factors, then multiplies those of the whole batch."""
    mine = factors(batch)
    return lambda: [gradient.weight() for gradient in all_gather_factors(mine)]


def by_gradient(batch: int) -> Callable[[], object]:
    """Return a step that multiplies this process's factors, then sums the gradients."""
    mine = factors(batch)
    return lambda: all_reduce_list([gradient.weight() for gradient in mine])


def work(rank: int, processes: int, port: int) -> None:
    """Time both ways at every batch size, in one of the processes; rank 0 prints the table."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=processes)
    rows = []
    for batch in BATCHES:
        ways = {"factors": by_factors(batch), "gradient": by_gradient(batch)}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        sent = dict.fromkeys(ways, 0.0)
        for _ in range(ROUNDS):
            for name, step in ways.items():
                step()
                distributed.barrier()
                before, started = carried(), time.perf_counter()
                for _ in range(STEPS):
                    step()
                seconds[name].append((time.perf_counter() - started) / STEPS)
                distributed.barrier()
                sent[name] = (carried() - before) / STEPS / processes
        rows += [(batch, name, round(sent[name]), statistics.median(seconds[name])) for name in ways]
    distributed.destroy_process_group()
    if rank == 0:
        csv.writer(sys.stdout).writerows([("batch", "way", "bytes", "seconds"), *rows])


if __name__ == "__main__":
    spawn(work, (2, find_free_network_port()), 2)  # type: ignore[no-untyped-call]
