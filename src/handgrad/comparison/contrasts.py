"""Contrasts of a factorial design: values of a key, interactions of two keys, and effects within values.

Two values of a key are compared by their means over the combinations of all other keys that both have.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

from handgrad.comparison.model import Contrast
from handgrad.comparison.table import Comparison

MOST_CELLS = 15  # most cells to compare in all pairs (105); beyond, only the best is compared with the others
MOST_VALUES = 7  # most values of a key to compare in all pairs (21)
Cells = Mapping[tuple[str, ...], int]  # indices of the cells by the values of the varying keys


def main_effects(comparison: Comparison, cells: Cells, best_first: Mapping[str, Sequence[str]]) -> list[Contrast]:
    """Return the contrasts of the values of every key, averaged over all other keys.

    Beyond MOST_VALUES values of a key only the first, the best, is compared with the others.
    """
    pairs = [(key, *pair) for key, values in best_first.items() for pair in chosen_pairs(values, MOST_VALUES)]
    return [each for key, a, b in pairs if (each := effect(comparison, cells, key, a, b))]


def effect(comparison: Comparison, cells: Cells, key: str, a: str, b: str, **given: str) -> Contrast | None:
    """Return the contrast of two values of a key, averaged over the cells that both have; None if they share none.

    `other` and `u`, if given, are another key and its value, to which the average is restricted.
    """
    fixed = {given["other"]: given["u"]} if given else {}
    both = shared(comparison, cells, {key: a} | fixed, {key: b} | fixed)
    if not both:
        return None
    plus, minus = zip(*both, strict=True)
    return Contrast("within" if given else "values", a, b, plus, minus, len(both), key, **given)


def interactions(comparison: Comparison, cells: Cells, best_first: Mapping[str, Sequence[str]]) -> list[Contrast]:
    """Return the contrasts that compare the effect of one key within two values of another.

    Keys of more than MOST_VALUES values are left out: hyper-parameter searches have no factorial design.
    """
    found = []
    for key, other in combinations(best_first, 2):
        if max(len(best_first[key]), len(best_first[other])) > MOST_VALUES:
            continue
        for (a, b), (u, v) in product(combinations(best_first[key], 2), combinations(best_first[other], 2)):
            fixed = [{key: one, other: two} for one, two in ((a, u), (b, u), (a, v), (b, v))]
            if four := shared(comparison, cells, *fixed):
                au, bu, av, bv = zip(*four, strict=True)
                found.append(Contrast("interaction", a, b, au + bv, bu + av, len(four), key, other, u, v))
    return found


def shared(comparison: Comparison, cells: Cells, *fixed: Mapping[str, str]) -> list[tuple[int, ...]]:
    """Return the indices of cells that are equal in all keys but the fixed ones, one for each mapping."""
    keys = comparison.varying
    free = [place for place, key in enumerate(keys) if key not in fixed[0]]
    groups: list[dict[tuple[str, ...], int]] = [
        {
            tuple(values[place] for place in free): number
            for values, number in cells.items()
            if all(values[keys.index(key)] == value for key, value in each.items())
        }
        for each in fixed
    ]
    return [tuple(group[rest] for group in groups) for rest in groups[0] if all(rest in group for group in groups)]


def chosen_pairs(names: Sequence[Any], most: int) -> list[tuple[Any, Any]]:
    """Return the pairs to compare: all, or with more than `most` names, the first with every other."""
    return list(combinations(names, 2)) if len(names) <= most else [(names[0], other) for other in names[1:]]
