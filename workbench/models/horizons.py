"""The same model at other horizons, within which no chance exceeds that of a longer one; and in the order of an export's running number."""

from __future__ import annotations

import numpy as np
import pandas as pd

from workbench.features.snapshots import Snapshots
from workbench.models import ladder
from workbench.models.calibration import Interval, Platt, calibration_error, perfect_calibration_error
from workbench.models.learners import RUNGS
from workbench.models.reasons import Scorer
from workbench.models.rungs import BaseRate

HORIZONS = (30, 90, 180)  # days, beside the one asked for and "ever"
COME, AT_RISK = 0.98, 200  # "ever" = when so much of what the longest watch shows has come; the longest watch still has so many records in view


def ever_days(frame: pd.DataFrame) -> int | None:
    """The horizon that stands for ever, in days (whole months of 30): by then 98 % of the conversions have come that the longest watch of records shows.

    From the first row of each record (columns days_to_win, days_known of `Snapshots.frame`), by the Kaplan-Meier estimator; records that were
    given up stay in view without the event, so that 1 - KM is the share that converts. None where the watch is too short to tell.
    """
    first = frame.sort_values("days_known", ascending=False, kind="stable").drop_duplicates("id")
    longest = float(np.sort(first["days_known"])[-AT_RISK]) if len(first) >= AT_RISK else 0.0
    won = first["days_to_win"].fillna(np.inf).to_numpy()
    end = np.minimum(first["days_known"].to_numpy(), np.minimum(won, longest))
    days = np.sort(won[(won <= end)])
    if not len(days):
        return None
    at_risk = len(end) - np.searchsorted(np.sort(end), days) - (np.arange(len(days)) - np.searchsorted(days, days))  # of one day one after the other
    came = 1 - np.cumprod(1 - 1 / at_risk)
    found = int(np.ceil(days[np.argmax(came >= COME * came[-1])] / 30) * 30)
    return found if found < 0.7 * longest else None  # the plateau has to be seen


def horizon_scores(spine: Snapshots, judged: ladder.Evaluation, X: pd.DataFrame | None, seed: int = 7) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a horizon: horizon (in words), days, verdict, n, n_events, base_rate, auc, log_loss, base_log_loss, ece, ece_perfect, changed (share of the
    chances moved so that none exceeds that of a longer horizon); and the chances of the rows X (None: nothing is sold), a column p_<days> or p_ever each.

    The rung that was chosen is judged and fitted again for each, each in its own order of time. "ever" is `ever_days`, told where that is
    longer than the main horizon, and comes last.
    """
    out, chances = [], {}
    ever = ever_days(spine.frame) if spine.evaluation == "time" and spine.frame["days_to_win"].notna().any() else None
    last = [ever] if ever is not None and ever > spine.horizon_days else []
    days = [*sorted({*HORIZONS, spine.horizon_days} - {*last}), *last] if ever is not None and judged.verdict == "usable" else []
    for h in days:
        found, told = judged, None
        if h != spine.horizon_days:
            told = in_order(spine.at_horizon(h), spine)
            found = ladder.evaluate(told, spine.features, evaluation="time", horizon_days=h, seed=seed, rungs=tuple(r for r in RUNGS if r.name in (BaseRate.name, judged.model)), k=3, fits=1)
        rows, row = found.rows, found.ladder[found.ladder["model"] == judged.model] if len(found.ladder) else found.ladder
        y, p = (rows[c].to_numpy() if c in rows else np.empty(0) for c in ("y", judged.model))
        usable = len(row) and row["gain_low"].iloc[0] > 0
        base = {"horizon": f"ever ({h} days)" if h in last else f"{h} days", "days": h, "verdict": "usable" if usable else "too little data", "n": len(y), "n_events": int(y.sum()),
                "base_rate": y.mean() if len(y) else np.nan}
        judged_so = {"auc": row["auc"].iloc[0], "log_loss": row["log_loss"].iloc[0], "base_log_loss": found.ladder["log_loss"].iloc[0], "ece": calibration_error(y, p),
                     "ece_perfect": perfect_calibration_error(p, rows["group"].to_numpy())[1]} if len(row) else {}
        out.append(base | judged_so)
        if usable and X is not None:
            chances["p_ever" if h in last else f"p_{h}"] = (h, fitted_scorer(told, spine, found, judged.model, horizon_days=h, seed=seed).probabilities(X) if told is not None else None)
    table = pd.DataFrame(out, columns=["horizon", "days", "verdict", "n", "n_events", "base_rate", "auc", "log_loss", "base_log_loss", "ece", "ece_perfect"])
    return table, pd.DataFrame({name: p for name, (_, p) in chances.items()}, index=X.index if X is not None else None)


def in_order(frame: pd.DataFrame, spine: Snapshots) -> pd.DataFrame:
    """The labelled rows of `frame`, then, where time is judged, those whose horizon has not passed: they tell of the latest pace."""
    told = frame["event"].notna()
    return pd.concat([frame[told], frame[~told & (spine.evaluation == "time")]], ignore_index=True)


def fitted_scorer(told: pd.DataFrame, spine: Snapshots, found: ladder.Evaluation, model: str, *, horizon_days: float, seed: int) -> Scorer:
    """The rung `model` fitted on every labelled row; its map, its interval and today's level learned from rows that its like had not seen."""
    part = told.iloc[ladder.learned_from(told["event"].notna().to_numpy(), seed)]
    y, groups = told["event"].fillna(False).astype(int).to_numpy(), told["group"].to_numpy(dtype=object).astype(str)
    rung = next(r for r in RUNGS if r.name == model)().fit(part[spine.features], y[part.index], groups[part.index])
    parts, tested = found.parts[model], found.rows["row"].to_numpy()
    map = Platt().fit(parts[tested], y[tested])
    interval = Interval().fit(map, parts[tested], y[tested], groups[tested], found.fold[tested])
    if spine.evaluation == "time":
        ago, p = (pd.Timestamp(spine.as_of) - told["as_of"]).to_numpy() / np.timedelta64(1, "D"), map.predict(parts[tested])
        shift, variance = ladder.pace_of(told, found.fold, parts @ map.b_, ago, horizon_days).level(ago[tested], p * (1 - p))
        map.a_, interval.common_variance_ = map.a_ + shift, interval.common_variance_ + variance
    return Scorer(rung, map, interval)


def consistent(chances: pd.DataFrame, main: str) -> pd.DataFrame:
    """Columns by growing horizon, so changed that no row falls from one to the next; the column `main` stays as it is.

    >>> consistent(pd.DataFrame({"p_30": [.3], "p_90": [.2], "p_180": [.1]}), "p_90").iloc[0].tolist()
    [0.2, 0.2, 0.2]
    """
    at, values = list(chances).index(main), chances.to_numpy(float)
    earlier = np.minimum.accumulate(values[:, at::-1], axis=1)[:, ::-1]
    return pd.DataFrame(np.hstack([earlier, np.maximum.accumulate(values[:, at:], axis=1)[:, 1:]]), index=chances.index, columns=chances.columns)


def ordered_trial(told: pd.DataFrame, spine: Snapshots, judged: ladder.Evaluation, seed: int = 7) -> pd.DataFrame:
    """Two rows for an export without dates, about drift: the model judged in folds of any order, and learned from the first 70 % by the running number
    (created_order) and judged on the rest: n, base_rate, auc, log_loss, base_log_loss, ece, ece_perfect. Empty where rows have dates, or no order."""
    trials = []
    if judged.verdict == "usable" and spine.evaluation != "time" and told["order"].nunique() >= 0.9 * len(told):
        frame, rungs = told.assign(as_of=pd.Timestamp(0) + pd.to_timedelta(told["order"], "D")), tuple(r for r in RUNGS if r.name in (BaseRate.name, judged.model))
        trials = [("any order, five folds", judged), ("learned from the first 70 %, judged on the rest", ladder.evaluate(frame, spine.features, evaluation="order", horizon_days=0, seed=seed, rungs=rungs))]
    out = []
    for words, found in trials:
        if len(found.ladder):
            y, p, row = found.rows["y"].to_numpy(), found.rows[judged.model].to_numpy(), found.ladder.set_index("model")
            out.append((words, len(y), y.mean(), *row.loc[judged.model, ["auc", "log_loss"]], row.loc[BaseRate.name, "log_loss"], calibration_error(y, p), perfect_calibration_error(p, np.arange(len(y)))[1]))
    return pd.DataFrame(out, columns=["order", "n", "base_rate", "auc", "log_loss", "base_log_loss", "ece", "ece_perfect"])
