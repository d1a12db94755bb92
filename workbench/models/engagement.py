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

    A discrete-time hazard: won within the week, in weekly snapshots, by a bent line in the log of the decayed sum, apart in four quarters of age and
    beside the lead's long-run rate of touches, so that one that always comes often is not mistaken for one that came lately. The maximum is
    that of a parabola in log days through the profile's best and its neighbours; the interval ends where twice the log-likelihood has
    fallen by 3.84. Whether the decayed sum pays is a question of its own: with it and without, beside all other features.
    """
    if "engagement" not in features or "age_days" not in told or (told["engagement"] > 0).sum() < 100 or (told["days_to_win"] <= SOON).sum() < MIN_WON:
        return None
    rows = _sample(told[told["days_known"] >= SOON], PROFILED, seed)
    touched = engagement_at(lake, entity, rows[["id", "as_of"]], [*GRID, 1e9])
    won, age, total = (rows["days_to_win"] <= SOON).to_numpy(int), rows["age_days"].clip(lower=0).to_numpy(), touched[1e9].to_numpy()
    strata = np.searchsorted(np.quantile(age, (0.25, 0.5, 0.75)), age)
    rate = np.column_stack([np.ones(len(age)), np.log(total + 0.5), np.log(age + 14), total / (age + 30)])
    # what nobody recorded came at the lead's own rate, a quarter of what is recorded, and creation itself is a third of a touch
    seen = [touched[h].to_numpy() + 0.25 * (total + 1) / (age + 40) * h / np.log(2) * (1 - 0.5 ** (age / h)) + 0.3 * 0.5 ** (age / h) for h in GRID]
    likely = np.array([sum(_likelihood(np.column_stack([rate[k], _bent(np.log(x[k] + 0.2))]), won[k]) for s in range(4) if won[k := strata == s].any()) for x in seen])
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


def _bent(values: np.ndarray) -> np.ndarray:
    """A line with bends at the thirds."""
    knots = np.unique(np.quantile(values, (1 / 3, 2 / 3)))
    return np.column_stack([values, *(np.maximum(values - k, 0) for k in knots)])


def _out_of_fold(X: pd.DataFrame, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Log-odds of a ridge logistic regression that did not learn from the row."""
    z, design = np.empty(len(y)), Logistic().learned_design(X)
    for f in np.unique(fold):
        z[fold == f] = ridge(0.1).fit(design[fold != f], y[fold != f]).decision_function(design[fold == f])
    return z


def _likelihood(design: np.ndarray, y: np.ndarray) -> float:
    """Largest log-likelihood of a logistic model: Newton's steps, halved where they overshoot (few events), a slight ridge."""
    x = (design - np.r_[0, design[:, 1:].mean(0)]) / np.r_[1, np.maximum(design[:, 1:].std(0), 1e-9)]
    w = np.r_[np.log(y.mean() / (1 - y.mean())), np.zeros(x.shape[1] - 1)]
    worth = lambda w: float(y @ (x @ w) - np.logaddexp(0, x @ w).sum() - 5e-4 * w @ w)  # noqa: E731
    best, gained = worth(w), 1.0
    while gained > 1e-6:
        p = 1 / (1 + np.exp(-(x @ w)))
        step = np.linalg.solve((x.T * (p * (1 - p))) @ x + 1e-3 * np.eye(len(w)), x.T @ (y - p) - 1e-3 * w)
        while (now := worth(w + step)) < best - 1e-6:
            step = step / 2
        w, gained, best = w + step, now - best, now
    return best


def _posterior(likely: np.ndarray) -> tuple[float, float, float]:
    """Mean (in log days) and central 95 % of the half-life, all of the grid's log days being as likely beforehand; in days."""
    at = np.linspace(np.log(GRID[0]), np.log(GRID[-1]), 400)
    weight = np.exp(np.interp(at, np.log(GRID), likely) - likely.max())
    weight /= weight.sum()
    low, high = np.interp((0.025, 0.975), np.cumsum(weight), at)
    return float(np.exp(weight @ at)), float(np.exp(low)), float(np.exp(high))
