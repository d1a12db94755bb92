"""Changes of scores add up, tell data from model, and say of those that left what had been said; outcomes are those that training counts."""

import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from workbench import ledger
from workbench.features.snapshots import snapshots
from workbench.lake import open_lake
from workbench.models.calibration import Platt
from workbench.models.changes import LEAST, changes, outcomes, remember, total_points
from workbench.models.leads import lead_scores
from workbench.models.learners import RUNGS
from workbench.models.reasons import POINT
from workbench.models.saved import load_model, model_card

NOW = datetime(2025, 6, 1)
THEN = NOW - timedelta(days=7)
HOSTILE = "<script>alert(1)</script>[x](javascript:alert(1))"
HORIZON = 30


def days(n: float) -> datetime:
    return NOW + timedelta(days=n)


def story(n: int = 900, seed: int = 3) -> pd.DataFrame:
    """Versions of leads born over 300 days: visits grow every week, and with source fair they decide who converts; the others are lost after 9 weeks."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        born, visits, eager = rng.uniform(-300, 0), 0, rng.random() < 0.4
        row = {"id": f"s:{i}", "name": f"Lead {i} {HOSTILE}", "source": rng.choice(["web", "fair", HOSTILE]), "created_at": days(born), "is_converted": False, "is_lost": False}
        for week in range(10):
            visits += rng.poisson(2.0 if eager else 0.5)
            won = rng.random() < expit(-5.5 + 0.35 * visits + 1.5 * (row["source"] == "fair"))
            rows.append(row | {"valid_from": days(born + 7 * week), "n_visits": visits, "is_converted": won, "is_lost": not won and week == 9})
            if won:
                break
    return pd.DataFrame(rows)


def load(lake, rows: pd.DataFrame) -> None:
    with lake.writer():
        lake.load_versions("lead", rows, origin="crm_history")


def sold(s) -> int:
    """Horizons that a score is given for."""
    return int((s.horizons["verdict"] == "usable").sum())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A production run a week ago on what was known then, put on record; the lake went on, and today's run."""
    lake, rows = open_lake(tmp_path_factory.mktemp("lake"), create=True), story()
    load(lake, rows[rows["valid_from"] <= THEN])
    earlier = lead_scores(lake, as_of=THEN, source="s", horizon_days=HORIZON)
    assert remember(lake, earlier, purpose="production", made_at=THEN, run="10_lead_scoring") == len(earlier.scores) * sold(earlier) > 100
    load(lake, rows[rows["valid_from"] <= NOW])
    return lake, earlier, lead_scores(lake, as_of=NOW, source="s", horizon_days=HORIZON)


@pytest.fixture(scope="module")
def found(runs):
    lake, _, s = runs
    return changes(lake, s, explained=10_000)



def test_every_change_is_the_sum_of_its_parts(found):
    r = found.rows[found.rows["change"].notna()]
    assert len(r) > 80 and r["parts"].notna().all()
    np.testing.assert_allclose(r["points_now"] - r["points_then"], r["change"], atol=1e-9)
    np.testing.assert_allclose(r["data"] + r["model"], r["change"], atol=1e-9)
    np.testing.assert_allclose([sum(p.values()) for p in r["parts"]], r["data"], atol=1e-9)
    np.testing.assert_allclose(logit(r["p_now"]) / POINT, r["points_now"], atol=1e-6)  # ten points double the odds


def test_the_parts_of_the_rungs_with_trees_add_up_too(runs):
    lake, _, s = runs
    told, X = s.spine.frame[s.spine.frame["event"].notna()], s.spine.features
    for rung in (RUNGS[4](2), RUNGS[5]()):
        rung.fit(told[X], told["event"].to_numpy(int), told["id"].to_numpy(object))
        scorer = replace(s.scorer, rung=rung, map=Platt().fit(rung.parts(told[X]), told["event"].to_numpy(int)))
        r = changes(lake, replace(s, scorer=scorer), explained=40).rows
        assert r["parts"].notna().sum() == r["sentence"].notna().sum() == 40 and r["model"].abs().median() > 1  # another kind of model: said to be the model
        part = r[r["parts"].notna()]
        np.testing.assert_allclose([sum(p.values()) for p in part["parts"]], part["data"], atol=1e-9)
        moved = (r["p_now"] - r["p_then"]).abs()
        assert moved[r["parts"].notna()].min() >= moved[r["parts"].isna()].max()  # those that moved most


def test_what_was_said_then_is_what_the_ledger_holds(runs, found):
    lake, earlier, _ = runs
    said = earlier.scores.set_index("id")["p_convert"]
    np.testing.assert_array_equal(found.rows.loc[said.index, "p_then"], said)
    assert found.then == THEN and found.rows["p_then"].notna().sum() == len(said)


def test_by_the_model_of_then_the_model_moved_nothing_and_the_data_everything(runs):
    lake, earlier, s = runs
    same = load_model(lake.path / "_models" / ledger.scores(lake)["model"].iloc[0])  # from the disk, as it was saved
    r = changes(lake, replace(s, scorer=same)).rows.dropna(subset="change")
    np.testing.assert_allclose(r["model"], 0, atol=1e-9)
    np.testing.assert_allclose(r["data"], r["change"], atol=1e-9)
    assert r["data"].abs().mean() > 3


def test_data_that_came_late_are_data_and_not_the_model(runs, tmp_path):
    lake = open_lake(tmp_path / "lake", create=True)
    rows = story(400)
    rows = rows[rows["valid_from"] <= THEN]
    load(lake, rows)
    s = replace(runs[2], spine=snapshots(lake, "lead", as_of=THEN, horizon_days=HORIZON, source="s"))
    s.scores = s.spine.open.assign(p_convert=s.scorer.probabilities(s.spine.open[s.spine.features]), p_low=None, p_high=None, band=None)
    s.points = s.points.head(0)
    remember(lake, s, purpose="production", made_at=THEN)
    load(lake, rows.assign(n_visits=rows["n_visits"] + 1))  # the CRM's history, told anew: everybody had a visit more all along
    later = replace(s, spine=replace(s.spine, as_of=NOW, open=snapshots(lake, "lead", as_of=THEN, horizon_days=HORIZON, source="s").open))
    r = changes(lake, later).rows
    np.testing.assert_allclose(r["model"], 0, atol=1e-9)
    assert (r["data"] > 0.5).all()


def test_those_that_entered_and_left_are_told_with_what_had_been_said(runs, found):
    lake, earlier, s = runs
    r, then, now = found.rows, set(earlier.scores["id"]), set(s.scores["id"])
    state = story().query("valid_from <= @NOW").drop_duplicates("id", keep="last").set_index("id")
    assert set(r.index[r["state"] == "entered"]) == now - then and set(r.index[r["state"] == "open"]) == now & then
    assert set(r.index[r["state"] == "won"]) == {i for i in then - now if state.loc[i, "is_converted"]} and set(r.index[r["state"] == "lost"]) == {i for i in then - now if state.loc[i, "is_lost"]}
    assert r.loc[r["state"] == "entered", ["p_then", "change"]].isna().all(axis=None) and r.loc[r["state"].isin(["won", "lost"]), ["p_now", "change"]].isna().all(axis=None)
    assert r["name"].notna().all()


def test_the_summary_counts_them_and_holds_no_text_of_the_crm(found):
    n, text = found.rows["state"].value_counts(), found.summary()
    assert f"**{n['entered']} leads entered and {n['won'] + n['lost']} left: {n['won']} converted, {n['lost']} lost, 0 deleted or merged**" in text
    assert f"The {n['won']} that converted had been given {found.rows.loc[found.rows['state'] == 'won', 'p_then'].mean():.0%} on average" in text
    assert f"{(found.rows['change'] >= LEAST).sum()} rose" in text and "2025-05-25" in text and "script" not in text


def test_movers_are_those_whose_probability_moved_most_in_order(found):
    rows = pd.DataFrame({"name": list("abcdefg"), "p_then": [.5, .001, .5, .5, .5, .3, .5], "p_now": [.9, .01, .7, .1, .4, .1, .51], "change": [31.7, 33.2, 12.2, -31.7, -5.8, -19.5, 0.6], "sentence": ""})
    assert replace(found, rows=rows).movers(2)["name"].tolist() == ["a", "c", "f", "d"]  # from .1 % to 1 % are many points, and nobody's business
    assert replace(found, rows=rows).movers()["name"].tolist() == ["a", "c", "b", "e", "f", "d"]  # g moved by less than three points
    assert found.movers()["sentence"].notna().all() and len(found.movers()) == 10


def test_a_sentence_tells_old_and_new_values_with_their_points(found):
    first = found.movers(1).iloc[0]
    row = found.rows.loc[found.movers(1).index[0]]
    assert first["sentence"].startswith(f"{row['p_then']:.0%} → {row['p_now']:.0%} ({row['change']:+.0f} points): number of visits ")
    assert f"({row['parts']['n_visits']:+.0f})" in first["sentence"] and " → " in first["sentence"].split(":")[1]


def test_without_a_run_on_record_the_week_before_is_scored_by_todays_model(runs):
    lake, _, s = runs
    bare = open_lake(lake.path, version=lake.version)
    r = changes(replace_ledger(bare), s)
    assert r.then == THEN and "No earlier run is on record" in r.summary()
    moved = r.rows.dropna(subset="change")
    np.testing.assert_allclose(moved["model"], 0, atol=1e-9)
    grid = s.spine.frame[s.spine.frame["as_of"] == THEN].set_index("id")
    np.testing.assert_allclose(total_points(s.scorer, grid[s.spine.features]).loc[moved.index], moved["points_then"], atol=1e-9)
    assert set(r.rows.index[r.rows["state"] != "entered"]) == set(grid.index) and {"won", "lost"} <= set(r.rows["state"])


def replace_ledger(lake):
    """The same lake, seen from a folder that has no ledger."""
    class Elsewhere:
        path = lake.path / "none"

        def __getattr__(self, name):
            return getattr(lake, name)
    return Elsewhere()


def copy_of(lake, tmp_path):
    return open_lake(shutil.copytree(lake.path, tmp_path / "copy"))


def test_since_names_the_run_to_compare_with(runs, tmp_path):
    lake, earlier, s = copy_of(runs[0], tmp_path), *runs[1:]
    frame = earlier.scores[["id"]].assign(p=0.5)
    for age, purpose in ((28, "production"), (3, "backtest")):
        ledger.write_scores(lake, frame, purpose=purpose, model="old", as_of=days(-age), lake_version=lake.version, source="s", made_at=NOW, horizon_days=HORIZON)
    assert changes(lake, s).then == THEN  # a backtest is no run that anybody was told of
    assert changes(lake, s, since=days(-8)).then == changes(lake, s, since=days(-28)).then == days(-28)
    assert changes(lake, s, since=THEN).then == THEN
    none = changes(lake, s, since=days(-29))
    assert none.then == THEN and "No earlier run" in none.note


def test_a_lake_version_that_is_gone_is_replaced_by_what_is_known_today(runs, tmp_path):
    lake, _, s = copy_of(runs[0], tmp_path), *runs[1:]
    said = ledger.latest_run(lake, before=NOW, source="s", horizon_days=HORIZON)
    ledger.write_scores(lake, said, purpose="production", model="vacuumed", as_of=days(-6), lake_version=999, source="s", made_at=NOW, horizon_days=HORIZON)
    r = changes(lake, s, since=days(-6))
    assert r.then == days(-6) and np.allclose((r.rows["data"] + r.rows["model"] - r.rows["change"]).dropna(), 0, atol=1e-9) and r.rows["change"].notna().sum() > 80


def test_where_no_score_is_sold_now_states_are_told_without_numbers(runs):
    lake, _, s = runs
    unsold = replace(s, scorer=None, scores=s.scores.assign(p_convert=None))
    r = changes(lake, unsold, since=THEN)
    assert r.rows["change"].isna().all() and r.rows["p_then"].notna().any() and "converted had been given" in r.summary() and r.movers().empty
    assert remember(lake, unsold, purpose="production", made_at=NOW) == 0


def test_an_export_without_history_has_nothing_to_compare_with(runs):
    lake, _, s = runs
    r = changes(replace_ledger(lake), replace(s, spine=replace(s.spine, score_at="creation")))
    assert r.then is None and r.summary() == "No earlier run is on record, and these data have no history to compare with." and set(r.rows["state"]) == {"entered"}


def test_a_run_remembers_once_what_it_said_and_what_it_said_it_with(runs):
    lake, _, s = runs
    assert remember(lake, s) == 0  # no run says that anything is to be kept
    assert [remember(lake, s, purpose="exploration", made_at=NOW), remember(lake, s, purpose="exploration", made_at=days(1))] == [len(s.scores) * sold(s), 0]
    kept, scores = ledger.scores(lake, purpose="exploration").set_index("id"), s.scores.set_index("id")
    ever, = s.horizons.loc[s.horizons["horizon"].str.startswith("ever"), "days"]
    assert kept.loc[kept["horizon_days"] == ever, "p"].to_dict() == scores["p_ever"].to_dict()
    kept = kept[kept["horizon_days"] == HORIZON]
    for column, name in (("p", "p_convert"), ("p_low", "p_low"), ("p_high", "p_high"), ("band", "band")):
        assert kept[column].to_dict() == scores[name].to_dict()
    total = kept["start"] + kept["points"].map(lambda text: sum(json.loads(text).values())) + kept["others"]
    np.testing.assert_allclose(total, kept["total"], atol=1e-9)
    np.testing.assert_allclose(kept["total"] * POINT, logit(kept["p"]), atol=1e-6)
    model = load_model(lake.path / "_models" / kept["model"].iloc[0])
    X = s.spine.open.set_index("id")
    np.testing.assert_array_equal(model.probabilities(X), scores["p_convert"].loc[X.index])
    assert model.facts["verdict"] == "usable" and model.facts["horizon_days"] == HORIZON


def test_a_run_of_a_schedule_keeps_its_scores_without_being_asked(runs, tmp_path, monkeypatch):
    lake, s = copy_of(runs[0], tmp_path), runs[2]
    for name, value in (("PURPOSE", "production"), ("STARTED_AT", "2025-06-01T06:00:00+00:00"), ("RUN", "10_lead_scoring")):
        monkeypatch.setenv(f"WORKBENCH_{name}", value)
    assert remember(lake, s) == len(s.scores) * sold(s)
    last = ledger.latest_run(lake, before=days(1), source="s", horizon_days=HORIZON).iloc[0]
    assert last[["purpose", "run", "as_of", "made_at"]].tolist() == ["production", "10_lead_scoring", NOW, days(0.25)]
    again = changes(lake, replace(s, spine=replace(s.spine, as_of=days(1)))).rows
    np.testing.assert_allclose(again["change"].dropna(), 0, atol=1e-9)  # the same lake, the same model: nothing changed


def test_where_nobody_stayed_those_that_left_are_told(runs):
    lake, _, s = runs
    none = replace(s, examples=True, spine=replace(s.spine, open=s.spine.open.head(0)))  # the scores shown are examples, of records that are decided
    r = changes(lake, none, since=THEN)
    assert len(r.rows) > 100 and not r.rows["state"].isin(["open", "entered"]).any()
    assert r.rows[["p_now", "change", "points_now"]].isna().all(axis=None) and r.summary()


def test_the_card_tells_what_a_model_is_for(runs):
    s = runs[2]
    (facts, card), r = model_card(s), s.results()
    for text in ("The chance that one of these leads converts within 30 days.", "As of 2025-06-01", "number of visits", f"(AUC {r['auc']:.3f})", "Band A", "95 % interval", "off by",
                 "Not for judging, paying, hiring or dismissing people; not for setting prices"):
        assert text in card
    assert facts["trained_events"] == int(s.spine.frame["event"].sum()) and r.items() <= facts.items()
    assert "script" not in card and "Taken on trust as known when scored: nothing." in card and "{" not in card


@pytest.fixture
def lake(tmp_path):
    return open_lake(tmp_path / "lake", create=True)


def decided(lake) -> None:
    """Leads 0 won after 10 days, 1 lost after 20, 2 deleted after 30, 3 open, 4 won after 40, lost before and reopened."""
    rows = [(0, 0, {}), (0, 10, {"is_converted": True}), (1, 0, {}), (1, 20, {"is_lost": True}), (2, 0, {}), (2, 30, {"deleted_at": days(-70)}), (3, 0, {}),
            (4, 0, {}), (4, 5, {"is_lost": True}), (4, 15, {"is_lost": False}), (4, 40, {"is_converted": True})]
    versions = [{"id": f"s:{i}", "name": f"L{i}", "valid_from": days(-100 + d), "created_at": days(-100), "is_converted": False, "is_lost": False, "deleted_at": pd.NaT} | more for i, d, more in rows]
    lake.load_versions("lead", pd.DataFrame(versions), origin="crm_history")


def test_outcomes_tell_the_event_within_the_horizon_and_null_while_it_is_open(lake):
    decided(lake)
    said = pd.DataFrame({"id": [f"s:{i}" for i in range(6)], "entity": "lead", "as_of": days(-99), "horizon_days": 30})
    told = outcomes(lake, said, as_of=NOW)
    assert told["event"].tolist()[:5] == [True, False, False, False, False]  # 4 was won after the 30 days
    assert told["state"].tolist()[:5] == ["won", "lost", "gone", "open", "won"]
    assert told["decided_at"].tolist()[:3] == [days(-90), days(-80), days(-70)]
    assert pd.isna(told["event"][5]) and pd.isna(told["state"][5])  # nobody knows of s:5
    assert outcomes(lake, said.assign(horizon_days=60), as_of=NOW)["event"].tolist()[:5] == [True, False, False, False, True]
    early = outcomes(lake, said, as_of=days(-80))
    assert early["event"].isna().all() and early["state"].tolist()[:5] == ["won", "lost", "open", "open", "open"]  # won, but the horizon is open: counting it would count the early alone
    ever = outcomes(lake, said.assign(horizon_days=None), as_of=NOW)["event"]
    assert ever.tolist()[:3] == [True, False, False] and pd.isna(ever[3]) and ever[4]
    late = outcomes(lake, said.assign(as_of=days(-85)), as_of=NOW)
    assert not late["event"][0]  # was won before it was said


def test_outcomes_are_the_events_that_scores_are_trained_on(lake):
    decided(lake)
    spine = snapshots(lake, "lead", as_of=NOW, horizon_days=30, source="s", score_at="grid").frame
    told = outcomes(lake, spine[["id", "as_of"]].assign(entity="lead", horizon_days=30), as_of=NOW)
    assert len(spine) > 15 and spine["event"].nunique() == 2
    pd.testing.assert_series_equal(told["event"], spine["event"].reset_index(drop=True), check_names=False)
