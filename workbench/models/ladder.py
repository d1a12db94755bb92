"""Climb the ladder: out-of-sample predictions of every rung, compared pairwise; the simplest that no later one beats.

Time: test = the last 30 % of origins; train = rows whose horizon ended before the first of them, records of test left out.
Grouped (no dates): five folds, twins on one side. Probabilities are calibrated on cross-fitted predictions of the training rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from workbench.models.rungs import CLIP, RUNGS, Platt

WORTH = 0.02  # a gain worth having: this share of the base rate's log loss
MIN_EVENTS = 30
DRAWS = 1000


@dataclass
class Evaluation:
    """rows: group, y and a column of probabilities a rung, all out of sample; ladder: one row a rung; model: the rung chosen."""

    rows: pd.DataFrame
    ladder: pd.DataFrame
    model: str
    verdict: str
    gain: float
    gain_low: float
    gain_high: float
    why: str = ""


def log_losses(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Log loss of each row, in nats.

    >>> [round(float(v), 3) for v in log_losses(np.array([1, 0]), np.array([.8, .5]))]
    [0.223, 0.693]
    """
    p = np.clip(p, CLIP, 1 - CLIP)
    return -np.where(y == 1, np.log(p), np.log(1 - p))


def calibration_error(y: np.ndarray, p: np.ndarray, bins: int = 10) -> float:
    """ECE over bins of equal mass: mean |observed - predicted|, weighted by rows.

    >>> round(calibration_error(np.array([0, 1]), np.array([.25, .75]), bins=2), 2)
    0.25
    """
    order = np.argsort(p, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return float(sum(len(i) * abs(y[i].mean() - p[i].mean()) for i in parts) / len(order))


def perfect_calibration_error(p: np.ndarray, seed: int = 7, draws: int = 200) -> float:
    """The mean ECE of a model whose probabilities p are exactly true, at this n: what chance alone makes."""
    rng = np.random.default_rng(seed)
    return float(np.mean([calibration_error((rng.random(len(p)) < p).astype(int), p) for _ in range(draws)]))


def grouped_means(values: np.ndarray, groups: np.ndarray, seed: int = 7) -> np.ndarray:
    """Bootstrap draws of the mean of `values`, resampling whole groups (records)."""
    _, code = np.unique(groups, return_inverse=True)
    total, count = np.bincount(code, values), np.bincount(code).astype(float)
    rng = np.random.default_rng(seed)
    out = np.empty(DRAWS)
    for i in range(DRAWS):
        weight = rng.poisson(1.0, len(total))
        out[i] = (weight @ total) / max(weight @ count, 1.0)
    return out


def cross_fit(rung, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray, folds: list) -> np.ndarray:
    """Out-of-fold log-odds of each row."""
    z = np.zeros(len(y))
    for train, test in folds:
        z[test] = rung().fit(X.iloc[train], y[train], groups[train]).log_odds(X.iloc[test])
    return z


def group_folds(y: np.ndarray, groups: np.ndarray, k: int = 5, seed: int = 7) -> list:
    """Stratified folds that keep a group on one side, each with both classes in training."""
    k = int(max(2, min(k, y.sum(), (1 - y).sum())))
    return list(StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(np.zeros(len(y)), y, groups))


def time_split(frame: pd.DataFrame, horizon_days: int, share: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of train and test: test = origins from the last `share` of rows on; no record and no horizon crosses."""
    cut = frame["as_of"].quantile(1 - share, interpolation="lower")
    test = (frame["as_of"] >= cut).to_numpy()
    train = (frame["as_of"] + pd.Timedelta(days=horizon_days) <= cut).to_numpy() & ~frame["group"].isin(frame.loc[test, "group"]).to_numpy()
    return np.flatnonzero(train), np.flatnonzero(test)


def evaluate(frame: pd.DataFrame, features: list[str], *, evaluation: str, horizon_days: int = 90, seed: int = 7,
             progress: Callable[[str], None] | None = None) -> Evaluation:
    """Judge every rung on labelled rows (group, as_of, event and features), out of sample; see the module."""
    y, groups, X = frame["event"].astype(int).to_numpy(), frame["group"].to_numpy(dtype=object).astype(str), frame[features]
    if evaluation == "time":
        train, test = time_split(frame, horizon_days)
    else:
        train = test = np.arange(len(y))
    for part, name in ((train, "training"), (test, "test")):
        events = int(y[part].sum())
        if min(events, len(part) - events) < MIN_EVENTS:
            return _too_little(f"The {name} rows hold {events:,} events and {len(part) - events:,} others; {MIN_EVENTS} of each are needed.")
    if not features:
        return _too_little("No field was known at the time of scoring, so nothing can be learned.")
    rows = pd.DataFrame({"row": test, "group": groups[test], "y": y[test]})
    folds = group_folds(y[train], groups[train], seed=seed)
    for rung in RUNGS:
        if progress:
            progress(f"fitting: {rung.name}")
        z = cross_fit(rung, X.iloc[train], y[train], groups[train], folds)
        if evaluation == "time":
            model = rung().fit(X.iloc[train], y[train], groups[train])
            rows[rung.name] = Platt().fit(z, y[train]).predict(model.log_odds(X.iloc[test]))
        else:  # each fold is mapped by what the other folds show
            p = np.empty(len(y))
            for others, held in folds:
                p[held] = Platt().fit(z[others], y[others]).predict(z[held])
            rows[rung.name] = p
    return _judge(rows, seed)


def _too_little(why: str) -> Evaluation:
    return Evaluation(pd.DataFrame(columns=["row", "group", "y"]), pd.DataFrame(), "base rate", "too little data", 0.0, 0.0, 0.0, why)


def _judge(rows: pd.DataFrame, seed: int) -> Evaluation:
    names, y, groups = [r.name for r in RUNGS], rows["y"].to_numpy(), rows["group"].to_numpy()
    losses = {n: log_losses(y, rows[n].to_numpy()) for n in names}
    base = losses[names[0]]
    chosen = next(n for i, n in enumerate(names) if all(np.quantile(grouped_means(losses[n] - losses[m], groups, seed), 0.05) <= 0 for m in names[i + 1:]))
    table = []
    for n in names:
        draws = grouped_means(base - losses[n], groups, seed)
        p = rows[n].to_numpy()
        table.append({"model": n, "auc": float(roc_auc_score(y, p)), "log_loss": float(losses[n].mean()), "brier": float(np.mean((p - y) ** 2)),
                      "gain": float((base - losses[n]).mean()), "gain_low": float(np.quantile(draws, 0.01)), "gain_high": float(np.quantile(draws, 0.95)),
                      "chosen": n == chosen})
    ladder = pd.DataFrame(table)
    row, best = ladder[ladder["chosen"]].iloc[0], ladder.iloc[1:].sort_values("log_loss").iloc[0]
    worth = WORTH * float(base.mean())
    if row["gain_low"] > 0:
        verdict, why = "usable", ""
    elif best["gain_high"] < worth:
        verdict, why = "no usable signal", f"A gain of {WORTH:.0%} of the base rate's log loss is excluded: the best rung ({best['model']}) stays below it."
    else:
        verdict, why = "too little data", "The data neither show a gain over the base rate nor exclude one worth having."
    return Evaluation(rows, ladder, chosen, verdict, row["gain"], row["gain_low"], row["gain_high"], why)
