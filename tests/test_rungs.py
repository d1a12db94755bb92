"""The rungs: Odoo's published numbers, parts that add up, columns of every kind, and seeds that repeat."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from workbench.models.learners import RUNGS, Blend, Boosted, Logistic
from workbench.models.rungs import NaiveBayes, SegmentRate, group_folds, kinds


def naive_bayes(rows: list[dict], won: list[int]) -> NaiveBayes:
    return NaiveBayes().fit(pd.DataFrame(rows), np.array(won), np.arange(len(won)).astype(str))


def percent(log_odds: float) -> float:
    return round(100 * float(expit(log_odds)), 2)


def test_naive_bayes_gives_the_33_49_of_odoos_first_team():
    # W = 1.1, L = 2.1; country a: .1/1.3 against 1.1/2.3, state b: the same, source c: 1.1/1.3 against .1/2.3. One of two lost reached the second stage: 1.1/2.1.
    team = naive_bayes([{"country": "a", "state": "a", "source": "a"}, {"country": "b", "state": "b", "source": "b"}, {"country": "c", "state": "c", "source": "c"}], [0, 0, 1])
    z = team.log_odds(pd.DataFrame([{"country": "a", "state": "b", "source": "c"}]))[0]
    assert percent(z) == 20.87  # without the stage term; Odoo's own test gives 20.87 in the first stage, which all reached
    assert percent(z - np.log(1.1 / 2.1)) == 33.49


def test_naive_bayes_gives_the_7_74_of_odoos_second_team():
    # country alike for all: 1; state b: .1/1.2 against 2.1/2.2; source c: 1.1/1.2 against 1.1/2.2; both lost leads reached the stage: 1.
    team = naive_bayes([{"country": "a", "state": "b", "source": "b"}, {"country": "a", "state": "b", "source": "c"}, {"country": "a", "state": "c", "source": "c"}], [0, 0, 1])
    assert percent(team.log_odds(pd.DataFrame([{"country": "a", "state": "b", "source": "c"}]))[0]) == 7.74


def test_naive_bayes_skips_what_is_missing_and_gives_the_74_30_of_odoos_tooltip():
    nothing = None
    team = naive_bayes([{"country": "a", "state": "a", "source": "b", "phone": "good"}, {"country": "b", "state": "a", "source": nothing, "phone": "good"},
                        {"country": nothing, "state": nothing, "source": "a", "phone": "bad"}, {"country": "a", "state": nothing, "source": "a", "phone": "bad"},
                        {"country": nothing, "state": "b", "source": nothing, "phone": "good"}], [1, 1, 0, 0, 0])
    z = team.log_odds(pd.DataFrame([{"country": "a", "state": "a", "source": "a", "phone": "good"}]))[0]
    assert percent(z - np.log(1.1 / 3.1)) == 74.30  # one of three lost leads reached the second stage


def test_naive_bayes_without_fields_gives_the_34_38_of_odoos_first_stage():
    team = naive_bayes([{"country": "a"}] * 3, [1, 0, 0])  # 1.1 / 3.2
    assert percent(team.log_odds(pd.DataFrame([{"country": "a"}]))[0]) == 34.38


def test_naive_bayes_gives_odoos_four_numbers_on_tags():
    # 42 won, 105 lost leads; each tag of a lead is a row: tag 1 33 won, 65 lost, tag 2 23 won, 75 lost.
    leads = naive_bayes([{"none": "x"}] * 147, [1] * 42 + [0] * 105)
    tags = naive_bayes([{"tag": "1"}] * 98 + [{"tag": "2"}] * 98, [1] * 33 + [0] * 65 + [1] * 23 + [0] * 75).tables_["tag"]
    found = [percent(leads.prior_ + sum(tags[t] for t in had)) for had in ((), "1", "2", "12")]
    assert found == [28.60, 33.69, 23.51, 28.05]


def world(n: int = 600, seed: int = 3) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"amount": rng.lognormal(8, 1, n), "n_calls": rng.poisson(0.15, n).astype(float), "source": rng.choice(["web", "fair", "call"], n),
                      "flag": pd.Series(rng.random(n) < 0.3, dtype="boolean").mask(rng.random(n) < 0.2), "loose": np.where(rng.random(n) < 0.5, None, rng.random(n) < 0.5),
                      "seen": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, n), "D"), "whole": pd.array(rng.integers(0, 9, n), dtype="Int64")})
    X.loc[::7, "amount"] = np.nan
    X.loc[3, "amount"] = np.inf
    X.loc[::11, "source"] = None
    z = -0.5 + 1.2 * (X["source"] == "fair").to_numpy() + 0.8 * X["n_calls"].to_numpy()
    return X, (rng.random(n) < expit(z)).astype(int), np.repeat(np.arange(n // 2), 2).astype(str)


@pytest.mark.parametrize("rung", RUNGS, ids=lambda r: r.name)
def test_contributions_and_one_constant_make_each_part(rung):
    X, y, groups = world()
    model = rung().fit(X, y, groups)
    parts = model.parts(X)
    assert np.isfinite(parts).all()
    for k, told in enumerate(model.contributions(X)):
        rest = parts[:, k] - told.sum(axis=1).to_numpy()
        assert list(told.columns) == list(X.columns) and np.ptp(rest) < 1e-6


@pytest.mark.parametrize("rung", RUNGS, ids=lambda r: r.name)
def test_a_record_with_nothing_known_and_levels_never_seen_gets_a_finite_score(rung):
    X, y, groups = world()
    strange = X.head(2).assign(source=["moon", None], amount=np.nan, whole=pd.array([None, 99], dtype="Int64"), seen=pd.NaT, flag=pd.array([None, True], dtype="boolean"))
    assert np.isfinite(rung().fit(X, y, groups).parts(strange)).all()


def test_dates_are_numbers_and_yes_and_no_are_levels():
    assert kinds(world()[0]) == (["amount", "n_calls", "seen", "whole"], ["source", "flag", "loose"])


def test_naive_bayes_tells_a_rare_count_from_zero():
    # nine in ten are 0, so every decile is 0: the rest must have a bin of their own
    X, y = pd.DataFrame({"n": [0.0] * 95 + [4.0] * 5}), np.array([0] * 95 + [1] * 5)
    assert np.diff(NaiveBayes().fit(X, y, np.arange(100).astype(str)).log_odds(X)[[0, 99]])[0] > 3


def test_the_segment_has_to_earn_its_values_by_records_not_by_rows():
    rng = np.random.default_rng(0)
    y, groups = np.repeat([0, 1, 0, 1, 0, 0], 50), np.repeat([*"abcdef"], 50)
    X = pd.DataFrame({"noise": np.repeat(list("xxyyxy"), 50)})  # 300 rows, but six records
    assert SegmentRate().fit(X, y, groups).field_ == ""
    many = rng.random(3000) < 0.3
    assert SegmentRate().fit(pd.DataFrame({"real": np.where(many, "x", "y")}), (rng.random(3000) < np.where(many, 0.5, 0.3)).astype(int), np.arange(3000).astype(str)).field_ == "real"


def test_the_logistic_follows_a_bend():
    # events only in the middle: no straight line separates them
    x = np.linspace(1, 100, 2000)
    y = ((x > 30) & (x < 70)).astype(int)
    z = Logistic().fit(pd.DataFrame({"x": x}), y, np.arange(2000).astype(str)).log_odds(pd.DataFrame({"x": [5.0, 50.0, 95.0]}))
    assert z[1] > z[0] + 1 and z[1] > z[2] + 1


def test_the_blend_takes_what_stands_beside_and_is_the_same_without_it():
    X, y, groups = world()
    beside = {r.name: r().fit(X, y, groups) for r in (Logistic, Boosted)}
    with_it, alone = Blend().fit(X, y, groups, beside), Blend().fit(X, y, groups)
    assert with_it.linear_ is beside["logistic regression"] and len(with_it.trees_.models_) == Blend.bags
    assert np.allclose(with_it.parts(X), alone.parts(X))


def test_folds_keep_groups_whole_and_hold_events_evenly():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 300, 2000)
    y = (groups % 4 == 0).astype(int)
    fold = group_folds(y, groups)
    assert pd.Series(fold).groupby(groups).nunique().max() == 1 and set(fold) == set(range(5))
    assert pd.Series(y).groupby(fold).mean().between(y.mean() - 0.03, y.mean() + 0.03).all()


def test_records_alike_are_spread_over_the_folds():
    alike = np.repeat(np.arange(20), 5)  # twenty cells of five records: one in each fold
    fold = group_folds(alike % 2, np.arange(100), alike=alike)
    assert pd.Series(fold).groupby(alike).nunique().eq(5).all()


def test_words_of_a_first_enquiry_are_learned_and_their_points_add_up():
    rng = np.random.default_rng(0)
    keen = rng.random(1500) < 0.4
    X = pd.DataFrame({"enquiry_text": np.where(keen, "Please send your PRICES, offer 12", "just looking around, thanks"), "idle": rng.normal(size=1500)})
    X.loc[::9, "enquiry_text"] = None
    model = Logistic().fit(X, (rng.random(1500) < np.where(keen, 0.6, 0.1)).astype(int), np.arange(1500).astype(str))
    assert model.words_["enquiry_text"].terms_ == ["around", "just", "looking", "offer", "please", "prices", "send", "thanks", "your"]
    told = model.contributions(X)[0]
    assert told["enquiry_text"][keen & X["enquiry_text"].notna()].mean() > 1 > told["enquiry_text"][~keen].mean() and np.ptp(model.log_odds(X) - told.sum(axis=1)) < 1e-9
    assert kinds(X) == (["idle"], [])


def test_vocabulary_is_that_of_the_rows_learned_from():
    X = pd.DataFrame({"enquiry_text": ["seen before"] * 50 + ["never seen"] * 50})
    model = Logistic().fit(X.head(50), np.arange(50) % 2, np.arange(50).astype(str))
    assert model.words_["enquiry_text"].terms_ == ["before", "seen"] and np.isfinite(model.log_odds(X)).all()
