"""The explorer of scores: what it shows of a record is what was known at as_of, hostile names stay text, and every turn of a knob counts."""

import html
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.lake import open_lake
from workbench.models.bands import segment_labels
from workbench.models.leads import LeadScores, lead_scores
from workbench.plots import explorer as ex
from workbench.report.export import export_report
from workbench.report.safe import safe_html

T = datetime(2025, 3, 1)
HOSTILE = "<img src=x onerror=alert(1)>\n<b>Bold</b> Ann"


def day(n: float) -> datetime:
    return T - timedelta(days=n)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    lake = open_lake(tmp_path_factory.mktemp("lake"), create=True)
    with lake.writer():
        lake.load_versions("user", pd.DataFrame({"id": ["s:u"], "name": ["Uma <i>"], "valid_from": day(900)}), origin="import")
        lake.load_versions("lead", pd.DataFrame({"id": ["s:1"] * 3 + ["s:2", "s:3", "s:4"], "name": [HOSTILE] * 3 + ["Bob", "Bob", None], "owner_id": "s:u", "email": ["a@x.org", "b@x.org", "b@x.org", None, None, None],
                           "status": ["New", "Working", "Lost", "New", "New", "New"], "rating": ["cold", "hot", "hot", None, None, None], "created_at": day(40),
                           "valid_from": [day(40), day(20), day(-5), day(30), day(30), day(30)], "valid_to": [day(20), day(-5), None, None, None, None]}), origin="crm_history")
        lake.load_versions("activity", pd.DataFrame({"id": [f"s:a{i}" for i in range(5)], "lead_id": "s:1", "kind": ["call", "email", "meeting", "call", "<script>"], "direction": ["out", "in", None, "out", None],
                           "subject": "secret subject", "created_at": [day(30), day(10), day(3), day(-2), day(2)], "happened_at": [day(30), day(10), day(-4), day(-2), day(2)],
                           "is_done": [True, True, False, True, True], "valid_from": [day(30), day(10), day(3), day(-2), day(2)]}), origin="crm_history")
        lake.set_fields([{"source": "s", "entity": "lead", "field": "rating", "known_at": "historized", "history_from": day(25)}])
    return lake


def scores_of(n: int = 4, usable: bool = True, may_call=(True, True, False, True)) -> LeadScores:
    """What LeadScores holds of four leads, made by hand: 8 past records, of which those with points near the first had the event."""
    p = np.array([.8, .5, .4, .1])[:n] if usable else np.full(n, np.nan)
    frame = pd.DataFrame({"id": [f"s:{i + 1}" for i in range(n)], "name": [HOSTILE, "Bob", "Bob", None][:n], "owner": ["Uma <i>", None, None, None][:n], "created_at": day(40), "p_convert": p,
                          "p_low": p * .9, "p_high": p * 1.1, "band": "A", "expected": np.cumsum(p), "reasons_for": "", "reasons_against": "", "may_call": list(may_call)[:n]})
    points = pd.DataFrame({"source": [20.0, 5, 0, -20], "n_calls": [5.0, 0, 0, -5]})[:n] if usable else pd.DataFrame()
    past = pd.DataFrame({"id": ["s:1", *(f"s:p{i}" for i in range(8)), "s:p0"], "as_of": day(200), "event": [True] * 4 + [False] * 6, "source": [20.0, 19, 18, 21, 0, -1, -2, -3, -4, 19.5],
                         "n_calls": [5.0] * 10}) if usable else pd.DataFrame()
    empty = {f: None for f in LeadScores.__dataclass_fields__}
    values = pd.DataFrame({"source": ["web <b>"] * n, "n_calls": ["3"] * n})
    return LeadScores(**(empty | {"spine": SimpleNamespace(as_of=T, entity="lead"), "scorer": "any" if usable else None, "scores": frame, "points": points, "values": values, "start": -10.0, "examples": False, "past": past, "notes": []}))


@pytest.fixture
def settled(monkeypatch):
    monkeypatch.setattr(ex, "settings", lambda: SimpleNamespace(value={"cost_per_call": 10, "value_per_conversion": 100, "calls_per_day": 2}))


def test_a_history_holds_what_was_known_at_as_of_in_order(lake):
    events = ex.history(lake, scores_of(), "s:1")
    assert list(events.columns) == ["at", "kind", "what"] and events["at"].is_monotonic_increasing
    told = list(zip(events["kind"], events["what"], strict=True))
    # the meeting of day -4 was planned three days ago; the call of day -2 and the loss of day -5 are in the future; the rating was not known before day 25
    assert told == [("change", "first seen"), ("call", "call out"), ("change", "status: New → Working"), ("email", "email in"), ("<script>", "<script>"), ("planned", "meeting")]


def test_personal_texts_are_in_no_history(lake):
    assert "secret" not in ex.history(lake, scores_of(), "s:1").to_string() and "x.org" not in ex.history(lake, scores_of(), "s:1").to_string()


def test_a_record_that_nobody_knows_has_no_history(lake):
    assert ex.history(lake, scores_of(), "s:x' or true --").empty and ex.plot_history(ex.history(lake, scores_of(), "s:none")).layout.annotations


def test_neighbours_are_the_nearest_in_points_each_once_and_not_the_record_itself(lake):
    near = ex.neighbours(lake, scores_of(), "s:1")
    # distances of source points from 20: 19.5 -> .5 (s:p0, without the event), 21 -> 1, 18 -> 2; then 20, 21 ...
    assert near["name"].head(3).tolist() == ["s:p0", "s:p2", "s:p1"] and near["points_apart"].head(4).tolist() == [.5, 1, 2, 20]
    assert near["event"].head(3).tolist() == ["no", "yes", "yes"] and len(near) == 8 and ex.neighbours(lake, scores_of(), "s:9").empty


def test_picking_a_name_shows_that_record(lake, settled):
    box = ex.explorer(lake, scores_of())
    assert list(box.records.values()) == ["s:1", "s:2", "s:3", "s:4"] and len(box.figures.children) == 2 and "80.0%" in box.about.value
    box.pick.value = "Bob · s:3"  # two Bobs are told apart
    assert "40.0%" in box.about.value and "refused calls" in box.about.value and "most alike" in box.near.value
    reasons, line = box.figures.children
    assert isinstance(reasons, go.FigureWidget) and reasons.data[0].y[0] == "start" and list(reasons.data[0].x)[0] == -10 and len(line.data) == 1
    box.pick.value = "s:4"  # without a name it has its id
    assert "10.0%" in box.about.value


def test_hostile_names_stay_text(lake, settled):
    box = ex.explorer(lake, scores_of())
    shown = box.about.value + box.near.value + box.worth.value
    assert "<img" not in shown and "<i>" not in shown and "&lt;img" in shown and "Uma &lt;i&gt;" in shown
    reasons, line = box.figures.children
    assert any("&lt;b>" in text or "&lt;b&gt;" in text for text in reasons.data[0].y) and not any("<b>" in text for text in reasons.data[0].y)
    assert not any("<script" in t for trace in line.data for t in [*trace.y, *trace.customdata])
    assert "\n" not in box.pick.options[0] and box.pick.value == box.pick.options[0] and "<img" in box.pick.value  # a field of one line, set as text


def test_knobs_move_conversions_and_profit(lake, settled):
    box = ex.explorer(lake, scores_of())
    # callable: .8, .5, .1 (the third refused); two calls: 1.3 expected, 130 - 20 = 110; the third brings 10 and costs 10
    assert box.calls.max == 3 and box.calls.value == 2 and "<b>1.3</b>" in box.worth.value and "<b>110</b>" in box.worth.value
    box.calls.value = 3
    assert "<b>1.4</b>" in box.worth.value and "<b>110</b>" in box.worth.value
    box.cost.value = 60  # .8 x 100 - 60 = 20; the second: 50 - 60 < 0
    assert "<b>-40</b>" in box.worth.value and "Most is earned with 1 calls" in box.worth.value
    assert np.allclose(box.curve.children[0].data[0].y, [0, 20, 10, -40])
    box.value.value, box.calls.value = 10, 0
    assert "Most is earned with 0 calls" in box.worth.value and "<b>0</b>" in box.worth.value


def test_figures_that_are_replaced_are_closed(lake, settled):
    box = ex.explorer(lake, scores_of())
    old = box.figures.children[0]
    box.pick.value = "Bob · s:2"
    assert old.comm is None and box.figures.children[0] is not old


@pytest.mark.parametrize("case", ["unsold", "nobody", "refused", "examples"])
def test_without_a_score_or_anybody_to_call_it_says_so(case, lake, settled):
    scores = {"unsold": scores_of(usable=False), "nobody": scores_of(0), "refused": scores_of(may_call=[False] * 4), "examples": replace(scores_of(), examples=True)}[case]
    box = ex.explorer(lake, scores)
    assert "nobody may be called" in box.worth.value and box.calls.max == 0
    assert ("no score is sold" in box.about.value) == (case == "unsold")
    assert "nan" not in (box.about.value + box.worth.value + ex.explorer_static(lake, scores)).lower()


def test_a_report_keeps_the_first_record_as_tables(lake, settled, tmp_path):
    bundle = ex.explorer(lake, scores_of())._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    output = nbformat.v4.new_output("display_data", data=bundle)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output])]), tmp_path / "n.ipynb")
    page = export_report(tmp_path / "n.ipynb", tmp_path / "reports", record={"name": "n", "title": "T", "status": "ok"}).read_text()
    text = html.unescape(page)
    assert "80.0% (80 % interval 72.0% to 88.0%)" in text and "status: New → Working" in text and "points_apart" in text and "can be explored" not in text
    assert "<img src=x" not in page and "secret subject" not in text and "<script>" not in str(safe_html(bundle["text/html"]))


def test_it_stands_on_scores_that_were_really_made(tmp_path, settled):
    # 500 leads, the last fifty open; fair ones convert four times in five, others once in five
    rng, n = np.random.default_rng(0), 500
    rows = pd.DataFrame({"id": [f"s:{i}" for i in range(n)], "name": [f"Lead {i}" for i in range(n)], "source": rng.choice(["web", "fair"], n), "owner_id": rng.choice(["s:u", "s:v"], n), "created_order": range(n), "valid_from": T})
    rows["is_converted"] = pd.Series(rng.random(n) < np.where(rows["source"] == "fair", .8, .2), dtype="boolean").mask(rows.index >= 450)
    lake = open_lake(tmp_path, create=True)
    with lake.writer():
        lake.load_versions("user", pd.DataFrame({"id": ["s:u", "s:v"], "name": ["Ann", "Ben"], "team": ["North", None], "valid_from": T}), origin="import")
        lake.set_fields([{"source": "s", "entity": "lead", "field": f, "known_at": "assumed"} for f in ("source", "owner_id")])
        lake.load_versions("lead", rows, origin="import")
    scores = lead_scores(lake, as_of=T, source="s")
    box = ex.explorer(lake, scores)
    assert scores.usable and len(box.records) == 50 and box.calls.max == 50 and "had the event" in box.near.value
    near = ex.neighbours(lake, scores, scores.scores["id"][0])
    assert len(near) == 10 and (near["event"] == "yes").sum() >= 4 and near["points_apart"].is_monotonic_increasing
    labels = segment_labels(lake, scores.spine.frame, as_of=T)
    assert list(labels) == ["team", "source"] and set(labels["team"].dropna()) == {"North"} and labels["team"].isna().sum() == (rows["owner_id"] == "s:v").sum()
