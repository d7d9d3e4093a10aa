"""Statistical model of a sweep: a mean per cell, an effect per seed, and variances shared between cells.

Two tests judge every contrast of cell means and share its error rate: a t-test on the contrast's own seeds, which
assumes nothing about other cells, and a t-test with the sweep's spread, which needs only two seeds. The more seeds,
the larger the own test's share. `benchmarks/calibration.py` chose the constants; docs/statistics.md explains them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
ALPHA = 1 - LEVEL
EPSILON = 1e-12  # smaller differences, relative to the values, are rounding errors
FRACTION, CAP = 0.36, 0.8  # shares of the sweep's degrees of freedom that one cell and any contrast may count on
LEAST_CELLS = 4  # fewer cells have too few variances to share
WILD = 2.2  # ratio of a cell's variance to the sweep's from which the cell's counts more than once


@dataclass(frozen=True)
class Contrast:
    """Mean of some cells minus the mean of others; of an interaction, the difference of two such differences.

    kind: "cells", "values" (of a key), "interaction" or "within" (the effect of a key within one value of another).
    a, b: what is compared: names of cells, or values of `key`.
    plus, minus: indices of the cells that count positively and negatively, in pairs that are alike in all other keys;
        without `minus`, the contrast is a mean.
    cells: number of cells that are averaged.
    key: the key whose values are compared; empty for cells.
    other: the second key of an interaction, or the key whose value is fixed.
    u, v: its two values; for "within", u is the fixed one.
    """

    kind: str
    a: str
    b: str
    plus: tuple[int, ...]
    minus: tuple[int, ...]
    cells: int = 1
    key: str = ""
    other: str = ""
    u: str = ""
    v: str = ""

    def row(self) -> dict[str, Any]:
        """Return all fields but the cells' indices."""
        return {name: value for name, value in vars(self).items() if name not in ("plus", "minus")}


@dataclass(frozen=True)
class Spread:
    """Variance of one run in each cell, at least the sweep's.

    variance: (C,) variances; NaN for a cell without two runs.
    df: degrees of freedom of the sweep's variance; 0 without any.
    seeds: variance that a seed adds to all of its runs, and its degrees of freedom.
    """

    variance: np.ndarray
    df: float
    seeds: tuple[float, float] = (0.0, 0.0)

    def of_mean(self, parts: np.ndarray, seeds: float = 0.0) -> tuple[float, float]:
        """Return standard error and degrees of freedom of a sum of variances (Welch and Satterthwaite).

        Args:
            parts: each cell's part of the variance.
            seeds: the factor of the variance that seeds add.
        """
        common, df = self.seeds[0] * seeds, self.seeds[1]
        total = parts.sum() + common
        if not total > 0 or not self.df:
            return np.nan, 0.0
        uncertain = (parts**2).sum() / (FRACTION * self.df) + (common**2 / df if common else 0.0)
        return total**0.5, min(total**2 / uncertain, CAP * self.df)


@dataclass(frozen=True)
class Model:
    """Values of a sweep's runs.

    values: (S, C) one value per seed and cell, NaN where there is none.
    paired: whether equal seeds share their random numbers, so that cells are compared seed by seed.
    """

    values: np.ndarray
    paired: bool = True

    @cached_property
    def means(self) -> np.ndarray:
        """(C,) mean of each cell; NaN without a value."""
        there = ~np.isnan(self.values)
        return np.asarray(
            np.where(there.any(axis=0), np.nansum(self.values, axis=0) / np.maximum(there.sum(axis=0), 1), np.nan)
        )

    @cached_property
    def rounding(self) -> float:
        """Size of rounding errors."""
        return float(EPSILON * np.nanmax(np.abs(self.values), initial=0.0, where=~np.isnan(self.values)))

    @cached_property
    def within_seeds(self) -> Spread:
        """Spread around cell means and seed effects."""
        return spread_of(self.values, by_seed=True, rounding=self.rounding)

    @cached_property
    def across_seeds(self) -> Spread:
        """Spread around cell means, where seeds have no effect of their own or share no cells."""
        return spread_of(self.values, by_seed=False, rounding=self.rounding)

    def test(self, contrasts: Sequence[Contrast], margin: float | None = None) -> pd.DataFrame:
        """Estimate and test contrasts of cell means.

        Args:
            contrasts: the contrasts.
            margin: equivalence margin; None: no test of equivalence.

        Returns:
            a row per contrast: difference; low and high (95 % interval), p; p_equal, of two one-sided tests; spread,
            the standard deviation of one seed's difference by the sweep's spread; df; test; n, the seeds used;
            identical, whether every pair of cells agrees seed by seed; least and most, the smallest and the
            largest difference of a pair, and their indices in `plus`. NaN where nothing can be inferred.
        """
        estimates = pd.DataFrame([self.estimate(contrast) for contrast in contrasts], columns=ESTIMATE)
        return judge(estimates, margin, self.rounding)

    def usable(self, contrast: Contrast) -> Contrast:
        """Return a contrast without the pairs of cells that share fewer than two seeds, if any pair shares more."""
        if not self.paired or contrast.cells == 1:
            return contrast
        each = self.values[:, list(contrast.plus)] - self.values[:, list(contrast.minus)]
        good = (~np.isnan(each)).sum(axis=0).reshape(-1, contrast.cells).min(axis=0) > 1
        if good.all() or not good.any():
            return contrast
        kept = np.tile(good, len(contrast.plus) // contrast.cells)
        plus, minus = (tuple(np.array(side)[kept].tolist()) for side in (contrast.plus, contrast.minus))
        return replace(contrast, plus=plus, minus=minus, cells=int(good.sum()))

    def estimate(self, contrast: Contrast) -> dict[str, Any]:
        """Estimate one contrast: pair by pair within the seeds that both cells have, or across seeds."""
        plus, minus = list(contrast.plus), list(contrast.minus)
        if self.paired and minus:
            each = self.values[:, plus] - self.values[:, minus]
            if np.isnan(each).all(axis=0).any() or (n := (~np.isnan(each)).sum(axis=0)).min() < 2:
                return self.estimate_across(contrast)
            means, parts = np.nanmean(each, axis=0), self.within_seeds.variance
            error, df = self.within_seeds.of_mean(
                np.concatenate([parts[plus] / n, parts[minus] / n]) / contrast.cells**2
            )
            complete = each[~np.isnan(each).any(axis=1)].sum(axis=1) / contrast.cells
            own = complete.std(ddof=1) / len(complete) ** 0.5 if len(complete) == n.max() else np.nan
            found = {"difference": means.sum() / contrast.cells, "own_error": own, "own_df": n.min() - 1.0}
            found |= {"identical": bool(np.nanmax(np.abs(each)) <= self.rounding), "test": "paired t", "n": n.min()}
            return found | {"error": error, "df": df} | extremes(means)
        return self.estimate_across(contrast)

    def estimate_across(self, contrast: Contrast) -> dict[str, Any]:
        """Estimate one contrast across seeds: of each side, over the seeds that all of its cells have."""
        sides = [list(side) for side in (contrast.plus, contrast.minus) if side]
        known = [self.values[:, side][~np.isnan(self.values[:, side]).any(axis=1)] for side in sides]
        means = [self.means[side] for side in sides]
        difference = means[0].sum() - (means[1].sum() if len(sides) > 1 else 0.0)
        found = {"difference": difference / contrast.cells, "test": "none", "n": min(map(len, known))}
        found |= {"identical": False} | (extremes(means[0] - means[1]) if len(sides) > 1 else {})
        if found["n"] < 2:
            return found
        rows = [each.mean(axis=1) * each.shape[1] / contrast.cells for each in known]
        found["difference"] = rows[0].mean() - (rows[1].mean() if len(rows) > 1 else 0.0)
        own = np.array([row.var(ddof=1) / len(row) for row in rows])
        df = own.sum() ** 2 / (own**2 / [len(row) - 1 for row in rows]).sum() if own.any() else found["n"] - 1.0
        found |= {"own_error": own.sum() ** 0.5, "own_df": df, "test": "Welch t"}
        if self.paired and self.within_seeds.df:
            spread, weights = self.within_seeds, [len(side) / contrast.cells for side in sides]
            parts = [
                spread.variance[side] / contrast.cells**2 / len(row) for side, row in zip(sides, rows, strict=True)
            ]
            common = sum(weight**2 / len(row) for weight, row in zip(weights, rows, strict=True))
            error, df = spread.of_mean(np.concatenate(parts), common)
        else:  # seeds may have effects that cannot be told from the cells': at most, all of a side's runs vary as one
            spread = self.across_seeds
            sums = [np.sqrt(spread.variance[side]).sum() / contrast.cells for side in sides]
            error, df = spread.of_mean(np.array([each**2 / len(row) for each, row in zip(sums, rows, strict=True)]))
        return found | {"error": error, "df": df}


ESTIMATE = ["difference", "own_error", "own_df", "error", "df", "test", "n", "identical", "least", "least_at", "most"]
ESTIMATE += ["most_at"]


def extremes(each: np.ndarray) -> dict[str, Any]:
    """Return the smallest and the largest of several differences, and their indices."""
    low, high = int(each.argmin()), int(each.argmax())
    return {"least": each[low], "least_at": low, "most": each[high], "most_at": high}


def spread_of(values: np.ndarray, by_seed: bool, rounding: float) -> Spread:
    """Estimate every cell's variance: the larger of its own and the sweep's, which all cells share.

    A cell more than WILD times as variable as the sweep counts as more variable than it seems: with few seeds its own
    variance is uncertain, and it would be judged by that alone.

    Args:
        values: (S, C) one value per seed and cell, NaN where there is none.
        by_seed: whether seeds have effects common to all cells.
        rounding: size of rounding errors.

    Source: least squares by singular values, leverages of the hat matrix; the floor: docs/statistics.md.
    """
    known = ~np.isnan(values)
    if by_seed:
        known = known & (known.sum(axis=1) > 1)[:, None]  # a seed of one cell says nothing about spread
    seeds, cells = np.nonzero(known)
    none = Spread(np.full(values.shape[1], np.nan), 0.0)
    if not len(seeds):
        return none
    groups = [(cells, np.unique(cells)), (seeds, np.unique(seeds))][: 1 + by_seed]
    design = np.hstack([np.equal.outer(each, names).astype(float) for each, names in groups])
    left, sizes, right = np.linalg.svd(design, full_matrices=False)
    rank = int((sizes > 1e-9 * sizes[0]).sum())
    left, y = left[:, :rank], values[seeds, cells]
    along = left.T @ y
    residuals, leverage = y - left @ along, (left**2).sum(axis=1)
    squares, df = (np.bincount(cells, each, values.shape[1]) for each in (residuals**2, 1 - leverage))
    there = df > 1e-6
    total = df[there].sum()
    if there.sum() < LEAST_CELLS or squares.sum() <= total * rounding**2:
        return none
    common = squares.sum() / total
    own = np.divide(squares, df, out=np.full(len(df), np.nan), where=there)
    variance = np.maximum(own, common) * np.maximum(1, own / (WILD * common)) ** 2
    if not by_seed:
        return Spread(variance, total)
    effects = (right[:rank].T @ (along / sizes[:rank]))[len(groups[0][1]) :]
    return Spread(variance, total, (float(effects.var(ddof=1)), len(effects) - 1.0))


def judge(estimates: pd.DataFrame, margin: float | None, rounding: float) -> pd.DataFrame:
    """Combine the own test and the sweep's test of every contrast.

    Source: Student's t-test; two one-sided tests (Schuirmann, 1987); weighted Bonferroni correction of the two tests.
    """
    numbers = estimates.drop(columns="test").astype(float)
    d, n, own = numbers.difference.to_numpy(), numbers.n.to_numpy(), own_share(numbers, rounding)
    low, high, p, p_equal = (np.full(len(d), start) for start in (-np.inf, np.inf, np.inf, np.inf))
    for errors, dfs, share in (("own_error", "own_df", own), ("error", "df", 1 - own)):
        error, df = numbers[errors].to_numpy(), numbers[dfs].to_numpy()
        use = (share > 0) & (error > rounding) & (df > 0)
        half = np.full(len(d), np.inf)
        half[use] = error[use] * stats.t.isf(ALPHA * share[use] / 2, df[use])
        low, high = np.maximum(low, d - half), np.minimum(high, d + half)
        p[use] = np.minimum(p[use], 2 * stats.t.sf(np.abs(d[use]) / error[use], df[use]) / share[use])
        if margin is not None:
            inside = stats.t.sf((margin - np.abs(d[use])) / error[use], df[use])
            p_equal[use] = np.minimum(p_equal[use], inside / share[use])
    told = np.isfinite(p)
    found = estimates[["difference", "test", "n", "identical", "least", "least_at", "most", "most_at"]].copy()
    for name, ends in (("low", low), ("high", high), ("p", p.clip(max=1)), ("p_equal", p_equal.clip(max=1))):
        found[name] = np.where(told & np.isfinite(ends), ends, np.nan)
    if margin is None:
        found["p_equal"] = np.nan
    found["spread"] = np.where(told, np.where(own < 1, numbers.error, numbers.own_error) * np.sqrt(n), np.nan)
    found["df"] = np.where(own < 1, numbers.df, numbers.own_df)
    return found


def own_share(estimates: pd.DataFrame, rounding: float) -> np.ndarray:
    """Return the share of the error rate that the own test gets: none with two seeds, 7/8 with five, more with more.

    All of it where the sweep's test has fewer than twice as many degrees of freedom; none if the own seeds do not vary.
    """
    share = 1 - np.maximum(estimates.n - 1, 1.0) ** -1.5
    share = np.where(~(estimates.df >= 2 * estimates.own_df), 1.0, share)
    return np.where(estimates.own_error.fillna(0) > rounding, share, 0.0)
