"""What a score is worth: nobody who refused is listed, the list is cut and ordered by money, rivals are compared in pairs, profits are those of brute force."""

import html

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from workbench.errors import WorkbenchError
from workbench.models import bands, value
from workbench.plots import value as plots

HOSTILE = "<script>alert(1)</script>"


class Truthy:
    def __str__(self):
        return "do not call"


def scores(may_call, p=None, **more) -> pd.DataFrame:
    n = len(may_call)
    return pd.DataFrame({"id": [f"s:{i}" for i in range(n)], "name": [f"{HOSTILE} {i}" for i in range(n)], "p_convert": np.linspace(.9, .1, n) if p is None else p,
                         "may_call": pd.Series(may_call, dtype=object), **more})


def judged(n: int = 3000, strength: float = 1.5, seed: int = 0, pools: int = 6, per: int = 3) -> pd.DataFrame:
    """Rows whose p is true; each record stands in `per` of the pools; newest tells nothing, crm half as much as the score."""
    rng = np.random.default_rng(seed)
    z, group = rng.normal(size=n // per), np.repeat(np.arange(n // per), per)
    p = expit(-2 + strength * z)
    y = np.repeat(rng.random(n // per) < p, per)
    return pd.DataFrame({"p": p[group], "y": y.astype(int), "group": group, "pool": np.tile(np.arange(n) % pools, 1), "newest": rng.normal(size=n),
                         "crm": np.round(z[group] * .5 + rng.normal(size=n // per)[group])})


@pytest.mark.parametrize("hostile", ["False", "no", "0", 0, 0.0, False, np.False_, "", " ", "None", "nan", "do not call", 2, -1, Truthy(), [True], ["no"], (), b"True", "true false"])
def test_what_is_no_clear_yes_is_never_called(hostile):
    listed = value.call_list(scores([True, hostile, True]), calls_per_day=10)
    assert listed["id"].tolist() == ["s:0", "s:2"]


@pytest.mark.parametrize("yes", [True, np.True_, 1, 1.0, "True", "true ", "YES", "1", "y"])
def test_a_clear_yes_is_called_as_given(yes):
    assert value.call_list(scores([yes]), calls_per_day=1)["consent"].tolist() == ["given"]


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, pd.NaT])
def test_of_whom_nothing_is_said_may_be_called_and_that_is_told(nothing):
    listed = value.call_list(scores([nothing, True]), calls_per_day=5)
    assert listed["consent"].tolist() == ["not said", "given"] and "may_call" not in listed


def test_a_nullable_column_of_booleans_is_read_alike():
    frame = scores([True, False, None]).assign(may_call=pd.array([True, False, None], dtype="boolean"))
    assert value.call_list(frame, calls_per_day=9)["id"].tolist() == ["s:0", "s:2"]


def test_the_list_is_cut_to_calls_a_day_times_days():
    frame = scores([True] * 30)
    assert [len(value.call_list(frame, calls_per_day=c, days=d)) for c, d in ((4, 5), (4.5, 1), (0, 5), (-3, 1), (100, 1))] == [20, 4, 0, 0, 30]


def test_whom_to_call_is_ordered_by_chance_times_value_where_values_are_known():
    # worth: .9 x 100 = 90, .5 x 1000 = 500, .1 x median(100, 1000) = 55; sums 500, 590, 645
    frame = scores([True] * 3, value=[100.0, 1000.0, None])
    listed = value.call_list(frame, calls_per_day=3)
    assert listed["id"].tolist() == ["s:1", "s:0", "s:2"] and listed["expected_value"].tolist() == pytest.approx([500, 590, 645]) and listed["expected"].tolist() == pytest.approx([.5, 1.4, 1.5])
    # without the column one value for all leaves the order: .9 x 40 = 36
    one = value.call_list(frame.drop(columns="value"), calls_per_day=1, value=40)
    assert one["id"].tolist() == ["s:0"] and one["worth"].tolist() == pytest.approx([36])
    assert value.call_list(frame.drop(columns="value"), calls_per_day=3)["worth"].isna().all()


def test_without_probabilities_the_order_stays():
    frame = scores([True, False, True], p=[None] * 3, value=[1.0, 2.0, 3.0])
    listed = value.call_list(frame, calls_per_day=9)
    assert listed["id"].tolist() == ["s:0", "s:2"] and listed[["worth", "expected"]].isna().all(axis=None)
    assert value.call_list(frame.head(0), calls_per_day=3).empty


def test_ratings_have_their_order_and_unknown_ones_must_be_named():
    assert value.ordinal(pd.Series(["Hot", " warm", None, "COLD"])).tolist()[:2] == [3, 2] and value.ordinal(pd.Series(["7", 3, None], dtype=object))[:2].tolist() == [7, 3]
    assert value.ordinal(pd.Series(["b", "a"]), ["a", "b"]).tolist() == [1, 0]
    with pytest.raises(WorkbenchError, match="no known order"):
        value.ordinal(pd.Series(["Hot", HOSTILE], name="x_grade"))
    with pytest.raises(WorkbenchError, match="no known order"):
        value.ordinal(pd.Series(["a", "z"]), ["a", "b"])


def test_rivals_stand_beside_the_row_that_they_were_known_at():
    told = pd.DataFrame({"as_of": pd.to_datetime(["2025-01-01", "2025-01-08", "2025-01-08"]), "age_days": [1.0, 8, 2], "order": [0, 1, 2], "rating": ["Hot", "Cold", None]})
    rows = pd.DataFrame({"row": [2, 1], "group": ["b", "a"], "y": [0, 1], "p": [.1, .2]}, index=[7, 9])
    out = value.with_rivals(rows, told, score_at="grid", crm="rating")
    assert out["newest"].tolist() == [-2, -8] and out["pool"].nunique() == 1 and np.isnan(out["crm"][0]) and out["crm"][1] == 1
    assert value.with_rivals(rows, told.drop(columns="age_days"), score_at="creation")["newest"].tolist() == [2, 1]
    with pytest.raises(WorkbenchError, match="not known as it stood"):
        value.with_rivals(rows, told, score_at="grid", crm="x_score")


def test_precision_is_that_of_the_best_in_each_pool():
    # two pools of four; half of each is called: p .9, .8 (1 of 2 came) and .4, .3 (1 of 2): 2 of 4; newest calls the reverse: 1 of 4; base 3 of 8
    rows = pd.DataFrame({"p": [.9, .8, .1, .0, .4, .3, .2, .1], "y": [1, 0, 1, 0, 1, 0, 0, 0], "group": range(8), "pool": [1] * 4 + [2] * 4, "newest": [1, 2, 3, 4] * 2})
    row = value.lift(rows, capacities=(.5,)).iloc[0]
    assert (row["n_called"], row["precision"], row["newest"], row["more"]) == (4, .5, .25, .25) and row["lift"] == pytest.approx(.5 / .375)
    assert row["low"] <= .5 <= row["high"] and "crm" not in row
    assert value.lift(rows, capacities=(1,)).iloc[0][["n_called", "precision"]].tolist() == [2, 1]  # one call a pool: .9 and .4, both came


def test_the_old_columns_of_lift_keep_their_names():
    assert {"capacity", "n_called", "precision", "low", "high", "newest", "newest_low", "newest_high", "lift", "more", "more_low", "more_high"} <= set(value.lift(judged(300)))
    assert list(value.lift(judged(300).head(0))) == list(value.lift(judged(300)))


def test_a_better_score_is_told_from_newest_first_and_from_the_crm_s():
    table = value.lift(judged()).set_index("capacity")
    assert (table["more_low"] > 0).all() and (table.loc[[.1, .2], "more_crm_low"] > 0).all()
    told = value.lift_sentence(table.reset_index(), .2)
    assert told.count("the score does better") == 2 and "first 20%" in told


def test_a_score_that_is_the_crm_s_own_is_no_better_and_a_worse_one_is_called_worse():
    rows = judged()
    same = value.lift(rows.assign(crm=rows["p"]))
    assert (same[["more_crm", "more_crm_low", "more_crm_high"]] == 0).all(axis=None) and "no difference can be told" in value.lift_sentence(same)
    assert "**worse**" in value.lift_sentence(value.lift(rows.assign(crm=rows["y"])))


def test_where_the_crm_gave_no_score_it_comes_last():
    rows = judged(600)
    rows["crm"] = np.where(rows["y"] == 1, np.nan, 1.0)  # none that came has one
    assert value.lift(rows, capacities=(.3,))["crm"][0] == 0


def test_the_interval_of_a_precision_holds_the_true_one():
    # the top fifth's true precision, from 60 samples of one law; each record stands three times
    tables = [value.lift(judged(900, seed=s), capacities=(.2,)).iloc[0] for s in range(60)]
    truth = judged(300_000, seed=99, pools=1, per=1)["p"].nlargest(60_000).mean()
    assert sum(t["low"] <= truth <= t["high"] for t in tables) >= 52  # of 57 expected


@pytest.mark.parametrize("seed", range(12))
def test_the_best_cut_is_the_one_that_brute_force_finds(seed):
    rng = np.random.default_rng(seed)
    p, gain = np.round(rng.random(60), 1 if seed % 2 else 6), rng.normal(-.3, 1, 60)  # odd: many equals
    brute = max([(0.0, np.inf), *((gain[p >= cut].sum(), cut) for cut in p)])
    assert value.best_cut(p, gain) == brute[1] and gain[p >= value.best_cut(p, gain)].sum() == pytest.approx(brute[0])
    assert value.best_cut(p, -np.abs(gain)) == np.inf and value.best_cut(np.empty(0), np.empty(0)) == np.inf


def test_the_curve_is_what_calling_down_to_each_cut_earns():
    rows = judged(900)
    curve = value.profit_curve(rows, cost_per_call=3, value_per_conversion=20)
    for row in curve.itertuples():
        chosen = rows[rows["p"] >= row.cut]
        assert row.profit == pytest.approx(100 * (20 * chosen["y"].sum() - 3 * len(chosen)) / 900) and row.share == pytest.approx(len(chosen) / 900)
    assert curve.iloc[0][["share", "profit", "low", "high"]].tolist() == [0, 0, 0, 0] and curve["share"].iloc[-1] == 1 and len(curve) > 40
    assert ((curve["low"] <= curve["profit"]) & (curve["profit"] <= curve["high"])).all()


def test_every_policy_earns_what_a_count_says():
    rows = judged(1200)
    table = value.cut_table(rows, cost_per_call=3, value_per_conversion=20)
    earned = lambda chosen: 100 * (20 * chosen["y"].sum() - 3 * len(chosen)) / 1200  # noqa: E731
    assert table.loc["everybody", "profit"] == pytest.approx(earned(rows)) and table.loc["nobody", "profit"] == 0
    even = rows[rows["p"] >= 3 / 20]
    assert table.loc["even", ["cut", "profit", "more"]].tolist() == pytest.approx([.15, earned(even), 0])
    new = pd.concat([part.nlargest(int((part["p"] >= .15).sum()), "newest") for _, part in rows.groupby("pool")])
    assert table.loc["newest", ["share", "profit"]].tolist() == pytest.approx([len(even) / 1200, earned(new)])
    best = max(earned(rows[rows["p"] >= cut]) for cut in rows["p"].unique())
    assert table.loc["same", "profit"] == pytest.approx(best) and (table["profit"] <= best + 1e-9).all()
    assert table.loc["everybody", "more"] == pytest.approx(earned(even) - earned(rows))


def test_a_cut_judged_on_the_rows_that_chose_it_flatters_and_the_other_half_does_not():
    # p tells nothing and a call loses .3 on average (value 10, base .1, cost 1.3): the honest profit of any cut is 0 or below
    flattered, honest = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows = pd.DataFrame({"p": rng.random(300), "y": (rng.random(300) < .1).astype(int), "group": range(300), "pool": 0, "newest": range(300)})
        table = value.cut_table(rows, cost_per_call=1.3, value_per_conversion=10, seed=seed)
        flattered, honest = [*flattered, table.loc["same", "profit"]], [*honest, table.loc["crossed", "profit"]]
    assert min(flattered) >= 0 and np.mean(flattered) > 1 and np.mean(honest) < 0


def test_a_record_s_snapshots_are_called_on_one_side_of_the_halves_only():
    # each record twice, told apart by nothing but its own p: were halves drawn by row, the cut would know every outcome
    rng = np.random.default_rng(3)
    p, y = np.repeat(rng.random(200), 2), np.repeat(rng.random(200) < .2, 2).astype(int)
    rows = pd.DataFrame({"p": p, "y": y, "group": np.repeat(range(200), 2), "pool": 0, "newest": 0.0})
    once = rows.iloc[::2]
    a, b = (value.cut_table(r, cost_per_call=1, value_per_conversion=5) for r in (rows, once))
    assert np.allclose(a.drop(index="newest")[["cut", "profit"]].to_numpy(float), b.drop(index="newest")[["cut", "profit"]].to_numpy(float))
    assert np.allclose(a.drop(index="newest")[["low", "high"]], b.drop(index="newest")[["low", "high"]])  # and twice the rows are no more certain


@pytest.mark.parametrize("cost, worth", [(-1, 10), (1, 0), (1, -5), (float("nan"), 10), (1, float("inf"))])
def test_costs_that_make_no_sense_are_refused(cost, worth):
    for made in (value.profit_curve, value.cut_table):
        with pytest.raises(WorkbenchError, match="A call costs"):
            made(judged(60), cost_per_call=cost, value_per_conversion=worth)


def test_sentences_tell_the_numbers_and_no_text_of_the_crm():
    rows = judged(1500)
    cuts = value.cut_table(rows, cost_per_call=5, value_per_conversion=50)
    told = value.profit_sentence(cuts, currency="EUR", noun="lead snapshot")
    assert "**10.0%**" in told and f"**{cuts.loc['even', 'profit']:,.0f} EUR**" in told and "past does not tell" in told and "nan" not in told
    assert "script" not in html.unescape(told + value.lift_sentence(value.lift(rows)))
    none = rows.head(0)
    assert "no profit" in value.profit_sentence(value.cut_table(none, cost_per_call=5, value_per_conversion=50)) and "nothing to compare" in value.lift_sentence(value.lift(none))
    assert value.profit_curve(none, cost_per_call=5, value_per_conversion=50).empty


def test_free_calls_pay_for_everybody():
    table = value.cut_table(judged(300), cost_per_call=0, value_per_conversion=10)
    assert table.loc["even", "share"] == 1 and table.loc["even", "profit"] == table.loc["everybody", "profit"] == table.loc["same", "profit"]


def test_figures_show_what_the_tables_say_and_empty_ones_say_so():
    rows = judged(900).assign(luck=lambda r: r["group"])
    labels = pd.DataFrame({"source": np.where(np.arange(900) % 2, "web", HOSTILE * 2)})
    costs = {"cost_per_call": 5, "value_per_conversion": 50}
    made = [(plots.plot_bands(bands.band_table(r)), plots.plot_profit(value.profit_curve(r, **costs), value.cut_table(r, **costs), currency="EUR"),
             plots.plot_segments(bands.segments(r, labels.iloc[:len(r)]))) for r in (rows, rows.head(0))]
    for figure in made[0]:
        assert figure.data and not figure.layout.annotations and figure.layout.height >= 160 and figure.layout.yaxis.automargin
    assert [f.layout.annotations[0].text for f in made[1]] == ["Nothing to show."] * 3
    table = bands.band_table(rows)
    assert list(made[0][0].data[1].y) == table["p_mean"].tolist() and list(made[0][0].data[0].error_y.array) == pytest.approx((table["high"] - table["observed"]).tolist())
    even = next(t for t in made[0][1].data if t.name == "break-even cut")
    assert even.y[0] == value.cut_table(rows, **costs).loc["even", "profit"] and "EUR" in made[0][1].layout.yaxis.title.text
    assert max(map(len, made[0][2].layout.yaxis.ticktext)) <= 32 and sum(len(t.x) for t in made[0][2].data) == 2
