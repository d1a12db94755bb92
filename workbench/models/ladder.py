"""Climb the ladder: out-of-sample predictions of every rung, compared pairwise; the simplest that no later one beats.

Five folds by record: a model never sees the records that it is judged on. Time: judged on the last 30 % of rows, fitted on rows whose
horizon ended before these begin, and once more halfway (`fits`), since a run learns anew each time. Leaving out every record that is still open at that origin instead would leave
the rows that were resolved early, whose rate is another. Grouped (no dates): twins on one side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from workbench.models.calibration import Pace, Platt, log_losses
from workbench.models.learners import RUNGS
from workbench.models.rungs import BaseRate, group_folds

WORTH = 0.02  # a gain worth having: this share of the base rate's log loss
MIN_EVENTS, MIN_TRAINED, MIN_TESTED = 30, 15, 10  # records with the event, and without: in all, to learn from, to judge on
DRAWS = 1000
MOST_ROWS = 50_000  # a model learns from so many rows, drawn at random: weekly snapshots of one record tell little more than one of them


@dataclass
class Evaluation:
    """rows: row (of the frame), group, fold (its model), y and a column of probabilities a rung, all out of sample.

    ladder: one row a rung (model, auc, log_loss, brier, gain over the base rate with gain_low (99 %) and gain_high (95 %, both one-sided);
    gain_low counts also against the rung's own mean probability, since a level that drift happened to favour tells no record from another;
    step, the gain over the rung before with step_low and step_high (95 %), chosen). model: the rung chosen. parts, fold: of every row of
    the frame, log-odds by rung out of sample (of the models fitted last) and number of the fold (-1: took no part).
    """

    rows: pd.DataFrame
    ladder: pd.DataFrame
    model: str
    verdict: str
    why: str = ""
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    fold: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))

    def judged_parts(self) -> np.ndarray:
        """The log-odds of `rows` by the chosen rung, a column a part."""
        return self.parts[self.model][self.rows["row"]]


def grouped_means(values: np.ndarray, groups: np.ndarray, seed: int = 7, weights: np.ndarray | None = None, draws: int = DRAWS) -> np.ndarray:
    """Bootstrap draws (a row a draw) of the weighted mean of each column of `values`, resampling whole groups (records)."""
    _, code = np.unique(groups, return_inverse=True)
    weights = np.ones_like(values, dtype=float) if weights is None else weights
    sums = np.column_stack([np.bincount(code, v) for v in (*(values * weights).T, *weights.T)])
    rng, k = np.random.default_rng(seed), values.shape[1]
    drawn = np.vstack([rng.poisson(1.0, len(sums)).astype(float) @ sums for _ in range(draws)])
    with np.errstate(invalid="ignore"):
        return drawn[:, :k] / drawn[:, k:]


def time_split(frame: pd.DataFrame, horizon_days: int, share: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Which labelled rows train and which test: test = origins from the last `share` of rows on; a training row's horizon ended before them."""
    told = frame["event"].notna().to_numpy()
    cut = frame["as_of"][told].quantile(1 - share, interpolation="lower")
    return told & (frame["as_of"] + pd.Timedelta(days=horizon_days) <= cut).to_numpy(), told & (frame["as_of"] >= cut).to_numpy()


@threadpool_limits.wrap(limits=1, user_api="blas")  # small matrices: threads that wait for each other cost more than they bring
def evaluate(frame: pd.DataFrame, features: list[str], *, evaluation: str, horizon_days: int = 90, seed: int = 7, rungs: Sequence[type[BaseRate]] = (), k: int = 0, fits: int = 2,
             progress: Callable[[str], None] | None = None) -> Evaluation:
    """Judge every rung (or `rungs` only) on rows (group, as_of, event and features), out of sample in k folds (0: five, of many rows three); see the module.

    evaluation: time (with days_to_win; rows between, and those whose horizon has not passed, which stand last, tell of the `Pace`); order (as_of is a running number: split by it, the map learned once from the earlier rows); grouped (neither).
    """
    rungs = rungs or RUNGS
    y, groups, X = frame["event"].fillna(False).astype(int).to_numpy(), frame["group"].to_numpy(dtype=object).astype(str), frame[features]
    train, test = time_split(frame, horizon_days) if evaluation != "grouped" and len(y) else (np.ones(len(y), bool), np.ones(len(y), bool))
    why = _too_few(y, groups, {"": (train | test, MIN_EVENTS), "training ": (train, MIN_TRAINED), "test ": (test, MIN_TESTED)})
    if why := why or ("" if features else "No field was known at the time of scoring, so nothing can be learned."):
        return Evaluation(pd.DataFrame(columns=["row", "group", "fold", "y"]), pd.DataFrame(), BaseRate.name, "too little data", why=why)
    used, fold, as_of = np.flatnonzero(train | test | (evaluation == "time")), np.full(len(y), -1), frame["as_of"].to_numpy("datetime64[s]")
    alike = pd.util.hash_pandas_object(X, index=False).to_numpy() if evaluation == "grouped" else None
    k = k or (5 if len(used) <= 2 * MOST_ROWS else 3)  # with so many, models of three folds learn from as many rows as those of five
    fold[used] = group_folds(y[used], groups[used], k=k, seed=seed, alike=alike)
    starts, learned = _starts(as_of[test], np.arange(fits) / fits) if evaluation == "time" else [as_of.min()], [train]
    learned += [frame["event"].notna().to_numpy() & (as_of + np.timedelta64(horizon_days, "D") <= start) for start in starts[1:]]
    fitted = [out_of_fold(rungs, frame, features, fold, learn, seed=seed, progress=progress) for learn in learned]
    rows = pd.DataFrame({"row": np.flatnonzero(test), "group": groups[test], "fold": fold[test], "y": y[test]})
    for name, z in fitted[-1].items():
        if evaluation == "time":
            rows[name] = _as_used(dict(zip(starts, (parts[name] for parts in fitted), strict=True)), y, fold, frame, test, horizon_days)
        elif name == BaseRate.name:
            rows[name] = expit(z[test, 0])
        else:
            rows[name] = _by_folds(z, y, fold) if evaluation == "grouped" else Platt().fit(z[train], y[train]).predict(z[test])
    judged = _judge(rows, [r.name for r in rungs], seed)
    judged.parts, judged.fold = fitted[-1], fold
    return judged


def out_of_fold(rungs: Sequence[type[BaseRate]], frame: pd.DataFrame, features: list[str], fold: np.ndarray, learn: np.ndarray, *, seed: int,
                progress: Callable[[str], None] | None = None) -> dict[str, np.ndarray]:
    """By rung, the log-odds (a column a part) of every row with a fold (>= 0), by a model that learned from the rows `learn` of the other folds."""
    y, groups, X = frame["event"].fillna(False).astype(int).to_numpy(), frame["group"].to_numpy(dtype=object).astype(str), frame[features]
    parts: dict[str, np.ndarray] = {}

    def judged_by(f: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        fit, out = learned_from(learn & (fold != f), seed), np.flatnonzero(fold == f)
        beside: dict[str, BaseRate] = {}
        for rung in rungs:
            if progress:
                progress(f"fold {f + 1} of {fold.max() + 1}: {rung.name}")
            beside[rung.name] = rung().fit(X.iloc[fit], y[fit], groups[fit], beside)
            yield rung.name, out, beside[rung.name].parts(X.iloc[out])

    with ThreadPoolExecutor(2) as pool:  # what costs time lets go of the interpreter
        for done in pool.map(lambda f: list(judged_by(f)), range(fold.max() + 1)):
            for name, out, found in done:
                parts.setdefault(name, np.zeros((len(y), found.shape[1])))[out] = found
    return parts


def learned_from(allowed: np.ndarray, seed: int) -> np.ndarray:
    """The row numbers that a model learns from, of those allowed: all, or MOST_ROWS drawn at random."""
    rows = np.flatnonzero(allowed)
    return rows if len(rows) <= MOST_ROWS else np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))


def _too_few(y: np.ndarray, groups: np.ndarray, sets: dict[str, tuple[np.ndarray, int]]) -> str:
    """Why there is too little to learn from; rows of one record count once."""
    for name, (part, least) in sets.items():
        events = len(np.unique(groups[part & (y == 1)]))
        others = len(np.unique(groups[part])) - events
        if min(events, others) < least:
            return f"The {name}records hold {events:,} with the event and {others:,} without; at least {least} of each are needed."
    return ""


def _by_folds(z: np.ndarray, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Probabilities without dates: each fold mapped by what the others show."""
    p = np.empty(len(y))
    for f in np.unique(fold):
        p[fold == f] = Platt().fit(z[fold != f], y[fold != f]).predict(z[fold == f])
    return p


def _starts(as_of: np.ndarray, shares: Sequence[float] | np.ndarray) -> np.ndarray:
    """The instants at which so large a share of the rows has gone by, each once."""
    return np.unique(np.quantile(as_of.astype("int64"), shares, method="lower")).astype(as_of.dtype)


def _as_used(fitted: dict[np.datetime64, np.ndarray], y: np.ndarray, fold: np.ndarray, frame: pd.DataFrame, test: np.ndarray, horizon_days: int) -> np.ndarray:
    """Probabilities of the test rows as runs would have given them, by the models `fitted` last (from when on: log-odds out of sample of all rows): eight times
    over the test, the map is learned anew from the latest 30 % of the rows whose horizon had ended by then, in the other folds, and moved to the pace of
    that day, as `horizons.fitted_scorer` does today."""
    as_of, p, day = frame["as_of"].to_numpy("datetime64[s]"), np.empty(len(y)), np.timedelta64(1, "D")
    starts = _starts(as_of[test], np.arange(8) / 8)
    for start, end in zip(starts, [*starts[1:], as_of.max() + day], strict=True):
        ago, z = (start - as_of) / day, fitted[max(since for since in fitted if since <= start)]
        known = (fold >= 0) & (ago >= horizon_days)
        late = known & (ago <= np.quantile(ago[known], 0.3, method="higher"))
        whole = Platt().fit(z[late], y[late])
        shift = pace_of(frame, fold, z @ whole.b_, ago, horizon_days).level(ago[late], (q := whole.predict(z[late])) * (1 - q))[0]
        for f in np.unique(fold[test]):
            mine, others = test & (as_of >= start) & (as_of < end) & (fold == f), late & (fold != f)
            map = Platt().fit(z[others], y[others])
            map.a_ += shift
            p[mine] = map.predict(z[mine])
    return p[test]


def pace_of(frame: pd.DataFrame, fold: np.ndarray, z: np.ndarray, ago: np.ndarray, horizon_days: float) -> Pace:
    """The pace of the rows that took part (fold >= 0), `ago` days before some instant, as it was seen by then; z: log-odds out of sample."""
    step = frame.groupby("group", sort=False)["as_of"].diff().median() / pd.Timedelta(days=1)  # of the grid; one row a record: its first month
    part = (fold >= 0) & (ago > 0)
    wait = frame["days_to_win"].to_numpy(float)[part]
    return Pace(horizon_days, step if step > 0 else 30).fit(z[part], np.where(wait <= ago[part], wait, np.nan), ago[part])


def _judge(rows: pd.DataFrame, names: list[str], seed: int) -> Evaluation:
    y = rows["y"].to_numpy()
    losses = np.column_stack([log_losses(y, rows[n].to_numpy()) for n in names])
    level = np.column_stack([log_losses(y, np.full(len(y), rows[n].mean())) for n in names])
    draws, mean = grouped_means(np.hstack([losses, level]), rows["group"].to_numpy(), seed), losses.mean(axis=0)
    draws, level = np.hsplit(draws, 2)
    # a later rung beats an earlier one when the one-sided 95 % bound of the paired difference is above 0
    beaten = [any(np.quantile(draws[:, i] - draws[:, j], 0.05) > 0 for j in range(i + 1, len(names))) for i in range(len(names))]
    chosen = beaten.index(False)
    gain, step = draws[:, [0]] - draws, np.column_stack([draws[:, max(i - 1, 0)] - draws[:, i] for i in range(len(names))])
    ladder = pd.DataFrame({
        "model": names, "auc": [0.5] + [float(roc_auc_score(y, rows[n])) for n in names[1:]], "log_loss": mean,
        "brier": [float(np.mean((rows[n] - y) ** 2)) for n in names], "gain": mean[0] - mean, "gain_low": np.minimum(*(np.quantile(d, 0.01, axis=0) for d in (gain, level - draws))),
        "gain_high": np.quantile(gain, 0.95, axis=0), "step": -np.diff(mean, prepend=mean[0]), "step_low": np.quantile(step, 0.025, axis=0),
        "step_high": np.quantile(step, 0.975, axis=0), "chosen": np.arange(len(names)) == chosen})
    row, worth, why = ladder.iloc[chosen], WORTH * mean[0], ""
    if row["gain_low"] > 0:
        verdict = "usable"
    elif (ladder["gain_high"].iloc[1:] < worth).all():
        verdict, why = "no usable signal", f"A gain of {WORTH:.0%} of the base rate's log loss, the least worth having, is excluded for every model."
    else:
        verdict, why = "too little data", "The data do not show, with 99 % confidence, a gain of the chosen model over the base rate, nor do they exclude one worth having."
    return Evaluation(rows, ladder, names[chosen], verdict, why)
