"""Other horizons: "ever" is seen before it is said, each horizon is judged in its own order of time, and no chance exceeds that of a longer one."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from workbench.features.snapshots import Snapshots
from workbench.models import horizons, ladder
from workbench.models.horizons import consistent, ever_days, fitted_scorer, horizon_scores, ordered_trial
from workbench.models.learners import Logistic
from workbench.models.rungs import BaseRate

NOW, FIELDS, NEVER = datetime(2025, 6, 1), ["visits", "idle"], np.nan
COLUMNS = ["horizon", "days", "verdict", "n", "n_events", "base_rate", "auc", "log_loss", "base_log_loss", "ece", "ece_perfect"]


def records(n: int = 2000, mean_days: float = 60, least_days: float = 0, seed: int = 0) -> pd.DataFrame:
    """Records made over 1,000 days, scored once, at creation; visits tell who converts, after least_days and on average mean_days more."""
    rng = np.random.default_rng(seed)
    known, visits = np.sort(rng.uniform(0, 1000, n))[::-1], rng.normal(0, 1, n)
    wins = np.where(rng.random(n) < expit(-0.5 + visits), least_days + rng.exponential(mean_days, n), NEVER)
    ids = np.arange(n).astype(str)
    frame = pd.DataFrame({"id": ids, "group": ids, "as_of": pd.Timestamp(NOW) - pd.to_timedelta(known, "D"), "order": np.arange(n), "days_known": known,
                          "days_to_win": np.where(wins <= known, wins, NEVER), "visits": visits, "idle": rng.normal(0, 1, n)})
    return frame.assign(event=(frame["days_to_win"] <= 90).astype("boolean").mask(known < 90))


def judged_spine(frame: pd.DataFrame, horizon: int = 90) -> tuple[Snapshots, ladder.Evaluation]:
    spine = Snapshots("lead", "s", NOW, horizon, "creation", "time", frame, frame.tail(50), FIELDS, [], pd.DataFrame(columns=["field", "reason"]))
    told = spine.at_horizon(horizon).query("event.notna()").reset_index(drop=True)
    return spine, ladder.evaluate(told, FIELDS, evaluation="time", horizon_days=horizon, rungs=(BaseRate, Logistic))


@pytest.fixture(scope="module")
def usual():
    """2,000 records that convert after 60 days on average, judged at 90 days."""
    return judged_spine(records())


def watch(*groups: tuple[int, float, float]) -> pd.DataFrame:
    """Groups of (records, days until they convert, days they were watched)."""
    rows = [(won, known) for n, won, known in groups for _ in range(n)]
    return pd.DataFrame(rows, columns=["days_to_win", "days_known"]).assign(id=np.arange(len(rows)))


def test_ever_is_when_98_in_100_conversions_have_come_in_whole_months():
    # all watched for 1,000 days: of 305 that convert 300 had by day 20, 98.4 %: one month; of 307 97.7 %: the day of the others, 200, in whole months 210
    assert ever_days(watch((300, 20, 1000), (5, 200, 1000), (95, NEVER, 1000))) == 30
    assert ever_days(watch((300, 20, 1000), (7, 200, 1000), (93, NEVER, 1000))) == 210


def test_records_watched_for_a_short_time_do_not_make_ever_early():
    # By day 20 1,100 of 4,400 came, .25; then 4,000 leave the view, and of the 300 left 4 come on day 200: 1 - .75 x 296/300 = .26. .25 is 96 % of it, so ever is
    # day 200. Counted without the censoring 1,100 of 1,104 conversions, 99.6 %, had come by day 20.
    assert ever_days(watch((100, 20, 1000), (4, 200, 1000), (296, NEVER, 1000), (1000, 20, 50), (3000, NEVER, 50))) == 210


def test_ever_looks_at_the_first_row_of_each_record():
    first = watch((300, 20, 1000), (7, 200, 1000), (93, NEVER, 1000))
    later = first.assign(days_to_win=first["days_to_win"] - 19, days_known=981)  # a later snapshot of each, nearer to its end
    assert ever_days(pd.concat([later, first])) == 210


@pytest.mark.parametrize("frame", [watch((199, 20, 1000)), watch((400, NEVER, 1000)), watch((300, 20, 1000), (100, 800, 1000)), watch((300, 20, 40), (100, NEVER, 40))],
                         ids=["too few records", "nobody converts", "still coming near the end of the watch", "a watch hardly longer than a month"])
def test_ever_is_not_told_where_it_was_not_seen(frame):
    assert ever_days(frame) is None


def test_no_chance_falls_with_the_horizon_and_the_main_one_stays():
    # main .2: what is before it is cut to it, what is after it raised to it: .3 -> .2, .1 -> .2, .4 stays
    one = consistent(pd.DataFrame({"p_30": [0.3], "p_90": [0.2], "p_180": [0.1], "p_ever": [0.4]}), "p_90").iloc[0].tolist()
    assert one == [0.2, 0.2, 0.2, 0.4]
    drawn = pd.DataFrame(np.random.default_rng(0).random((500, 4)), columns=["p_30", "p_90", "p_180", "p_ever"], index=np.arange(500) * 3)
    for main in drawn:
        found = consistent(drawn, main)
        assert (found.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None) and found[main].equals(drawn[main]) and found.index.equals(drawn.index)


def test_every_horizon_is_judged_in_its_own_order_of_time(usual, monkeypatch):
    seen, real = [], ladder.evaluate
    monkeypatch.setattr(horizons.ladder, "evaluate", lambda frame, features, **how: seen.append((frame, how, real(frame, features, **how))) or seen[-1][-1])
    spine, judged = usual
    table, _ = horizon_scores(spine, judged, None)
    assert [how["horizon_days"] for _, how, _ in seen] == [d for d in table["days"] if d != 90] and len(seen) == 3
    for frame, how, found in seen:
        ahead, tested = pd.Timedelta(days=how["horizon_days"]), found.rows["row"].to_numpy()
        learned = np.setdiff1d(np.flatnonzero(found.fold >= 0), tested)
        told = frame["event"].notna()
        assert how["evaluation"] == "time" and (frame["as_of"] + ahead <= pd.Timestamp(NOW)).eq(told).all() and frame["event"][told].eq(frame["days_to_win"] <= how["horizon_days"]).all()
        assert told.iloc[tested].all() and len(learned) > 300 and not np.isin(tested, learned).any()


def test_chances_at_every_horizon_are_near_the_true_ones(usual):
    # P(convert within h) = expit(visits - .5) x (1 - exp(-h / 60)). "ever": 98 % come within -60 ln .02 = 235 days, so in 8 months, give or take one
    spine, judged = usual
    table, chances = horizon_scores(spine, judged, spine.open[FIELDS])
    ever = int(table["days"].iloc[-1])
    assert list(table) == COLUMNS and table["horizon"].tolist() == ["30 days", "90 days", "180 days", f"ever ({ever} days)"] and abs(ever - 235) <= 35
    assert (table["verdict"] == "usable").all() and table["base_rate"].is_monotonic_increasing and table["n"].is_monotonic_decreasing
    assert list(chances) == ["p_30", "p_90", "p_180", "p_ever"] and chances.index.equals(spine.open.index)
    for name, h in (("p_30", 30), ("p_180", 180), ("p_ever", ever)):
        true = expit(spine.open["visits"] - 0.5) * (1 - np.exp(-h / 60))
        chance = 1 / np.sqrt(table.loc[table["days"] == h, "n_events"].item())  # of the level, one standard error, as a share: about .11 at 30 days
        assert abs(chances[name].mean() / true.mean() - 1) < 2.5 * chance and np.corrcoef(chances[name], true)[0, 1] > 0.9


@pytest.mark.parametrize(("mean_days", "horizon", "names"), [(30, 90, ["p_30", "p_90", "p_180", "p_ever"]), (12, 90, ["p_30", "p_90", "p_180"]), (5, 90, ["p_30", "p_90", "p_180"]),
                                                             (20, 60, ["p_30", "p_60", "p_180", "p_ever"])],
                         ids=["ever before 180 days", "ever within the main horizon", "ever within a month", "ever is 90 days"])
def test_ever_comes_last_and_is_told_only_beyond_the_main_horizon(mean_days, horizon, names):
    # 98 % have come within 3.9 x mean_days: 117, 47, 20 and 78 days
    spine, judged = judged_spine(records(1200, mean_days), horizon)
    table, chances = horizon_scores(spine, judged, spine.open[FIELDS])
    assert list(chances) == names and [t.split()[0] == "ever" for t in table["horizon"]] == [n == "p_ever" for n in names]


def test_a_horizon_within_which_nothing_comes_is_not_sold():
    spine, judged = judged_spine(records(least_days=35, mean_days=30))
    table, chances = horizon_scores(spine, judged, spine.open[FIELDS])
    first = table.iloc[0]
    assert first["verdict"] == "too little data" and first["n_events"] == 0 and np.isnan(first["auc"]) and "p_30" not in chances and "p_180" in chances


def test_without_a_long_watch_or_a_usable_score_no_other_horizon_is_told(usual):
    spine, judged = usual
    short = replace(spine, frame=spine.frame[spine.frame["days_known"] < 250])
    for at, found in ((short, judged), (spine, replace(judged, verdict="too little data")), (replace(spine, evaluation="grouped"), judged)):
        table, chances = horizon_scores(at, found, spine.open[FIELDS])
        assert list(table) == COLUMNS and table.empty and chances.empty and chances.index.equals(spine.open.index)


def test_what_may_move_until_now_widens_the_interval_of_dated_rows_only(usual):
    spine, judged = usual
    told = spine.frame.query("event.notna()").reset_index(drop=True)
    dated, undated = (fitted_scorer(told, replace(spine, evaluation=e), judged, Logistic.name, horizon_days=90, seed=7) for e in ("time", "grouped"))
    assert dated.interval.common_variance_ > undated.interval.common_variance_
    tested = told.iloc[judged.rows["row"]]
    assert abs(undated.probabilities(tested[FIELDS]).mean() - tested["event"].mean()) < 0.02  # the rows that the map was learned from, seen by models that had not


def undated(shift: float, seed: int = 1) -> tuple[pd.DataFrame, Snapshots]:
    """An export without dates: 2,000 records by running number, of which the last 600 have log-odds that are `shift` higher."""
    rng, n = np.random.default_rng(seed), 2000
    visits = rng.normal(0, 1, n)
    frame = pd.DataFrame({"id": np.arange(n).astype(str), "group": np.arange(n).astype(str), "as_of": NOW, "order": np.arange(n, dtype=float), "days_to_win": NEVER,
                          "visits": visits, "idle": rng.normal(0, 1, n), "event": pd.array(rng.random(n) < expit(-1 + visits + shift * (np.arange(n) >= 1400)), dtype="boolean")})
    return frame, Snapshots("lead", "s", NOW, 90, "creation", "grouped", frame, frame.head(0), FIELDS, [], pd.DataFrame(columns=["field", "reason"]))


def test_drift_shows_in_the_order_of_the_running_number_and_not_in_folds():
    for shift, drifts in ((0.0, False), (1.5, True)):
        frame, spine = undated(shift)
        judged = ladder.evaluate(frame, FIELDS, evaluation="grouped", rungs=(BaseRate, Logistic))
        table = ordered_trial(frame, spine, judged)
        later = frame["event"].iloc[1399:].astype(float)  # 70 % of 2,000: all from row number 1,399 (the lower quantile) on
        assert table["n"].tolist() == [2000, 601] and np.isclose(table["base_rate"].iloc[1], later.mean())
        assert (table["ece"] > table["ece_perfect"]).tolist() == [False, drifts] and (table["ece"].iloc[1] > 0.1) == drifts  # .30 converted before, .57 do then


def test_drift_is_not_told_where_rows_have_dates_or_no_order(usual):
    spine, judged = usual
    assert ordered_trial(spine.frame.query("event.notna()"), spine, judged).empty
    frame, at = undated(0)
    judged = ladder.evaluate(frame, FIELDS, evaluation="grouped", rungs=(BaseRate, Logistic))
    assert len(ordered_trial(frame, at, judged)) == 2 and ordered_trial(frame.assign(order=0.0), at, judged).empty
