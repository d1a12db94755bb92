"""Lead scores end to end: what is sold adds up, what is not sold gives no number away, and nobody who refused is called."""

import html
import json
import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from scipy.special import expit, logit
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from workbench.connect.files import import_files
from workbench.lake import open_lake
from workbench.models import ladder, sentences
from workbench.models.calibration import log_losses
from workbench.models.ladder import grouped_means
from workbench.models.leads import lead_scores
from workbench.models.learners import RUNGS, Blend, Boosted
from workbench.models.reasons import POINT, readable
from workbench.models.rungs import BaseRate, as_numbers, as_text, kinds
from workbench.plots import scores as plots

NOW = datetime(2025, 6, 1)
ROOT = Path(__file__).resolve().parent.parent
REAL = os.environ.get("WORKBENCH_REAL_DATA", "")
needs_real = pytest.mark.skipif(not REAL, reason="set WORKBENCH_REAL_DATA to the folder of the public data sets")
KEYS = ["verdict", "model", "n", "n_events", "base_rate", "auc", "log_loss", "brier", "ece", "ece_perfect", "gain_low", "baselines", "features", "assumed", "suspects", "evaluation",
        "horizons", "trial", "drift", "bands", "half_life_days", "half_life_pays"]
HOSTILE = "<script>alert(1)</script>[x](javascript:alert(1))"


def lead_rows(n: int = 1400, strength: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Undated leads of an export, the last tenth open; visits and source tell, x_stamp is filled when a lead has converted."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"id": [f"s:{i}" for i in range(n)], "name": [f"Lead {i} {HOSTILE}" for i in range(n)], "source": rng.choice(["web", "fair", HOSTILE], n),
                          "n_visits": rng.poisson(4, n), "created_order": np.arange(n), "do_not_call": rng.random(n) < 0.2, "owner_id": rng.choice(["s:u1", "s:u2"], n), "valid_from": NOW})
    won = rng.random(n) < expit(-0.8 + strength * (0.5 * (frame["n_visits"] - 4) + (frame["source"] == "fair")))
    frame["is_converted"] = pd.Series(won, dtype="boolean").mask(frame.index >= n * 0.9)
    frame["x_stamp"] = np.where(won & (frame.index < n * 0.9), rng.choice(["paid", "signed"], n), None)
    return frame


def lake_of(folder: Path, rows: pd.DataFrame, entity: str = "lead"):
    lake = open_lake(folder, create=True)
    with lake.writer():
        lake.load_versions("user", pd.DataFrame({"id": ["s:u1", "s:u2"], "name": ["Ann", HOSTILE], "valid_from": NOW - timedelta(days=900)}), origin="import")
        lake.set_fields([{"source": "s", "entity": entity, "field": f, "known_at": k} for f, k in (("x_stamp", "current_only"), ("n_visits", "assumed"), ("x_seal", "fixed")) if f in rows])
        lake.load_versions(entity, rows, origin="import")
    return lake


@pytest.fixture(scope="module")
def sold(tmp_path_factory):
    return lead_scores(lake_of(tmp_path_factory.mktemp("sold"), lead_rows()), as_of=NOW, source="s")


@pytest.fixture(scope="module")
def unsold(tmp_path_factory):
    return lead_scores(lake_of(tmp_path_factory.mktemp("unsold"), lead_rows(strength=0)), as_of=NOW, source="s")


def every_sentence(s) -> str:
    told = [f(s) for f in (sentences.verdict_sentence, sentences.base_rate_sentence, sentences.calibration_sentence, sentences.trust_points, sentences.scores_sentence, sentences.next_steps)]
    return "\n".join([*told, sentences.call_sentence(s, 10), sentences.event_words(s), sentences.segments_sentence(s), sentences.profit(s, {"cost_per_call": 5, "value_per_conversion": 40}).sentence])


def every_figure(s) -> list:
    return [plots.plot_calibration(s.calibration), plots.plot_ladder(s.ladder), plots.plot_importance(s.importance), plots.plot_lift(s.lift), plots.plot_reasons(s.reasons_of())]


def test_results_hold_exactly_the_promised_keys_as_plain_json(sold):
    results = sold.results()
    assert list(results) == KEYS and json.loads(json.dumps(results)) == results
    assert results["verdict"] == "usable" and results["evaluation"] == "grouped" and results["n"] == 1260 and results["suspects"] == ["x_stamp"]
    assert results["assumed"] == ["n_visits"] and "x_stamp" not in results["features"] and set(results["baselines"]) == {r.name for r in RUNGS}
    assert results["horizons"] == [] and results["half_life_days"] is None and results["half_life_pays"] is False


def test_points_add_up_to_the_score(sold):
    # log-odds of p = (start + sum of points) x ln 2 / 10
    p = expit((sold.start + sold.points.sum(axis=1).to_numpy()) * POINT)
    assert np.allclose(p, sold.scores["p_convert"], atol=1e-6) and len(p) == 140
    one = sold.reasons_of(sold.scores["id"][5], most=2)
    assert one["feature"].iloc[[0, -1]].tolist() == ["start", "all other fields"] and np.isclose(one["points"].sum() * POINT, logit(sold.scores["p_convert"][5]), atol=1e-6)


def test_the_three_parts_of_a_score_are_the_sum_of_its_points(sold):
    # fit: source; engagement: number of visits; handling: owner
    parts = sold.scores[["fit", "engagement", "handling"]]
    assert np.allclose(parts.sum(axis=1), sold.points.sum(axis=1)) and (parts.abs().max() > 0.1).all()
    assert np.allclose(parts["engagement"], sold.points["n_visits"]) and np.allclose(parts["handling"], sold.points["owner_id"])


def test_points_add_up_for_the_blend_too(monkeypatch, tmp_path):
    monkeypatch.setattr(ladder, "RUNGS", (BaseRate, Blend))
    s = lead_scores(lake_of(tmp_path, lead_rows(700).drop(columns="x_stamp")), as_of=NOW, source="s")
    assert s.judged.model == "blend"
    assert np.allclose(expit((s.start + s.points.sum(axis=1).to_numpy()) * POINT), s.scores["p_convert"], atol=1e-6)


def test_the_first_reason_is_the_strongest_and_carries_its_value(sold):
    first, points = sold.scores.iloc[0], sold.points.iloc[0]
    best = points.idxmax()
    assert first["reasons_for"].startswith(f"{readable(best)}: {sold.values[best].iloc[0]} (+{points[best]:.0f})")
    assert sold.values["owner_id"].isin(["Ann", HOSTILE]).all()


def test_nobody_who_refused_is_on_a_call_list(sold, unsold):
    for s in (sold, unsold):
        assert len(s.scores) == 140 and 0 < s.scores["may_call"].sum() < 140
        listed = s.call_list(1000)
        assert len(listed) == s.scores["may_call"].sum() and set(listed["id"]) == set(s.scores.loc[s.scores["may_call"].astype(bool), "id"])


def test_a_refusal_after_as_of_counts_too(tmp_path):
    lake = lake_of(tmp_path, lead_rows(700))
    lake.upsert("lead", pd.DataFrame({"id": ["s:699"], "do_not_call": [True]}), at=NOW + timedelta(days=3))
    lake.upsert("lead", pd.DataFrame({"id": ["s:698"], "do_not_call": [False]}), at=NOW + timedelta(days=3))
    s = lead_scores(lake, as_of=NOW, source="s").scores.set_index("id")["may_call"]
    assert not s["s:699"] and s["s:698"] == (not lead_rows(700)["do_not_call"][698])


def test_a_list_is_cut_to_capacity_best_first(sold):
    listed = sold.call_list(7)
    assert len(listed) == 7 and listed["p_convert"].is_monotonic_decreasing and np.isclose(listed["expected"].iloc[-1], listed["p_convert"].sum())
    assert sold.call_list(0).empty and "The list is empty" in sentences.call_sentence(sold, 0)


def test_without_a_usable_model_no_probability_is_given_and_the_list_is_newest_first(unsold):
    assert unsold.judged.verdict != "usable" and unsold.scores[["p_convert", "p_low", "p_high", "band", "reasons_for"]].isna().all(axis=None)
    order = unsold.call_list(50)["id"].str[2:].astype(int)
    assert order.is_monotonic_decreasing and list(unsold.call_list(5)) == ["id", "name", "owner", "created_at"]
    assert "newest first" in sentences.call_sentence(unsold, 5) and "No score is given" in sentences.verdict_sentence(unsold)
    assert unsold.results()["log_loss"] is not None and unsold.importance.empty and unsold.reasons_of().empty


def test_no_text_of_the_crm_reaches_a_sentence(sold, unsold):
    for s in (sold, unsold):
        assert "script" not in html.unescape(every_sentence(s)) and "javascript" not in every_sentence(s)


def test_figures_are_drawn_and_empty_ones_say_so(sold, unsold):
    for figure in every_figure(sold):
        assert figure.data and not figure.layout.annotations and figure.layout.height >= 160 and figure.layout.yaxis.automargin
    assert [f.layout.annotations[0].text for f in (every_figure(unsold)[i] for i in (2, 4))] == ["Nothing to show."] * 2
    json.dumps([f.to_plotly_json()["layout"] for f in every_figure(sold)], default=str)


@pytest.mark.parametrize("case", ["empty", "before", "few", "one class", "no leads"])
def test_too_little_is_a_verdict_and_a_sentence_never_a_fall(case, tmp_path):
    rows = {"few": lead_rows(60), "one class": lead_rows(300).assign(is_converted=True), "before": lead_rows(300)}.get(case)
    lake = open_lake(tmp_path, create=True) if case == "empty" else lake_of(tmp_path, rows if rows is not None else lead_rows(1)[["id", "name", "valid_from", "n_visits"]].head(1))
    s = lead_scores(lake, as_of=NOW - timedelta(days=1000) if case == "before" else NOW, source="s")
    assert s.judged.verdict == "too little data" and list(s.results()) == KEYS and s.results()["auc"] is None
    assert "Too little data" in every_sentence(s) and "nan" not in every_sentence(s).lower() and "None" not in every_sentence(s)
    assert all(f.layout.annotations for f in every_figure(s)) and s.call_list(3)["id"].str.startswith("s:").all()


def versions(records: pd.DataFrame, outcome: list[str]) -> pd.DataFrame:
    """Two versions a record: open at creation, and from closed_at on, if that has come, with its outcome."""
    closed = records[records["closed_at"] <= NOW]
    return pd.concat([records.assign(valid_from=records["created_at"], closed_at=None, **dict.fromkeys(outcome)), closed.assign(valid_from=closed["closed_at"])], ignore_index=True)


def dated_deals(n: int = 900, seed: int = 0) -> pd.DataFrame:
    """Deals of an export with dates of creation and closing; the amount tells, the last ones are open."""
    rng = np.random.default_rng(seed)
    amount = rng.lognormal(8, 1, n).round()
    frame = pd.DataFrame({"id": [f"s:{i}" for i in range(n)], "name": "A deal", "amount": amount, "created_at": NOW - pd.to_timedelta(rng.integers(0, 700 * 24, n), "h"),
                          "is_won": rng.random(n) < expit(1.2 * (np.log(amount) - 8)), "contact_id": [f"s:c{i % 3}" for i in range(n)]})
    return versions(frame.assign(closed_at=frame["created_at"] + pd.to_timedelta(rng.integers(5, 70, n), "D")), ["is_won"])


def dated_leads(n: int = 2500, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Leads of 1,000 days and the deals that the converted ones became: visits and source tell who converts, 50 days after creation on average; the others are lost
    after 200. A deal from the fair is worth twenty times one from the web."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"id": [f"s:{i}" for i in range(n)], "name": [f"Lead {i} {HOSTILE}" for i in range(n)], "created_at": NOW - pd.to_timedelta(rng.integers(0, 1000 * 24, n), "h"),
                          "source": rng.choice(["web", "fair"], n, p=[0.7, 0.3]), "n_visits": rng.poisson(4, n)})
    won = rng.random(n) < expit(-1 + 0.9 * (frame["n_visits"] - 4))
    frame["closed_at"] = frame["created_at"] + pd.to_timedelta(np.where(won, rng.exponential(50 * 24, n), 200 * 24), "h")
    frame = frame.assign(is_converted=won, is_lost=~won, converted_deal_id=("s:d" + frame.index.astype(str)).where(won, None))
    deals = frame[won & (frame["closed_at"] <= NOW)]
    deals = pd.DataFrame({"id": deals["converted_deal_id"], "name": "A deal", "amount": np.where(deals["source"] == "fair", 20_000, 1_000) * rng.lognormal(0, 0.3, len(deals)),
                          "is_won": True, "created_at": deals["closed_at"], "closed_at": deals["closed_at"], "valid_from": deals["closed_at"]})
    return versions(frame, ["is_converted", "is_lost", "converted_deal_id"]), deals


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    rows, deals = dated_leads()
    lake = lake_of(tmp_path_factory.mktemp("dated"), rows)
    lake.load_versions("deal", deals, origin="import")
    return lead_scores(lake, as_of=NOW, source="s")


def test_no_record_s_chance_falls_with_the_horizon(dated):
    p = dated.scores[["p_30", "p_90", "p_180", "p_ever"]]
    assert len(p) > 100 and (p.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None) and p["p_90"].equals(dated.scores["p_convert"].rename("p_90")) and (p.mean().diff().iloc[1:] > 0.005).all()
    told = dated.results()["horizons"]
    assert [t["days"] for t in told][:3] == [30, 90, 180] and told[3]["horizon"].startswith("ever (") and told[1]["log_loss"] == dated.results()["log_loss"]


def test_where_conversions_have_a_value_the_list_is_by_what_a_call_is_worth(dated):
    # a conversion is worth the geometric mean of its source's deals: about 20,000 or 1,000, drawn a little to that of all
    listed, open_ = dated.call_list(1000), dated.scores.set_index("id")
    assert np.allclose(listed["worth"], listed["p_convert"] * listed["value"]) and listed["worth"].is_monotonic_decreasing and not listed["p_convert"].is_monotonic_decreasing
    assert listed["expected_value"].iloc[-1] == pytest.approx(listed["worth"].sum()) and open_["p_convert"].is_monotonic_decreasing
    source = open_["reasons_for"].index.map(dated.spine.open.set_index("id")["source"])
    of = open_.groupby(source)["value"].unique()
    assert [len(v) for v in of] == [1, 1] and 14_000 < of["fair"][0] < 21_000 and 900 < of["web"][0] < 1_600


def test_drift_is_told_by_the_running_number_of_an_export_and_not_where_rows_have_dates(sold, unsold, dated):
    told = sold.results()["drift"]
    assert [t["n"] for t in told] == [1260, 379] and told[0]["log_loss"] == sold.results()["log_loss"]  # the last 30 % of 1,260, with the row of the cut itself
    assert "running number" in sentences.trust_points(sold) and "Drift was not measured" not in sentences.trust_points(sold)
    assert dated.results()["drift"] == [] == unsold.results()["drift"] and "not measured" in sentences.trust_points(unsold) and "rift" not in sentences.trust_points(dated)


def test_deals_stand_in_where_there_are_no_leads_and_their_contacts_consent_counts(tmp_path):
    lake = lake_of(tmp_path, dated_deals(), "deal")
    lake.load_versions("contact", pd.DataFrame({"id": ["s:c0", "s:c1", "s:c2"], "name": ["a", "b", "c"], "do_not_call": [True, False, None], "valid_from": datetime(2020, 1, 1)}), origin="import")
    s = lead_scores(lake, as_of=NOW, source="s")
    assert s.spine.entity == "deal" and s.results()["evaluation"] == "time" and s.results()["verdict"] == "usable" and "deals" in s.notes[0]
    assert s.call_list(500)["id"].str[2:].astype(int).mod(3).ne(0).all() and "won within 90 days" in every_sentence(s)
    assert "1,000" not in sentences.counted(1, "lead") and "folds" not in sentences.trust_points(s)


def test_lift_compares_the_same_calls_with_the_newest_first(sold):
    row = sold.lift.set_index("capacity").loc[0.1]
    assert row["n_called"] == 126 and row["precision"] > row["newest"] and row["more_low"] > 0
    assert np.isclose(row["lift"], row["precision"] / (sold.results()["n_events"] / 1260)) and row["low"] <= row["precision"] <= row["high"]


def test_calibration_bins_and_bands_cover_every_judged_and_every_open_record(sold):
    assert sold.calibration["n"].sum() == sold.bands["n"].sum() == 1260 and len(sold.calibration) == 10 and sold.bands["n_open"].sum() == 140
    assert np.isclose((sold.calibration["observed"] * sold.calibration["n"]).sum(), sold.results()["n_events"])
    held = sold.bands[sold.bands["n_open"] > 0]
    assert len(held) >= 4 and ((held["p_open_low"] < held["p_open"]) & (held["p_open"] < held["p_open_high"])).all()
    assert np.isclose((held["n_open"] * held["p_open"]).sum(), sold.scores["p_convert"].sum())


def test_accused_fields_are_no_features_and_the_trial_tells_what_they_would_have_brought(sold):
    # x_stamp is filled where a lead has converted: with it every record is told right
    trial = sold.trial.set_index("fields")
    assert sold.results()["suspects"] == ["x_stamp"] and trial.index.tolist() == ["without the accused", "with the accused"] and np.diff(trial["n_fields"]).tolist() == [1]
    assert trial["log_loss"].iloc[0] == sold.ladder.set_index("model").loc[Boosted.name, "log_loss"] and trial["log_loss"].iloc[1] < 0.1 and trial["auc"].iloc[1] > 0.99
    assert len(sold.results()["trial"]) == 2 and sold.results()["trial"][0]["log_loss"] == round(trial["log_loss"].iloc[0], 5)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A field that the mapping says is known at creation, and that is right of 24 records in 25."""
    rows = lead_rows(600).drop(columns="x_stamp")
    wrong = np.random.default_rng(1).random(600) < 0.04
    return lake_of(tmp_path_factory.mktemp("sealed"), rows.assign(x_seal=np.where(rows["is_converted"].fillna(False).to_numpy(bool) ^ wrong, "red", "blue")))


def test_a_feature_that_is_accused_leaves_and_comes_back_when_let_in(sealed):
    out, let_in = (lead_scores(sealed, as_of=NOW, source="s", allow=allow) for allow in (None, ["x_seal"]))
    assert out.results()["suspects"] == let_in.results()["suspects"] == ["x_seal"]
    assert "x_seal" not in out.spine.features and "on trial" in out.excluded.set_index("field").loc["x_seal", "reason"] and "Kept out" in sentences.trust_points(out)
    assert "x_seal" in let_in.spine.features and "x_seal" not in set(let_in.excluded["field"]) and "In use although" in sentences.trust_points(let_in)
    assert let_in.trial.empty and out.results()["auc"] < 0.9 < let_in.results()["auc"] and out.trial["auc"].iloc[1] > 0.9


def test_a_field_let_in_by_name_takes_part_and_is_named(tmp_path):
    s = lead_scores(lake_of(tmp_path, lead_rows(600)), as_of=NOW, source="s", allow=["x_stamp"])
    assert "x_stamp" in s.results()["features"] and s.results()["suspects"] == ["x_stamp"] and "In use although" in sentences.trust_points(s)


def test_profit_is_told_where_costs_are_known_and_a_score_is_usable(sold, unsold, dated):
    # break-even: 5 / 40 = 12.5 %
    told = sentences.profit(sold, {"cost_per_call": 5, "value_per_conversion": 40, "currency": "EUR"})
    assert "12.5%" in told.sentence and "EUR" in told.sentence and told.currency == "EUR" and len(told.curve) > 10 and len(told.cuts) == 6
    assert "Write cost_per_call" in sentences.profit(sold, {}).sentence and "Write cost_per_call" in sentences.profit(sold, {"cost_per_call": 5}).sentence
    assert "No score is usable" in sentences.profit(unsold, {"cost_per_call": 5, "value_per_conversion": 40}).sentence
    worth = dated.scores["value"].median()  # without a value there, what conversions of its like brought
    assert f"{5 / worth:.1%}" in sentences.profit(dated, {"cost_per_call": 5}).sentence


def test_segments_that_the_scores_misjudge_are_counted(sold):
    n = len(sold.segments)
    assert n == 4 and set(sold.segments["segment"]) == {"web", "fair", HOSTILE, "not given"} and f"In all {n} segments the outcomes agree" in sentences.segments_sentence(sold)
    off = replace(sold, segments=sold.segments.assign(reading=["more than said", *["as said"] * (n - 1)]))
    assert f"In 1 segment of {n} the scores say too much or too little" in sentences.segments_sentence(off)


def test_where_nothing_is_open_examples_are_told_apart_from_a_list(tmp_path):
    s = lead_scores(lake_of(tmp_path, lead_rows(800).query("is_converted.notna()")), as_of=NOW, source="s")
    assert s.examples and len(s.scores) == 20 and s.call_list(5).empty and "nobody to call" in sentences.scores_sentence(s)
    assert (s.bands["n_open"] == 0).all() and s.bands[["p_open", "p_open_low", "p_open_high"]].isna().all(axis=None)


def real(tmp_path, name: str):
    lake = open_lake(tmp_path, create=True)
    import_files(lake, ROOT / f"data/mappings/{name}.toml", Path(REAL) / name, at=NOW)
    return lead_scores(lake, as_of=lake.latest_event(name), source=name)


@pytest.fixture(scope="module")
def courses(tmp_path_factory):
    return real(tmp_path_factory.mktemp("courses"), "x_education_leads")


@needs_real
def test_the_course_sellers_leads_are_scored_well_and_honestly(courses):
    results = courses.results()
    assert results["verdict"] == "usable" and results["n"] == 9240 and results["evaluation"] == "grouped" and json.loads(json.dumps(results)) == results
    assert results["auc"] >= 0.85 and results["log_loss"] <= 0.46 and results["ece"] <= results["ece_perfect"]
    assert results["horizons"] == [] and "by the time of the export" in sentences.base_rate_sentence(courses)


@needs_real
def test_the_course_sellers_features_are_what_was_known_at_creation(courses):
    fields = ["origin_form", "source", "do_not_email", "do_not_call", "n_visits", "web_seconds", "pages_per_visit", "country", "city", "x_specialization", "x_saw_search", "x_saw_newspaper_article",
              "x_saw_forums", "x_saw_newspaper", "x_saw_digital_advertisement", "x_saw_recommendation", "x_wants_free_copy"]
    assert len(fields) == 17 and sorted(courses.results()["features"]) == sorted([*fields, "x_city_not_chosen", "x_specialization_not_chosen"])
    named = set(courses.results()["suspects"])
    assert {"x_tags", "x_lead_quality", "x_lead_profile", *(f"x_asymmetrique_{a}_{b}" for a in ("activity", "profile") for b in ("index", "score"))} <= named and not named & set(fields)
    assert courses.trial["log_loss"].iloc[1] < 0.5 * courses.trial["log_loss"].iloc[0]


@needs_real
def test_the_course_sellers_scores_beat_untuned_trees_and_a_plain_regression_on_the_same_folds(courses):
    rows, told = courses.judged.rows, courses.spine.frame[courses.spine.frame["event"].notna()].reset_index(drop=True)
    y, fold, (numbers, texts) = rows["y"].to_numpy(), rows["fold"].to_numpy(), kinds(told[courses.spine.features])
    assert (y == told["event"].astype(int)).all() and pd.Series(fold).groupby(rows["group"].to_numpy()).nunique().max() == 1 and set(fold) == set(range(5))
    X = as_numbers(told, numbers).join(pd.DataFrame({c: as_text(told[c]) for c in texts}))
    one_hot = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), texts), (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers))
    rivals = {"trees": (LGBMClassifier(n_jobs=1, verbose=-1), X.astype(dict.fromkeys(texts, "category"))), "regression": (make_pipeline(one_hot, LogisticRegression(max_iter=1000)), X)}
    for model, data in rivals.values():
        p = np.empty(len(y))
        for f in range(5):
            p[fold == f] = model.fit(data[fold != f], y[fold != f]).predict_proba(data[fold == f])[:, 1]
        less = log_losses(y, rows[courses.judged.model].to_numpy()) - log_losses(y, p)
        assert np.quantile(grouped_means(less[:, None], rows["group"].to_numpy()), 0.975) < 0  # with 95 % confidence by .005 and by .016 or more


@needs_real
def test_drift_of_the_course_sellers_leads_is_a_table_of_its_own(courses):
    folds, later = courses.results()["drift"]
    assert folds["log_loss"] == courses.results()["log_loss"] and later["n"] == 2773 and later["auc"] > 0.84 and later["log_loss"] < later["base_log_loss"]


@needs_real
def test_the_hardware_sellers_deals_sell_nothing(tmp_path):
    s = real(tmp_path, "maven_crm_sales")
    assert s.spine.entity == "deal" and s.results()["verdict"] != "usable" and s.scores["p_convert"].isna().all() and len(s.call_list(20)) == 20
    assert {"amount", "stage"} <= set(s.results()["suspects"]) and s.results()["horizons"] == [] and s.drift.empty


def test_intervals_from_few_events_are_called_too_narrow(sold):
    said, rows = sentences.scores_sentence(sold), sold.judged.rows
    n = rows.loc[rows["y"] == 1, "group"].nunique()
    assert ("too narrow" in said) == (n < 100)
    few = rows.assign(y=rows["y"] * rows["group"].isin(rows.loc[rows["y"] == 1, "group"].unique()[:99]))
    assert "too narrow" in sentences.scores_sentence(replace(sold, judged=replace(sold.judged, rows=few)))


def test_a_value_given_for_all_orders_the_list_by_chance(dated):
    listed = dated.call_list(50, worth=100)
    assert listed["p_convert"].is_monotonic_decreasing and np.allclose(listed["worth"], 100 * listed["p_convert"])
    assert f"{listed['p_convert'].sum():,.1f} conversions expected" in sentences.call_sentence(dated, 50, 100)


def test_amounts_in_other_currencies_are_worth_their_rate(tmp_path):
    lake = lake_of(tmp_path, dated_deals().assign(currency=lambda f: np.where(f["id"].str[2:].astype(int) % 2, "USD", "EUR")), "deal")
    rates = {"id": ["s:f1", "s:f2"], "currency": ["USD", "USD"], "on_date": [datetime(2024, 1, 1).date(), datetime(2024, 9, 1).date()], "rate": [0.5, 0.8], "valid_from": [datetime(2024, 1, 1), datetime(2024, 9, 1)]}
    lake.load_versions("fx_rate", pd.DataFrame(rates), origin="import")
    s = lead_scores(lake, as_of=NOW, source="s").scores
    amount = s["id"].map(dated_deals().drop_duplicates("id").set_index("id")["amount"])
    assert np.allclose(s["value"], amount * np.where(s["id"].str[2:].astype(int) % 2, 0.8, 1.0))  # odd deals are in dollars, the latest rate is .8
