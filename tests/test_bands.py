"""Bands, drift and segments: what is counted adds up, small samples do not cry wolf, small segments borrow, and real moves are named."""

import numpy as np
import pandas as pd
import pytest

from workbench.models import bands


def judged(p, y, luck=None) -> pd.DataFrame:
    return pd.DataFrame({"p": np.asarray(p, float), "y": np.asarray(y, int), "luck": np.arange(len(p)) if luck is None else luck})


def segmented(seed: int, spread: float, snapshots: int = 1, sizes=(3, 10, 40, 200), n_segments: int = 20):
    """Judged rows of segments whose true rates are the said ones times exp(normal of `spread`), each record `snapshots` times; segment and truth."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(n_segments), rng.choice(sizes, n_segments))
    p, times = rng.beta(1, 4, len(of)), np.exp(rng.normal(0, spread, n_segments))
    true = np.clip(p * times[of], 0, 1)
    y, of_row = rng.random(len(of)) < true, np.repeat(of, snapshots)
    truth = pd.Series(true).groupby(of).sum() / pd.Series(p).groupby(of).sum()
    return judged(np.repeat(p, snapshots), np.repeat(y, snapshots), np.repeat(np.arange(len(of)), snapshots)), pd.DataFrame({"team": of_row}), truth


def test_wilson_s_interval_holds_the_share_and_stays_within_0_and_1():
    # textbook: 10 of 20 -> .299 to .701; none of 10 -> 0 to 3.84 / 13.84 = .278
    assert np.allclose(bands.wilson(.5, 20), (.299, .701), atol=1e-3) and np.allclose(bands.wilson(0, 10), (0, .278), atol=1e-3)


def test_a_band_tells_what_was_expected_and_what_came():
    # base rate 1/2: odds of .9 are 9 (A), of .1 are 1/9 (E); A: 3 x .9 expected, 2 came
    table = bands.band_table(judged([.9, .9, .9, .1, .1, .1], [1, 1, 0, 0, 0, 1])).set_index("band")
    assert table.loc["A", ["n", "expected", "actual"]].tolist() == [3, pytest.approx(2.7), 2] and table["n"].sum() == 6 and table["actual"].sum() == 3
    assert table.loc["A", ["low", "high"]].tolist() == pytest.approx(bands.wilson(2 / 3, 3)) and table["meaning"].notna().all()


def test_snapshots_of_one_record_do_not_narrow_an_interval():
    p, y = np.full(40, .5), np.tile([0, 1], 20)
    once, often = bands.band_table(judged(p, y)), bands.band_table(judged(np.repeat(p, 9), np.repeat(y, 9), np.repeat(np.arange(40), 9)))
    assert often["n"][0] == 360 and once["n_records"][0] == often["n_records"][0] == 40 and once["low"][0] == often["low"][0]


def test_every_judged_row_is_in_one_bin_of_equal_mass():
    p = np.random.default_rng(0).random(105)
    table = bands.calibration_bins(judged(p, p > .5))
    assert table["n"].sum() == 105 and set(table["n"]) == {10, 11} and table["p_mean"].is_monotonic_increasing and table["expected"].sum() == pytest.approx(p.sum())


def test_no_rows_give_empty_tables():
    assert bands.band_table(judged([], [])).empty and bands.calibration_bins(judged([], [])).empty and bands.segments(judged([], []), pd.DataFrame({"team": []})).empty
    assert bands.stability(pd.DataFrame({"x": [1.0]}), pd.DataFrame({"x": []}), ["x"]).empty


def frames(rng, n: int, fields: int = 20) -> pd.DataFrame:
    return pd.DataFrame({f"f{i}": rng.normal(size=n) if i % 2 else rng.choice(list("abcdefgh"), n) for i in range(fields)})


def test_a_small_sample_that_did_not_move_does_not_cry_wolf():
    # 30 open records in ten groups: psi passes .25 by chance alone in many fields, and the reading says chance
    wolf, naive, above = 0, 0, 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        table = bands.stability(frames(rng, 800), frames(rng, 30), [f"f{i}" for i in range(20)], draws=1000, seed=seed)
        naive, above, wolf = naive + (table["psi"] > .25).sum(), above + (table["psi"] > table["chance"]).sum(), wolf + table["reading"].isin(["look", "moved"]).any()
    assert naive > 150 and wolf <= 5  # 5 % of 30 runs = 1.5; 6 or more come in less than 1 of 100
    assert 15 <= above <= 50  # chance is a 95th percentile: 30 of 600


def test_what_moved_is_named_with_its_shares_then_and_now():
    then = pd.DataFrame({"source": ["web"] * 500 + ["fair"] * 500, "age": np.arange(1000.0)})
    now = pd.DataFrame({"source": ["web"] * 20 + ["fair"] * 60 + [None] * 20, "age": np.linspace(0, 999, 100)})
    table = bands.stability(then, now, ["age", "source"])
    first = table.iloc[0]
    assert first["field"] == "source" and first["reading"] == "moved" and (first["where"], first["share_then"], first["share_now"]) == ("web", .5, .2)
    assert table.iloc[1]["reading"] == "stable" and first["psi"] > .25 > first["chance"]


def test_the_index_is_the_textbook_s():
    # shares .4, .6 -> .6, .4: .2 ln 1.5 + .2 ln 1.5 = .1622
    then, now = pd.DataFrame({"x": ["a"] * 4000 + ["b"] * 6000}), pd.DataFrame({"x": ["a"] * 6000 + ["b"] * 4000})
    assert bands.stability(then, now, ["x"])["psi"][0] == pytest.approx(.1622, abs=1e-3) and bands.stability(then, now, ["x"])["reading"][0] == "look"


def test_snapshots_of_few_records_are_no_proof_that_something_moved():
    # 12 records, 200 snapshots each: 8 of 12 against 30 of 80 looks certain by rows and is not by records
    then, now = pd.DataFrame({"x": np.repeat(["a"] * 8 + ["b"] * 4, 200)}), pd.DataFrame({"x": ["a"] * 30 + ["b"] * 50})
    assert bands.stability(then, now, ["x"])["reading"][0] == "moved" and bands.stability(then, now, ["x"], groups=np.repeat(np.arange(12), 200))["reading"][0] == "chance"


@pytest.mark.parametrize("snapshots", [1, 8])
def test_a_segment_s_interval_holds_its_truth_as_often_as_it_says(snapshots):
    held = wrong = n = 0
    for seed in range(25):
        rows, labels, truth = segmented(seed, .3, snapshots)
        table = bands.segments(rows, labels, draws=1500, seed=seed).assign(truth=lambda t, truth=truth: truth.loc[t["segment"].astype(int)].to_numpy())
        held, n = held + table["truth"].between(table["low"], table["high"]).sum(), n + len(table)
        wrong += ((table["reading"] == "more than said") & (table["truth"] < 1)).sum() + ((table["reading"] == "less than said") & (table["truth"] > 1)).sum()
    assert .92 <= held / n <= .98 and wrong <= 2  # 500 intervals of 95 %: a standard error of 1 %


def test_where_no_segment_differs_none_is_accused():
    assert sum((bands.segments(*segmented(seed, 0)[:2], draws=1500)["reading"] != "as said").any() for seed in range(25)) <= 2  # at most 1 in 20 is allowed


def test_a_small_segment_borrows_and_one_never_seen_is_given_what_the_others_do():
    rng = np.random.default_rng(1)
    team = np.repeat(["big", "other", "tiny"], [4000, 4000, 4])
    rows = judged(np.full(8004, .2), np.r_[rng.random(4000) < .2, rng.random(4000) < .2, np.ones(4)])  # tiny: 4 of 4 where .8 was expected, five times
    table = bands.segments(rows, pd.DataFrame({"team": team}), open_labels=pd.DataFrame({"team": ["new", "new", "big"]})).set_index("segment")
    assert .9 < table.loc["tiny", "ratio"] < 2 and table.loc["tiny", "actual"] == 4 and table.loc["tiny", "reading"] == "as said"
    assert table.loc["new", ["n", "n_open"]].tolist() == [0, 2] and .8 < table.loc["new", "ratio"] < 1.2 and table.loc["big", "n_open"] == 1
    wide, narrow = (table.loc[s, "high"] - table.loc[s, "low"] for s in ("new", "big"))
    assert wide > narrow and set(table.index) == {"big", "other", "tiny", "new"}


def test_a_segment_that_does_twice_as_well_is_flagged():
    rng = np.random.default_rng(2)
    team = np.repeat([f"t{i}" for i in range(12)], 300)
    y = rng.random(3600) < np.where(team == "t3", .4, .2)
    table = bands.segments(judged(np.full(3600, .2), y), pd.DataFrame({"team": team})).set_index("segment")
    assert table.loc["t3", "reading"] == "more than said" and (table["reading"] != "as said").sum() == 1 and table.loc["t3", "low"] > 1.3


def test_one_and_no_value_of_a_label_are_segments_too():
    table = bands.segments(judged([.5] * 10, [1, 0] * 5), pd.DataFrame({"team": [None] * 10}))
    assert table["segment"].tolist() == [bands.EMPTY] and table["reading"][0] == "as said" and np.isfinite(table[["ratio", "low", "high"]].to_numpy(float)).all()
