"""The evaluation is honest: no record on both sides, horizons end in time, chance is not sold, a signal is, events are counted by record."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from workbench.models import ladder
from workbench.models.calibration import Platt, calibration_error, log_losses, perfect_calibration_error
from workbench.models.ladder import evaluate, grouped_means, time_split
from workbench.models.rungs import BaseRate


def records(n: int = 1500, strength: float = 1.0, seed: int = 0, base: float = -1.0) -> pd.DataFrame:
    """Undated records with a numeric, a categorical and two idle fields; `strength` scales what they tell."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"group": np.arange(n).astype(str), "as_of": pd.Timestamp("2024-01-01"), "visits": rng.gamma(2, 2, n), "source": rng.choice(list("abcd"), n),
                          "idle": rng.normal(size=n), "idle_source": rng.choice(list("uvwxyz"), n)})
    frame["event"] = rng.random(n) < expit(base + strength * (0.5 * (frame["visits"] - 4) + (frame["source"] == "a")))
    return frame


FIELDS = ["visits", "source", "idle", "idle_source"]


def snapshots_of(n: int = 900, seed: int = 0) -> pd.DataFrame:
    """Weekly snapshots of records that live 1 to 60 weeks; those that live long never convert, so resolved rows are no fair sample."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        born, wins = int(rng.integers(0, 100)), rng.random() < 0.4
        life = int(rng.integers(1, 12)) if wins else int(rng.integers(20, 60))
        rows += [(str(i), w, wins and born + life - w <= 12, 7.0 * (born + life - w) if wins else np.nan, rng.normal()) for w in range(born, min(born + life, 100))]
    frame = pd.DataFrame(rows, columns=["group", "week", "event", "days_to_win", "x"])
    return frame.assign(as_of=pd.Timestamp("2022-01-03") + pd.to_timedelta(7 * frame["week"], "D"))


class Spy(BaseRate):
    """Remembers the groups that it was fitted on; refuses to judge one of them."""

    name, shares = "spy", []

    def fit(self, X, y, groups, beside=None):
        self.seen_ = set(groups)
        Spy.shares.append(y.mean())
        return super().fit(X, y, groups, beside)

    def log_odds(self, X):
        assert not self.seen_ & set(X["who"])
        return super().log_odds(X)


@pytest.mark.parametrize("evaluation", ["time", "grouped"])
def test_no_model_judges_a_record_that_it_learned_from(evaluation, monkeypatch):
    monkeypatch.setattr(ladder, "RUNGS", (BaseRate, Spy))
    frame = snapshots_of().assign(who=lambda f: f["group"])
    judged = evaluate(frame, ["x", "who"], evaluation=evaluation, horizon_days=84)
    expected = time_split(frame, 84)[1].sum() if evaluation == "time" else len(frame)
    assert len(judged.rows) == expected and judged.parts["spy"].shape == (len(frame), 1) and (judged.fold[judged.rows["row"]] == judged.rows["fold"]).all()


def test_training_holds_open_records_too_so_its_rate_is_the_true_one(monkeypatch):
    monkeypatch.setattr(ladder, "RUNGS", (BaseRate, Spy))
    monkeypatch.setattr(Spy, "shares", [])
    frame = snapshots_of().assign(who=lambda f: f["group"])
    evaluate(frame, ["x", "who"], evaluation="time", horizon_days=84)
    train, test = time_split(frame, 84)
    settled = train & ~frame["group"].isin(frame.loc[test, "group"]).to_numpy()
    truth = frame.loc[train, "event"].mean()
    assert abs(np.mean(Spy.shares) - truth) < 0.005 < frame.loc[settled, "event"].mean() - truth  # leaving the open ones out would have raised it


def test_models_learn_from_rows_whose_horizon_ended_before_they_judge(monkeypatch):
    learned, frame = [], snapshots_of()
    monkeypatch.setattr(BaseRate, "fit", lambda self, X, y, groups, beside=None, real=BaseRate.fit: learned.append(X["week"].max()) or real(self, X, y, groups, beside))
    judged = evaluate(frame, ["x", "week"], evaluation="time", horizon_days=84, rungs=(BaseRate,))
    train, test = time_split(frame, 84)
    middle = frame.loc[test, "week"].quantile(0.5, interpolation="lower")
    assert max(learned[:5]) == frame.loc[train, "week"].max() <= frame.loc[test, "week"].min() - 12 and max(learned[5:]) == middle - 12 and (judged.fold >= 0).all()


def test_what_was_fitted_halfway_judges_the_second_half_only():
    # the first models know nothing, the second everything: before the middle of the test the chances tell nothing of who converts
    frame = snapshots_of()
    test, y = time_split(frame, 84)[1], frame["event"].astype(int).to_numpy()
    starts = ladder._starts(frame["as_of"].to_numpy("datetime64[s]")[test], (0, 0.5))
    rng = np.random.default_rng(0)
    p = ladder._as_used({starts[0]: rng.normal(size=(len(y), 1)), starts[1]: 4.0 * y[:, None] - 2}, y, rng.integers(0, 5, len(y)), frame, test, 84)
    early = (frame["as_of"] < pd.Timestamp(starts[1])).to_numpy()[test]
    assert abs(roc_auc_score(y[test][early], p[early]) - 0.5) < 0.05 and roc_auc_score(y[test][~early], p[~early]) > 0.99


def test_a_training_horizon_ends_before_the_first_test_origin():
    frame = pd.DataFrame({"as_of": pd.date_range("2024-01-01", periods=120), "event": pd.array([True] * 100 + [None] * 20)})  # of the last 20 nobody knows yet
    train, test = time_split(frame, 20)  # the cut is the 70th day (lower quantile: row 69); a horizon of 20 days ends by then up to row 49
    assert test.nonzero()[0].tolist() == list(range(69, 100)) and train.nonzero()[0].tolist() == list(range(50))


def test_a_signal_is_sold_with_a_gain_near_the_truth():
    judged = evaluate(records(3000), FIELDS, evaluation="grouped")
    row = judged.ladder[judged.ladder["chosen"]].iloc[0]
    assert judged.verdict == "usable" and row["gain_low"] > 0
    frame = records(200_000, seed=9)  # what the true probabilities would gain
    p, y = expit(-1.0 + 0.5 * (frame["visits"] - 4) + (frame["source"] == "a")), frame["event"].to_numpy(int)
    best = log_losses(y, np.full(len(y), y.mean())).mean() - log_losses(y, p.to_numpy()).mean()
    assert 0.8 * best < row["gain"] < 1.15 * best
    chosen = judged.rows[judged.model].to_numpy()
    assert calibration_error(judged.rows["y"].to_numpy(), chosen) < perfect_calibration_error(chosen, np.arange(3000))[1] * 1.2


def test_the_straight_world_needs_no_trees():
    assert evaluate(records(3000), FIELDS, evaluation="grouped").model in ("naive Bayes", "logistic regression")


@pytest.mark.parametrize("seed", range(2))
def test_chance_is_not_sold(seed):
    judged = evaluate(records(1500, strength=0, seed=seed), FIELDS, evaluation="grouped", seed=seed)
    assert judged.verdict != "usable"


@pytest.mark.soak
def test_of_twenty_shufflings_of_the_labels_at_most_one_is_sold():
    sold = 0
    for seed in range(20):
        frame = snapshots_of(400, seed) if seed % 2 else records(2000, strength=0, seed=seed)
        sold += evaluate(frame, ["x"] if seed % 2 else FIELDS, evaluation="time" if seed % 2 else "grouped", horizon_days=84, seed=seed).verdict == "usable"
    assert sold <= 1


def test_events_are_counted_by_record():
    # twenty records of forty snapshots each, ten of them with an event: 400 event rows, ten events
    frame = records(20).loc[np.repeat(np.arange(20), 40)].reset_index(drop=True).assign(event=np.repeat([True, False] * 10, 40))
    judged = evaluate(frame, FIELDS, evaluation="grouped")
    assert judged.verdict == "too little data" and "10 with the event and 10 without" in judged.why and judged.ladder.empty


@pytest.mark.parametrize("frame", [records(0), records(500).assign(event=True), records(500).assign(event=False)], ids=["empty", "all", "none"])
def test_one_class_or_none_is_too_little_data(frame):
    for evaluation in ("time", "grouped"):
        assert evaluate(frame, FIELDS, evaluation=evaluation).verdict == "too little data"


def test_no_field_is_too_little_data():
    assert evaluate(records(), [], evaluation="grouped").verdict == "too little data"


def test_little_data_with_a_faint_signal_say_that_they_are_too_little():
    judged = evaluate(records(200, strength=0.3, seed=5), FIELDS, evaluation="grouped")
    assert judged.verdict == "too little data" and "do not show" in judged.why


def test_the_same_seed_gives_the_same_numbers():
    one, two = (evaluate(records(800), FIELDS, evaluation="grouped", seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(one.ladder, two.ladder)


def test_platt_finds_the_map_that_made_the_labels():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40_000, 1))
    found = Platt().fit(z, (rng.random(40_000) < expit(-1 + 0.5 * z[:, 0])).astype(int))
    assert abs(found.a_ + 1) < 0.05 and abs(found.b_[0] - 0.5) < 0.05


def test_platt_gives_an_idle_part_no_weight_and_never_turns_one_over():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(20_000, 2))
    found = Platt().fit(parts, (rng.random(20_000) < expit(parts[:, 0] - 0.7 * parts[:, 1])).astype(int))
    assert abs(found.b_[0] - 0.9) < 0.1 and found.b_[1] == 0  # the second part's own slope is against it


def test_of_many_rows_a_fair_sample_is_learned_from(monkeypatch):
    monkeypatch.setattr(ladder, "MOST_ROWS", 1000)
    allowed = np.arange(5000) % 2 == 0
    rows = ladder.learned_from(allowed, 7)
    assert len(set(rows)) == 1000 and allowed[rows].all() and abs(rows.mean() - 2500) < 150 and len(ladder.learned_from(allowed[:1000], 7)) == 500


def test_one_value_for_everybody_learns_the_level():
    found = Platt().fit(np.zeros((100, 1)), np.repeat([0, 1], [75, 25]))
    assert np.allclose(found.predict(np.zeros((1, 1))), 0.25)


def test_the_perfect_models_error_is_that_of_the_binomial():
    # p = .5, 1,000 rows, ten bins of 100: mean |share - .5| = sqrt(2 / pi) x sqrt(.25 / 100) = .0399
    p = np.full(1000, 0.5)
    mean, high = perfect_calibration_error(p, np.arange(1000))
    assert abs(mean - 0.0399) < 0.001 and mean < high < 0.06
    # 100 records of ten rows, each in one bin: ten independent draws a bin: sqrt(10) times as much = .126
    mixed, _ = perfect_calibration_error(np.linspace(0.499, 0.501, 1000), np.repeat(np.arange(100), 10))
    assert abs(mixed - 0.126) < 0.01


def test_the_bootstrap_draws_records_not_rows():
    # 200 records of 10 equal rows: the mean's spread is that of 200 draws, .5 / sqrt(200) = .035, not of 2,000 (.011)
    y = np.random.default_rng(1).random(200) < 0.5
    draws = grouped_means(np.repeat(y, 10)[:, None].astype(float), np.repeat(np.arange(200), 10))
    assert abs(draws.std() - 0.035) < 0.004


def test_a_rung_is_left_only_for_one_that_beats_it_in_pairs():
    rng = np.random.default_rng(0)
    p = expit(rng.normal(0, 1.5, 3000))
    y = (rng.random(3000) < p).astype(int)
    noisy = expit(logit(p) + rng.normal(0, 0.02, 3000))
    rows = pd.DataFrame({"group": np.arange(3000).astype(str), "y": y} | {n: q for n, q in zip([r.name for r in ladder.RUNGS], [np.full(3000, y.mean()), p, noisy, noisy, noisy, noisy], strict=True)})
    judged = ladder._judge(rows, [r.name for r in ladder.RUNGS], 7)
    assert judged.model == "rate by segment" and judged.verdict == "usable"
