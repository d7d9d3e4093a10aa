"""Statistical model of a sweep: a mean per cell, an effect per seed, and spreads that cells lend each other.

Two tests judge every contrast of cell means and share its error rate: a t-test on the contrast's own seeds, which
assumes nothing about other cells, and a t-test with the sweep's spread, which works from two seeds on. The more seeds,
the larger the own test's share. `benchmarks/calibration.py` chose the constants; docs/statistics.md explains them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.linear_model import OLS

LEVEL = 0.95
ALPHA = 1 - LEVEL
EPSILON = 1e-12  # smaller differences are rounding errors, and no spread to infer from
FRACTION, CAP = 0.36, 0.8  # shares of the sweep's degrees of freedom that one cell and any contrast may count on
LEAST_CELLS = 4  # fewer cells have too few spreads to lend each other
WILD = 2.2  # ratio of a cell's variance to the sweep's from which the cell's counts more than once


@dataclass(frozen=True)
class Spread:
    """Variance of one run in each cell, at least the sweep's.

    variance: (C,) variances; NaN for a cell without two runs.
    df: degrees of freedom of the sweep's variance; 0 without any.
    """

    variance: np.ndarray
    df: float

    def df_of(self, parts: np.ndarray) -> float:
        """Return the degrees of freedom of a sum of variances (Welch and Satterthwaite), at most the sweep's."""
        total = parts.sum()
        return float(min(FRACTION * total**2 / (parts**2).sum(), CAP) * self.df) if total > 0 else 0.0


@dataclass(frozen=True)
class Model:
    """Values of a sweep's runs.

    values: (S, C) one value per seed and cell, NaN where there is none.
    paired: whether equal seeds share their random numbers, so that cells are compared seed by seed.
    """

    values: np.ndarray
    paired: bool = True

    @cached_property
    def within_seeds(self) -> Spread:
        """Spread around cell means and seed effects, for contrasts within seeds."""
        return spread(self.values, by_seed=True)

    @cached_property
    def across_seeds(self) -> Spread:
        """Spread around cell means, for a single mean and for contrasts across seeds."""
        return spread(self.values, by_seed=False)

    def test(self, contrasts: np.ndarray, margin: float | None = None) -> pd.DataFrame:
        """Estimate and test contrasts of cell means.

        Args:
            contrasts: (K, C) weights of the cells.
            margin: equivalence margin; None: no test of equivalence.

        Returns:
            a row per contrast: difference, low and high (95 % interval), p; p_equal, of two one-sided tests; spread,
            the standard deviation of one seed's difference by the sweep's spread; df; test; n, the seeds used;
            identical, whether every seed's difference is zero. NaN where nothing can be inferred.
        """
        estimates = [self.estimate(weights) for weights in contrasts]
        return judge(pd.DataFrame(estimates, columns=ESTIMATE), margin)

    def estimate(self, weights: np.ndarray) -> tuple[float, float, float, float, float, str, int, bool]:
        """Estimate one contrast: within the seeds that its cells share, if there are two or more, or across seeds.

        Returns:
            difference; standard error and degrees of freedom of the own test and of the sweep's; name of the test;
            number of seeds; whether all seeds agree on zero.
        """
        used = np.flatnonzero(weights)
        known = self.values[:, used]
        shared = known[~np.isnan(known).any(axis=1)]
        if self.paired and len(used) > 1 and len(shared) > 1:
            each = shared @ weights[used]
            n, spread = len(each), self.within_seeds
            parts = weights[used] ** 2 * spread.variance[used]
            error, df = np.sqrt(parts.sum() / n), spread.df_of(parts)
            identical = bool(np.abs((shared * weights[used]).sum(axis=1)).max() < EPSILON)
            return each.mean(), each.std(ddof=1) / n**0.5, n - 1.0, error, df, "paired t", n, identical
        sides = [side for side in (used[weights[used] > 0], used[weights[used] < 0]) if len(side)]
        rows = [self.values[:, side][~np.isnan(self.values[:, side]).any(axis=1)] @ weights[side] for side in sides]
        n = min(map(len, rows))
        difference = sum(each.mean() if len(each) else np.nan for each in rows)
        if n < 2:
            return difference, np.nan, np.nan, np.nan, 0.0, "none", n, False
        errors = np.array([each.var(ddof=1) / len(each) for each in rows])
        df = errors.sum() ** 2 / (errors**2 / [len(each) - 1 for each in rows]).sum() if errors.any() else n - 1.0
        # Cells of one side share their seeds: their sum varies at most as if all were perfectly correlated.
        deviations = np.abs(weights) * np.sqrt(self.across_seeds.variance)
        parts = np.array([deviations[side].sum() ** 2 / len(each) for side, each in zip(sides, rows, strict=True)])
        return (
            difference,
            errors.sum() ** 0.5,
            df,
            parts.sum() ** 0.5,
            self.across_seeds.df_of(parts),
            "Welch t",
            n,
            False,
        )


ESTIMATE = ["difference", "own_error", "own_df", "error", "df", "test", "n", "identical"]


def spread(values: np.ndarray, by_seed: bool) -> Spread:
    """Estimate every cell's variance: the larger of its own and the sweep's, which all cells share.

    A cell more than WILD times as variable as the sweep counts as more variable than it seems: with few seeds its own
    variance is uncertain, and it would be judged by that alone.

    Args:
        values: (S, C) one value per seed and cell, NaN where there is none.
        by_seed: whether seeds have effects common to all cells.

    Source: statsmodels OLS with its hat matrix; the floor: docs/statistics.md.
    """
    known = ~np.isnan(values)
    if by_seed:
        known = known & (known.sum(axis=1) > 1)[:, None]  # a seed of one cell says nothing about spread
    seeds, cells = np.nonzero(known)
    none = Spread(np.full(values.shape[1], np.nan), 0.0)
    if not len(seeds):
        return none
    if by_seed:
        indicators = [np.equal.outer(names, np.unique(names)).astype(float) for names in (cells, seeds)]
        found = OLS(values[seeds, cells], np.hstack([indicators[0], indicators[1][:, 1:]])).fit()
        residuals, leverage = found.resid, found.get_influence().hat_matrix_diag
    else:
        means = np.bincount(cells, values[seeds, cells], values.shape[1]) / np.maximum(known.sum(axis=0), 1)
        residuals = (values - means)[seeds, cells]
        leverage = 1 / known.sum(axis=0)[cells]
    squares, df = (np.bincount(cells, each, values.shape[1]) for each in (residuals**2, 1 - leverage))
    total = df[df > EPSILON].sum()
    if total <= EPSILON or (df > EPSILON).sum() < LEAST_CELLS:
        return none
    common = squares.sum() / total
    own = np.divide(squares, df, out=np.full(len(df), np.nan), where=df > 1e-6)
    variance = np.maximum(own, common)
    if common > 0:
        variance = variance * np.maximum(1, own / (WILD * common)) ** 2
    return Spread(variance, total)


def judge(estimates: pd.DataFrame, margin: float | None) -> pd.DataFrame:
    """Combine the own test and the sweep's test of every contrast.

    Source: Student's t-test; two one-sided tests (Schuirmann, 1987); weighted Bonferroni correction of the two tests.
    """
    found = estimates[["difference", "test", "n", "identical"]].copy()
    d, n = estimates.difference.to_numpy(float), estimates.n.to_numpy(float)
    own = own_share(estimates)
    low, high, p, p_equal = (np.full(len(d), start) for start in (-np.inf, np.inf, np.inf, np.inf))
    for error, df, share in (
        (estimates.own_error.to_numpy(float), estimates.own_df.to_numpy(float), own),
        (estimates.error.to_numpy(float), estimates.df.to_numpy(float), 1 - own),
    ):
        use = (share > 0) & (error > EPSILON) & (df > 0)
        half = np.full(len(d), np.inf)
        half[use] = error[use] * stats.t.isf(ALPHA * share[use] / 2, df[use])
        low, high = np.maximum(low, d - half), np.minimum(high, d + half)
        p[use] = np.minimum(p[use], 2 * stats.t.sf(np.abs(d[use]) / error[use], df[use]) / share[use])
        if margin is not None:
            inside = stats.t.sf((margin - np.abs(d[use])) / error[use], df[use])
            p_equal[use] = np.minimum(p_equal[use], inside / share[use])
    told = np.isfinite(p)
    for name, values in (("low", low), ("high", high), ("p", p.clip(max=1)), ("p_equal", p_equal.clip(max=1))):
        found[name] = np.where(told & np.isfinite(values), values, np.nan)
    if margin is None:
        found["p_equal"] = np.nan
    sweeps = own < 1
    found["spread"] = np.where(told, np.where(sweeps, estimates.error, estimates.own_error) * np.sqrt(n), np.nan)
    found["df"] = np.where(sweeps, estimates.df, estimates.own_df)
    return found


def own_share(estimates: pd.DataFrame) -> np.ndarray:
    """Return the share of the error rate that the own test gets: none with two seeds, 7/8 with five, more with more.

    All of it where the sweep's test has fewer than twice as many degrees of freedom; none if the own seeds do not vary.
    """
    share = 1 - np.maximum(estimates.n - 1, 1.0) ** -1.5
    share = np.where(estimates.df < 2 * estimates.own_df, 1.0, share)
    return np.where(estimates.own_error.fillna(0) > EPSILON, share, 0.0)
