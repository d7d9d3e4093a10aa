"""Scored images: runs whose scores are of different images are not compared."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from handgrad.runs.folder import PREDICTIONS
from handgrad.runs.tables import RunTables
from handgrad.text import format_value, join_names

# Settings that choose the scored images; a validation set also depends on how many images are held out.
OF_A_FILE = ("data.sha256", "data.test_size", "data.split_seed", "data.test_column")
CHOOSING = ("data", "data.dataset", *OF_A_FILE, "trainer.limit_test_batches")
CHOOSING_VAL = (*CHOOSING, "data.val_size")


def on_same_images(
    records: Sequence[Mapping[str, Any]], tables: Sequence[RunTables], scored: str
) -> tuple[list[int], list[str]]:
    """Choose the largest group of runs that were scored on the same images.

    Runs are of the same images if the true classes in `predictions.csv` are the same; where it is missing, if the
    settings that choose the images are. Runs that are not completed have no scores and always stay.

    Returns:
        which runs are in the group; a sentence about the others.
    """
    names = CHOOSING if scored == "test" else CHOOSING_VAL
    settings = [tuple(str(record["settings"].get(name)) for name in names) for record in records]
    truths = {
        chosen: mine.truth.tobytes() for chosen, mine in zip(settings, tables, strict=True) if mine.truth is not None
    }
    images: list[Hashable] = []
    for record, chosen, mine in zip(records, settings, tables, strict=True):
        truth = mine.truth.tobytes() if mine.truth is not None else truths.get(chosen, chosen)
        images.append(truth if record["status"] == "completed" else None)
    counts = Counter(each for each in images if each is not None)
    if len(counts) < 2:
        return list(range(len(records))), []
    ((most, _),) = counts.most_common(1)  # of equally large groups, the first
    kept = [number for number, each in enumerate(images) if each in (most, None)]
    others = [record for record, each in zip(records, images, strict=True) if each not in (most, None)]
    inside = [records[number]["settings"] for number in kept]
    texts = {name: {format_value(row.get(name)) for row in inside} for name in names}
    outside = {(name, format_value(record["settings"].get(name))) for record in others for name in names}
    alike = {name for name, text in outside if text in texts[name]}
    differ = {f"{name}={text}" for name, text in outside if name not in alike}
    by = f" ({join_names(sorted(differ), 4)})" if differ else f", by their {PREDICTIONS}"
    runs = join_names([record["folder"].name for record in others], 8)
    return kept, [
        f"Left out: {len(others)} of {len(records)} runs were scored on other images{by}: {runs}. "
        "Choose them by where=... to compare them with each other."
    ]


def without_predictions(runs: Sequence[str], statuses: Sequence[str], tables: Sequence[RunTables]) -> list[str]:
    """Say which completed runs cannot be tested image by image."""
    rows = zip(runs, statuses, tables, strict=True)
    completed = [(run, mine) for run, status, mine in rows if status == "completed"]
    missing = [run for run, mine in completed if mine.truth is None]
    if len(missing) in (0, len(completed)):
        return []
    return [f"Not tested image by image: {join_names(missing, 8)}, without a usable {PREDICTIONS}."]
