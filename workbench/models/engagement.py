"""How fast interest fades: the half-life of what an inbound activity or visit tells of a conversion soon after, learned from outcomes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench.features.as_of import engagement_at
from workbench.models.ladder import grouped_means
from workbench.models.learners import Logistic, ridge
from workbench.models.rungs import group_folds

GRID = np.geomspace(3, 90, 11)  # days
SOON, MIN_WON = 7, 30  # days within which the conversion is looked for: later ones depend on touches still to come
AGES, COUNTS = np.geomspace(7, 560, 15), np.array([1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 25])  # days and touches, between which leads are alike
FIRST, REST = (0.0, 0.5, 1.0), (0.03, 0.1, 0.3)  # what creation counts as, and what a lead has without a touch: in touches
PROFILED, JUDGED = 400_000, 15_000  # rows at most


@dataclass(frozen=True)
class HalfLife:
    """days with its 95 % interval; gain in log loss of a logistic regression by `engagement`, out of sample, with its lower 95 % bound; pays = that is above 0."""

    days: float
    low: float
    high: float
    gain: float
    gain_low: float

    @property
    def known(self) -> bool:
        """The interval lies within what was looked through."""
        return bool(GRID[0] * 1.2 < self.low and self.high < GRID[-1] / 1.2)

    @property
    def pays(self) -> bool:
        return self.gain_low > 0


def learned_half_life(lake, entity: str, told: pd.DataFrame, features: list[str], *, seed: int = 7) -> HalfLife | None:
    """Learn from snapshots (columns of `Snapshots.frame`); None where nothing inbound or nobody won.

    A proportional hazard (Cox's partial likelihood): won within the week, in weekly snapshots, log-linear in the log of the decayed sum, among leads as old that
    have as many touches so far: of two such leads only the times of the touches differ, so that one whose touches always come often is not mistaken for one
    touched lately. What a lead has without a touch, and how much of a touch its creation is, are integrated out. The mean and the interval are those
    of the posterior of log days. Whether the decayed sum pays is a question of its own: with it and without, beside all other features.
    """
    if "engagement" not in features or "age_days" not in told or (told["engagement"] > 0).sum() < 100 or (told["days_to_win"] <= SOON).sum() < MIN_WON:
        return None
    rows = _sample(told[told["days_known"] >= SOON], PROFILED, seed)
    touched = engagement_at(lake, entity, rows[["id", "as_of"]], [*GRID, 1e9])
    won, age, total = (rows["days_to_win"] <= SOON).to_numpy(int), rows["age_days"].clip(lower=0).to_numpy(), touched[1e9].to_numpy()
    like = np.unique(np.digitize(age, AGES) * len(COUNTS) * 2 + np.digitize(total, COUNTS), return_inverse=True)[1]
    kept = (np.bincount(like, won) > 0)[like]  # where nobody won, nobody is compared
    won, age, like, touched = won[kept], age[kept], np.unique(like[kept], return_inverse=True)[1], touched[kept]
    sums = {h: [touched[h].to_numpy() + first * 0.5 ** (age / h) + rest for first in FIRST for rest in REST] for h in GRID}
    likely = np.array([np.logaddexp.reduce([_likelihood(np.log(x), won, like) for x in sums[h]]) for h in GRID])
    rows = _sample(told[(told["days_known"] >= 4 * SOON) & (told["days_known"] // SOON % 4 == 0)], JUDGED, seed)
    y, groups, others = (rows["days_to_win"] <= 4 * SOON).to_numpy(int), rows["id"].to_numpy(dtype=object).astype(str), [c for c in features if c != "engagement"]
    fold = group_folds(y, groups, k=3, seed=seed)
    beside, with_it = (_out_of_fold(rows[names], y, fold) for names in (others, features))
    gain = np.logaddexp(0, beside) - y * beside - np.logaddexp(0, with_it) + y * with_it
    return HalfLife(*_posterior(likely), float(gain.mean()), float(np.quantile(grouped_means(gain[:, None], groups, seed), 0.05)))


def _sample(rows: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """All rows of so many records, drawn at random, that they are about `most`."""
    records = np.random.default_rng(seed).permutation(rows["id"].unique())
    return rows[rows["id"].isin(records[: int(np.ceil(len(records) * min(1, most / max(len(rows), 1))))])].reset_index(drop=True)


def _out_of_fold(X: pd.DataFrame, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Log-odds of a ridge logistic regression that did not learn from the row."""
    z, design = np.empty(len(y)), Logistic().learned_design(X)
    for f in np.unique(fold):
        z[fold == f] = ridge(0.1).fit(design[fold != f], y[fold != f]).decision_function(design[fold == f])
    return z


def _likelihood(x: np.ndarray, won: np.ndarray, like: np.ndarray) -> float:
    """Largest log partial likelihood of a hazard that goes with exp(b x) within each stratum `like`: Newton's steps in b, halved where they overshoot."""
    events, b, best = np.bincount(like, won), 0.0, -np.inf
    x = x - x.mean()

    def worth(b: float) -> tuple[float, np.ndarray, np.ndarray]:
        weight = np.exp(b * x)
        total = np.bincount(like, weight)
        return float(b * (x @ won) - events @ np.log(total)), weight, total

    now, weight, total = worth(b)
    while now - best > 1e-6:
        best, mean = now, np.bincount(like, weight * x) / total
        step = (x @ won - events @ mean) / max(events @ (np.bincount(like, weight * x * x) / total - mean**2), 1e-9)
        while (told := worth(b + step))[0] < best - 1e-9:
            step /= 2
        b, (now, weight, total) = b + step, told
    return now


def _posterior(likely: np.ndarray) -> tuple[float, float, float]:
    """Mean (in log days) and central 95 % of the half-life, all of the grid's log days being as likely beforehand; in days."""
    at = np.linspace(np.log(GRID[0]), np.log(GRID[-1]), 400)
    weight = np.exp(np.interp(at, np.log(GRID), likely) - likely.max())
    weight /= weight.sum()
    low, high = np.interp((0.025, 0.975), np.cumsum(weight), at)
    return float(np.exp(weight @ at)), float(np.exp(low)), float(np.exp(high))
