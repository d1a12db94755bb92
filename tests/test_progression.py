"""Stages as they were known: a history made by hand is told exactly, the demo's as a plain count of it tells."""

import os
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workbench.connect.demo import END, make_demo
from workbench.lake import open_lake
from workbench.models import progression as p
from workbench.models.behaviour import stories
from workbench.plots import funnel as plots

ROOT, REAL = Path(__file__).resolve().parent.parent, os.environ.get("WORKBENCH_REAL_DATA", "")
START = datetime(2024, 1, 1)


def day(n: float) -> datetime:
    return START + timedelta(days=n)


def versions(n: int, *changes: tuple) -> list[dict]:
    """A lead's versions: (day, status, what else changed); created on the first day named."""
    state = {"id": f"s:l{n}", "created_at": day(changes[0][0]), "is_converted": False, "is_lost": False, "closed_at": None, "deleted_at": None}
    out = []
    for at, status, *more in changes:
        state = state | {"valid_from": day(at), "status": status} | (more[0] if more else {})
        out.append(state)
    return out


def won(at: float, told: float | None = None) -> tuple:
    return (at, "Converted", {"is_converted": True, "closed_at": day(at if told is None else told)})


def lost(at: float, told: float | None = None) -> tuple:
    return (at, "Dead", {"is_lost": True, "closed_at": day(at if told is None else told)})


def lake_of(folder: Path, rows: list[dict], fields: list[dict] = (), origin: str = "crm_history"):
    lake = open_lake(folder, create=True)
    frame = pd.DataFrame(rows).astype({"closed_at": "datetime64[us]", "deleted_at": "datetime64[us]", "is_converted": "boolean", "is_lost": "boolean"})
    with lake.writer():
        lake.load_versions("lead", frame, origin=origin)
        lake.set_fields([{"source": "s", "entity": "lead"} | f for f in fields])
    return lake


HISTORY = [
    *versions(1, (0, "New"), (2, "Working"), (5, "Working", {"is_lost": False, "deleted_at": None}), (12, "Qualified"), won(30)),  # a change of something else is no move
    *versions(2, (0, "New"), (4, "Working"), lost(24)),
    *versions(3, (10, "New"), (11, "Working"), (15, "New"), (25, "Working")),  # came back once, still there
    *versions(4, (20, "New"), (50, "New", {"deleted_at": day(50)})),
    *versions(5, (95, "New"), lost(99, told=97)),  # closed on day 97, entered on day 99
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return lake_of(tmp_path_factory.mktemp("made"), HISTORY)


def ways(found: pd.DataFrame) -> dict:
    return {(a, b): (n, m) for a, b, n, m in found[["from", "to", "n", "n_entered"]].itertuples(index=False)}


def test_transitions_are_those_of_the_history(made):
    found = p.stage_transitions(p.stage_spells(stories(made, as_of=day(100))))
    # New is entered by leads 1, 2, 4, 5 once and by 3 twice; Working by 1 and 2 once and by 3 twice; Qualified by 1
    assert ways(found) == {("New", "Working"): (4, 6), ("New", "deleted"): (1, 6), ("New", "lost"): (1, 6), ("Working", "Qualified"): (1, 4), ("Working", "lost"): (1, 4),
                           ("Working", "New"): (1, 4), ("Working", "still there"): (1, 4), ("Qualified", "converted"): (1, 1)}
    assert np.allclose(found["share"], found["n"] / found["n_entered"]) and ((found["low"] < found["share"]) | (found["share"] == 0)).all() and found["from"].drop_duplicates().tolist() == ["New", "Working", "Qualified"]


def test_stays_last_as_long_as_the_history_says(made):
    rows = p.stage_spells(stories(made, as_of=day(100))).connection.sql("select id, k, stage, days, next from spell order by id, k").fetchall()
    assert rows == [("s:l1", 1, "New", 2, "Working"), ("s:l1", 2, "Working", 10, "Qualified"), ("s:l1", 3, "Qualified", 18, "converted"), ("s:l2", 1, "New", 4, "Working"), ("s:l2", 2, "Working", 20, "lost"),
                    ("s:l3", 1, "New", 1, "Working"), ("s:l3", 2, "Working", 4, "New"), ("s:l3", 3, "New", 10, "Working"), ("s:l3", 4, "Working", 75, None), ("s:l4", 1, "New", 30, "deleted"),
                    ("s:l5", 1, "New", 2, "lost")]
    dwell = p.stage_dwell(p.stage_spells(stories(made, as_of=day(100)))).set_index("stage")
    # New: 1, 2, 2, 4, 10, 30, all left: half of six have left after the third, day 2. Working: 4, 10, 20 and 75 still there: two of four after day 10
    assert dwell["median_days"].to_dict() == {"New": 2, "Working": 10, "Qualified": 18} and dwell.loc["Working", ["n", "n_left"]].tolist() == [4, 3]


def test_leakage_counts_who_was_lost_from_where(made):
    found = p.leakage(p.stage_spells(stories(made, as_of=day(100))), within_days=15).set_index("stage")
    assert found.loc["New", ["n_entered", "n_moved", "n_ended", "n_lost", "n_still"]].tolist() == [6, 4, 0, 2, 0]
    assert found.loc["Working", ["n_entered", "n_moved", "n_ended", "n_lost", "n_still"]].tolist() == [4, 2, 0, 1, 1] and found.loc["Working", "share"] == 0.25
    assert np.isclose(found.loc["New", "lost_within_share"], 1 / 6)  # lead 5 on day 2; lead 4 only after 30 days


def test_nothing_from_after_as_of_is_told(made):
    found = ways(p.stage_transitions(p.stage_spells(stories(made, as_of=day(24.5)))))
    assert found[("Working", "lost")] == (1, 3) and found[("New", "still there")] == (2, 5) and ("New", "deleted") not in found  # leads 3 and 4 stay; 5 is not there yet
    early = p.stage_spells(stories(made, as_of=day(3))).connection.sql("select stage, days, next from spell order by id, k").fetchall()
    assert early == [("New", 2, "Working"), ("Working", 1, None), ("New", 3, None)]


def test_cohorts_are_the_quarters_of_entry(made):
    found = p.stage_transitions(p.stage_spells(stories(made, as_of=day(100))), by_cohort=True)
    assert ways(found[found["cohort"] == "2024-Q2"]) == {("New", "lost"): (1, 1)}  # day 95 is 5 April
    dwell = p.stage_dwell(p.stage_spells(stories(made, as_of=day(100))), by_cohort=True)
    assert dwell[["cohort", "stage", "n"]].values.tolist() == [["2024-Q1", "New", 5], ["2024-Q1", "Working", 4], ["2024-Q1", "Qualified", 1], ["2024-Q2", "New", 1]]


@pytest.mark.parametrize("known_at", ["current_only", "assumed", "fixed"])
def test_a_stage_without_history_is_refused_with_a_sentence(tmp_path, known_at):
    spells = p.stage_spells(stories(lake_of(tmp_path, HISTORY, [{"field": "status", "known_at": known_at}]), as_of=day(100)))
    leaks, dwell = p.leakage(spells), p.stage_dwell(spells)
    assert p.stage_transitions(spells).empty and leaks.empty and dwell.empty
    assert p.stage_sentence(spells, leaks, dwell) == f"The status of s's leads has no history here ({known_at.replace('_', ' ')}): how they moved is unknown."


def test_an_import_without_any_change_is_refused_with_a_sentence(tmp_path):
    spells = p.stage_spells(stories(lake_of(tmp_path, HISTORY, origin="import"), as_of=day(100)))
    assert "No change of the status of any lead was recorded" in spells.why and p.stage_dwell(spells).empty


def test_what_came_before_the_history_began_is_unknown(tmp_path):
    # tracked from day 3 on: what lead 1 was before is not known, nor when it began to be Working; lead 2 was New then, since nobody saw when
    spells = p.stage_spells(stories(lake_of(tmp_path, HISTORY, [{"field": "status", "known_at": "historized", "history_from": day(3)}]), as_of=day(100)))
    rows = spells.connection.sql("select id, stage, days from spell where id in ('s:l1', 's:l2') order by id, k").fetchall()
    assert rows == [("s:l1", "Qualified", 18), ("s:l2", "Working", 20)] and spells.notes == ["2 stays had begun before their history did, and are left out."]


def test_a_first_version_long_after_creation_does_not_begin_a_stay(tmp_path):
    rows = [r | {"created_at": day(-60)} for r in versions(1, (0, "New"), (2, "Working"), lost(9))]
    assert p.stage_spells(stories(lake_of(tmp_path, rows), as_of=day(100))).connection.sql("select stage, days from spell").fetchall() == [("Working", 7)]


def test_a_record_that_came_back_is_told_as_it_was(tmp_path):
    back = (20, "Working", {"is_lost": False, "closed_at": None})
    spells = p.stage_spells(stories(lake_of(tmp_path, versions(1, (0, "New"), lost(10), back, won(50))), as_of=day(100)))
    assert spells.connection.sql("select stage, days, next from spell order by k").fetchall() == [("New", 10, "lost"), ("Working", 30, "converted")]


def test_a_closing_dated_before_the_stay_began_is_taken_when_it_was_recorded(tmp_path):
    spells = p.stage_spells(stories(lake_of(tmp_path, versions(1, (0, "New"), (10, "Working"), lost(30, told=5))), as_of=day(100)))
    assert spells.connection.sql("select stage, days from spell order by k").fetchall() == [("New", 10), ("Working", 20)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    lake = open_lake(tmp_path_factory.mktemp("demo"), create=True)
    make_demo(lake, size="small", seed=2)
    return lake


def counted(lake, entity: str, at: pd.Timestamp) -> tuple[dict, dict]:
    """(from, to) -> n, and stage -> (entered, lost), counted version by version."""
    won_, lost_, event = ("is_converted", "is_lost", "converted") if entity == "lead" else ("is_won", "not is_won", "won")
    rows = lake.sql(f"select id, {p.STAGE[entity]}, coalesce({won_}, false), coalesce({lost_}, false), deleted_at <= TIMESTAMP '{at}' from {entity}_versions where valid_from <= TIMESTAMP '{at}' order by id, valid_from").fetchall()
    moves, entered = {}, {}
    for _, history in groupby(rows, key=lambda r: r[0]):
        seen = []
        for _, stage, is_won, gave_up, gone in history:
            over = event if is_won else "lost" if gave_up else "deleted" if gone else None
            word = (over or stage, over is None)
            if not seen or seen[-1] != word:
                seen.append(word)
        for i, (stage, stands) in enumerate(seen):
            if stands:
                to = seen[i + 1][0] if i + 1 < len(seen) else p.STILL
                moves[stage, to], entered[stage] = moves.get((stage, to), 0) + 1, entered.get(stage, 0) + 1
    return moves, entered


@pytest.mark.parametrize("entity", ["lead", "deal"])
@pytest.mark.parametrize("at", [END, datetime(2025, 2, 1)])
def test_the_demos_versions_are_told_as_a_plain_count_tells_them(demo, entity, at):
    moves, entered = counted(demo, entity, pd.Timestamp(at))
    spells = p.stage_spells(stories(demo, as_of=at, entity=entity))
    found = ways(p.stage_transitions(spells))
    assert not spells.why and not spells.notes and len(moves) > 8
    assert {k: v[0] for k, v in found.items()} == moves and {k[0]: v[1] for k, v in found.items()} == entered
    leaks = p.leakage(spells).set_index("stage")
    assert leaks["n_lost"].to_dict() == {s: moves.get((s, "lost"), 0) + moves.get((s, "deleted"), 0) for s in entered}
    assert (leaks[["n_moved", "n_ended", "n_lost", "n_still"]].sum(axis=1) == leaks["n_entered"]).all()


def test_velocity_counts_conversions_a_month_and_their_median_days(tmp_path):
    # one lead a day; every third converts after 10 days, so in each whole month 10 or 11 do
    rows = [v for n in range(500) for v in (versions(n, (n, "New"), won(n + 10)) if n % 3 == 0 else versions(n, (n, "New")))]
    s = stories(lake_of(tmp_path, rows), as_of=day(500))
    months = p.velocity(s).set_index("month_on")
    ends = pd.Series([day(n + 10) for n in range(0, 490, 3)])
    expected = ends[(ends >= "2024-02-01") & (ends < "2025-05-01")].dt.to_period("M").value_counts().sort_index()
    assert months["n_converted"].tolist() == expected.tolist() and months.index[0] == pd.Timestamp("2024-02-01") and months.index[-1] == pd.Timestamp("2025-04-01")
    assert (months[["median_days", "low", "high"]] == 10).all().all() and months["n_created"].iloc[0] == 29
    trends = p.velocity_trends(months.reset_index())
    assert not trends["holds"].any() and "no trend" in p.velocity_sentence(s, trends)


def test_a_trend_is_found_and_is_the_true_one():
    rng, months = np.random.default_rng(1), pd.DataFrame({"month_on": pd.date_range("2022-01-01", periods=36, freq="MS")})
    months["n_converted"], months["median_days"] = rng.poisson(20 + 12 * np.arange(36) / 12), 40 + rng.normal(0, 4, 36)
    up, flat = p.velocity_trends(months).itertuples()
    assert up.holds and up.low <= 12 <= up.high and not flat.holds and flat.low <= 0 <= flat.high


def test_trends_are_seldom_seen_where_there_is_none():
    rng, seen = np.random.default_rng(2), 0
    for _ in range(400):
        months = pd.DataFrame({"n_converted": rng.poisson(12, 36), "median_days": rng.normal(40, 8, 36)})
        seen += p.velocity_trends(months)["holds"].any()
    assert seen <= 32  # 20 expected; three standard errors more make 33


def test_figures_are_drawn_and_empty_ones_say_so(demo, tmp_path):
    from workbench.models import behaviour as b

    for s in (stories(demo, as_of=END), stories(open_lake(tmp_path, create=True), as_of=END)):
        spells = p.stage_spells(s)
        figures = [plots.plot_time_to_outcome(b.time_to_outcome(s)), plots.plot_shares(b.early_signs(s), "what", "difference", n="n_with"), plots.plot_silences(b.silences(s)),
                   plots.plot_stages(p.leakage(spells), s.event), plots.plot_shares(p.stage_dwell(spells), "stage", "median_days"), plots.plot_velocity(p.velocity(s))]
        for figure in figures:
            assert figure.to_json() and bool(figure.layout.annotations) == s.frame.empty
        assert p.trust_points(s, spells) and p.next_steps(s, spells, b.early_signs(s), p.leakage(spells)).startswith("- ")


def test_the_name_of_a_stage_is_never_markup(tmp_path):
    rows = [r | {"status": r["status"].replace("New", "<b>[x](y)*`\n#")} for r in HISTORY]
    spells = p.stage_spells(stories(lake_of(tmp_path, rows), as_of=day(100)))
    said = p.stage_sentence(spells, p.leakage(spells), p.stage_dwell(spells))
    assert r"\<b\>\[x\]\(y\)\*\` \#" in said and "<b>" not in said


@pytest.mark.skipif(not REAL, reason="set WORKBENCH_REAL_DATA to the folder of the public data sets")
def test_the_hardware_sellers_stages_are_refused(tmp_path):
    from workbench.connect.files import import_files

    lake = open_lake(tmp_path, create=True)
    import_files(lake, ROOT / "data/mappings/maven_crm_sales.toml", Path(REAL) / "maven_crm_sales", at=END)
    s = stories(lake, as_of=lake.latest_event("maven_crm_sales"), source="maven_crm_sales")
    spells = p.stage_spells(s)
    assert "has no history here (current only)" in spells.why and p.leakage(spells).empty and len(p.velocity(s)) >= 8
