"""Metrics that cells can be compared by: unit, scale, and which direction is better."""

from collections.abc import Iterable
from dataclasses import dataclass

from handgrad.config import best_is
from handgrad.errors import UserError


@dataclass(frozen=True)
class Metric:
    """Metric of a run.

    column: its column in the table of runs.
    name: its name in sentences.
    unit: unit of a difference.
    of_value: suffix of a value.
    scale: factor from the table's numbers to the unit.
    digits: decimal places.
    higher_is_better: direction of improvement.
    margin: default equivalence margin, in the unit; None if there is none.
    of_learning: whether it measures learning, so that runs that did not learn enter no test of means.
    """

    column: str
    name: str
    unit: str
    of_value: str
    scale: float = 1.0
    digits: int = 2
    higher_is_better: bool = False
    margin: float | None = None
    of_learning: bool = True

    @property
    def sign(self) -> int:
        """Factor that makes higher values better."""
        return 1 if self.higher_is_better else -1

    @property
    def best(self) -> str:
        """The word for the best value."""
        return "highest" if self.higher_is_better else "lowest"

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest possible value, on the scale of the table."""
        if self.column == "gap":
            return -1.0, 1.0
        return 0.0, 1.0 if self.column.endswith("/accuracy") else float("inf")

    def number(self, value: float) -> str:
        """Format a value in its unit, without a minus before zero."""
        return f"{round(self.scale * value, self.digits) + 0.0:.{self.digits}f}"

    def difference(self, value: float) -> str:
        """Format a difference with its unit."""
        return f"{self.number(value)} {self.unit}"


def find_metric(name: str | None, scored: str, columns: Iterable[str]) -> Metric:
    """Return the metric of that name.

    Args:
        name: a column of the table of runs; "accuracy" and "loss" are the scored set's; None means accuracy.
        scored: the scored set, "test" or "val".
        columns: the columns of the table.

    Raises:
        UserError: the runs have no such metric.
    """
    gap = Metric("gap", f"gap (train minus {scored} accuracy)", "points", " points", 100)
    others = [
        Metric("seconds_per_epoch", "training time per epoch", "s", " s", of_learning=False),
        Metric("seconds", "time", "s", " s", digits=1, of_learning=False),
        Metric("peak_memory_mb", "peak memory", "MB", " MB", digits=0, of_learning=False),
    ]
    known = {"gap": gap} | {other.column: other for other in others}
    for column in columns:
        part, _, kind = column.partition("/")
        if best_is(column) == "max":
            known[column] = Metric(column, f"{part} accuracy", "points", " %", 100, higher_is_better=True, margin=0.2)
        elif kind == "loss":
            known[column] = Metric(column, f"{part} loss", "nats", " nats", digits=4)
    known = {column: one for column, one in known.items() if column in {"gap", *columns}}
    for short in ("accuracy", "loss"):
        if f"{scored}/{short}" in known:
            known[short] = known[f"{scored}/{short}"]
    if (wanted := "accuracy" if name is None else name) not in known:
        raise UserError(f"invalid value metric={wanted}: these runs have {', '.join(known)}")
    return known[wanted]
