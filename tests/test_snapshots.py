"""Snapshots: the population of each origin is who stood open then, and the label is what came within the horizon."""

import os
import tempfile
from datetime import datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_features import KINDS, World, happen, hour, load, quick, start, step

from workbench.errors import WorkbenchError
from workbench.features import snapshots as module
from workbench.features.as_of import as_of_features
from workbench.features.snapshots import snapshots
from workbench.lake import open_lake

OUTCOME = {"lead": ("is_converted", "is_lost"), "deal": ("is_won", None)}


def day(n: float) -> datetime:
    return hour(24 * n)


@pytest.fixture
def lake(tmp_path):
    return open_lake(tmp_path, create=True)


def is_open(world: World, entity: str, record: str, at: datetime) -> bool:
    state = world.state(entity, record, at)
    return state is not None and not state.get("is_converted") and not state.get("is_won")


def check_grid(steps: list[tuple], horizon: int, later: int) -> None:
    world = World()
    as_of = happen(world, steps)[-1] + timedelta(days=later)
    with tempfile.TemporaryDirectory() as folder:
        lake = world.lake(folder, as_of, False, {})
        for entity, won in (("lead", "is_converted"), ("deal", "is_won")):
            found = snapshots(lake, entity, as_of=as_of, horizon_days=horizon, score_at="grid", source="s")
            records = [r for e, r in world.events if e == entity]
            rows = []
            for k in range(1, 60):
                origin, until = as_of - timedelta(days=7 * k), as_of - timedelta(days=7 * k) + timedelta(days=horizon)
                for r in records:
                    if is_open(world, entity, r, origin):
                        event = any(c.get(won) for t, c in world.events[entity, r] if origin < t <= until)
                        rows.append((r, pd.Timestamp(origin), None if until > as_of else event))
            told = [(r, t, None if pd.isna(e) else e) for r, t, e in found.frame[["id", "as_of", "event"]].itertuples(index=False)]
            assert sorted(told, key=str) == sorted(rows, key=str)
            assert set(found.open["id"]) == {r for r in records if is_open(world, entity, r, as_of)}
            values = as_of_features(lake, entity, found.frame[["id", "as_of"]])
            pd.testing.assert_frame_equal(found.frame[found.features], values[found.features])


slow = st.tuples(step.map(lambda s: s[0]), st.sampled_from([1, 50, 200, 400]), st.integers(0, 3), st.sampled_from("abc"))


@settings(quick, max_examples=10)
@given(start, st.lists(slow, max_size=12), st.sampled_from([1, 7, 30]), st.sampled_from([0, 5, 40]))
def test_a_grid_holds_who_stood_open_and_what_came_within_the_horizon(before, steps, horizon, later):
    check_grid(before + steps, horizon, later)


@pytest.mark.soak
@settings(quick, max_examples=int(os.environ.get("SOAK_EXAMPLES", 400)))
@given(start, st.lists(slow, max_size=40), st.sampled_from([1, 7, 30]), st.sampled_from([0, 5, 40]))
def test_a_grid_holds_who_stood_open_over_long_histories(before, steps, horizon, later):
    check_grid(before + steps, horizon, later)


def deal(n: int, created: float | None, closed: float | None = None, won: bool | None = None, exported: float = 100, **more) -> list[dict]:
    """The versions that a plain export gives: one at creation without the outcome, one at the close (or the export) with it."""
    row = {"id": f"s:d{n}", "created_at": None if created is None else day(created), "stage": f"S{n % 3}", "is_won": None, "closed_at": None, **more}
    if won is None or created is None:
        return [row | {"valid_from": day(exported if created is None else created), "is_won": won, "closed_at": None if closed is None else day(closed)}]
    end = row | {"valid_from": day(exported if closed is None else max(closed, created)), "is_won": won, "closed_at": None if closed is None else day(closed)}
    return [end] if end["valid_from"] == row["created_at"] else [row | {"valid_from": day(created)}, end]


def export(lake, *deals: list[dict]) -> None:
    frame = pd.DataFrame([row for rows in deals for row in rows])
    lake.load_versions("deal", frame.astype({c: k for c, k in KINDS.items() if c in frame}), origin="import", recorded_at=day(100))


def events(found) -> dict[str, bool | None]:
    return {r.id: None if pd.isna(r.event) else bool(r.event) for r in found.frame.itertuples()}


def test_an_export_without_history_is_scored_at_creation(lake):
    # horizon 30, exported at day 100: won after 10 days; after 50 days (not within); lost; too young (day 80 + 30 > 100); open since day 0
    export(lake, deal(1, 0, 10, True), deal(2, 0, 50, True), deal(3, 0, 10, False), deal(4, 80, 90, True), deal(5, 0), deal(6, 85))
    found = snapshots(lake, "deal", as_of=day(100), horizon_days=30)
    assert (found.score_at, found.evaluation) == ("creation", "time")
    assert events(found) == {"s:d1": True, "s:d2": False, "s:d3": False, "s:d4": None, "s:d5": False, "s:d6": None}
    assert (found.frame["as_of"] == found.frame["id"].map({f"s:d{n}": pd.Timestamp(day({4: 80, 6: 85}.get(n, 0))) for n in range(1, 7)})).all()
    assert set(found.open["id"]) == {"s:d5", "s:d6"} and (found.open["as_of"] == found.open["created_at"]).all()


def test_won_on_the_day_of_creation_counts_and_before_it_is_left_out(lake):
    export(lake, deal(1, 10, 10, True), deal(2, 10, 9, True), deal(3, 10, 10, False))
    assert events(snapshots(lake, "deal", as_of=day(100), horizon_days=30)) == {"s:d1": True, "s:d3": False}


def test_on_a_grid_a_record_is_in_no_origin_at_or_after_its_closing(lake):
    # as_of day 100, weekly origins 93, 86 ... ; created day 80, won at origin 93 itself: open at 86 only, and 93 lies in (86, 93]
    export(lake, deal(1, 80, 93, True), deal(2, 80, 92, False))
    found = snapshots(lake, "deal", as_of=day(100), horizon_days=7, score_at="grid")
    assert found.frame[["id", "as_of", "event"]].values.tolist() == [["s:d1", pd.Timestamp(day(86)), True], ["s:d2", pd.Timestamp(day(86)), False]]


def test_a_closing_that_a_sync_saw_late_ends_the_open_time_when_it_happened(lake):
    load(lake, "deal", [{"id": "s:d1", "valid_from": day(0), "created_at": day(0)}, {"id": "s:d1", "valid_from": day(10), "created_at": day(0), "stage": "New"},
                        {"id": "s:d1", "valid_from": day(90), "created_at": day(0), "is_won": True, "closed_at": day(50)}])
    found = snapshots(lake, "deal", as_of=day(100), horizon_days=14)
    # origins 2, 9 ... 44 (then 51: closed since 50); won at 50 lies in (37, 51] and (44, 58], not in (30, 44]
    assert found.score_at == "grid" and [t for t in found.frame["as_of"]] == [pd.Timestamp(day(n)) for n in range(2, 45, 7)]
    assert found.frame.loc[found.frame["event"], "as_of"].tolist() == [pd.Timestamp(day(37)), pd.Timestamp(day(44))]


def test_records_that_are_decided_nobody_knows_when_are_left_out_with_a_note(lake):
    export(lake, *[deal(n, 0, 10, n % 2 == 0) for n in range(4)], deal(4, 0, None, True), deal(5, None, 7, True))
    found = snapshots(lake, "deal", as_of=day(100), horizon_days=30)
    assert set(events(found)) == {f"s:d{n}" for n in range(4)}
    assert found.notes == ["1 records have no creation date; they cannot be placed in time, and are left out.", "1 records are decided, but nobody knows when, and are left out."]


def test_an_export_that_dates_no_closing_is_judged_on_the_outcome_that_it_shows(lake):
    export(lake, deal(1, 0, None, True), deal(2, 0, None, False), deal(3, 90, None, True), deal(4, 0))
    found = snapshots(lake, "deal", as_of=day(100), horizon_days=30)
    # d4 has been open for 100 days: not won within 30; d3 is too young
    assert events(found) == {"s:d1": True, "s:d2": False, "s:d3": None, "s:d4": False}
    assert (found.score_at, found.evaluation) == ("creation", "time") and "the outcome that the export shows" in found.notes[0]
    with pytest.raises(WorkbenchError, match="cannot be followed over time"):
        snapshots(lake, "deal", as_of=day(100), score_at="grid")


def test_an_export_without_any_date_is_judged_in_groups(lake):
    export(lake, deal(1, None, None, True, created_order=2), deal(2, None, None, False, created_order=1), deal(3, None, created_order=3))
    found = snapshots(lake, "deal", as_of=day(100))
    assert found.evaluation == "grouped" and events(found) == {"s:d1": True, "s:d2": False, "s:d3": None}
    assert found.frame.set_index("id")["order"].to_dict() == {"s:d1": 2, "s:d2": 1, "s:d3": 3}


def test_a_large_grid_has_every_fourth_week_only(lake, monkeypatch):
    export(lake, deal(1, 0), deal(2, 50))
    load(lake, "deal", [{"id": "s:d3", "valid_from": day(0), "created_at": day(0)}, {"id": "s:d3", "valid_from": day(1), "created_at": day(0), "stage": "B"}])
    # open for 100, 50 and 100 days: 250 / 7 = 35.7 weeks
    assert snapshots(lake, "deal", as_of=day(100)).frame["as_of"].diff().max() == timedelta(days=7)
    monkeypatch.setattr(module, "MAX_WEEKLY", 35)
    found = snapshots(lake, "deal", as_of=day(100)).frame
    assert sorted(set(found["as_of"])) == [pd.Timestamp(day(n)) for n in (16, 44, 72)] and len(found) == 3 + 1 + 3


@pytest.mark.parametrize("entity", ["lead", "deal"])
@pytest.mark.parametrize("score_at", ["auto", "grid", "creation"])
def test_before_any_data_there_are_no_snapshots_and_no_error(lake, entity, score_at):
    export(lake, deal(1, 10, 20, True))
    load(lake, "lead", [{"id": "s:l1", "valid_from": day(10), "created_at": day(10)}])
    found = snapshots(lake, entity, as_of=day(5), score_at=score_at)
    assert found.frame.empty and found.open.empty and found.features == [] and {"group", "event", "order"} <= set(found.frame)


def test_one_class_gives_rows_of_that_class(lake):
    export(lake, *[deal(n, n, n + 1, False) for n in range(5)])
    assert set(events(snapshots(lake, "deal", as_of=day(100), horizon_days=97)).values()) == {None, False}  # created on day 4, too young on day 100
    assert set(events(snapshots(lake, "deal", as_of=day(100), horizon_days=30)).values()) == {False}


def test_a_lead_deleted_or_merged_later_stays_in_training(lake):
    lead = {"id": "s:l1", "created_at": day(0)}
    load(lake, "lead", [lead | {"valid_from": day(0)}, lead | {"valid_from": day(30), "deleted_at": day(30), "merged_into": "s:l2"}])
    found = snapshots(lake, "lead", as_of=day(100), horizon_days=7)
    # origins 2, 9, 16, 23: it stood open; from day 30 on it did not
    assert found.frame[["as_of", "event"]].values.tolist() == [[pd.Timestamp(day(n)), False] for n in (2, 9, 16, 23)] and found.open.empty


def test_what_rests_on_a_mappings_word_is_named(lake):
    export(lake, *[deal(n, n, n + 5, n % 2 == 0, next_step="call" if n % 2 else None, x_band="ab"[n % 2]) for n in range(6)])
    lake.set_fields([{"source": "s", "entity": "deal", "field": f, "known_at": k} for f, k in (("stage", "assumed"), ("next_step", "assumed"), ("x_band", "current_only"))])
    found = snapshots(lake, "deal", as_of=day(100), source="s")
    assert found.assumed == ["has_next_step", "stage"] and "x_band" not in found.features
    assert "latest value" in found.excluded.set_index("field").loc["x_band", "reason"]
    let_in = snapshots(lake, "deal", as_of=day(100), source="s", allow=["x_band"])
    assert "x_band" in let_in.features and let_in.notes == ["Let in by name, although nobody knows when they were filled: x_band."] and not found.notes


def test_nothing_is_said_of_fields_that_only_another_source_has(lake):
    export(lake, *[deal(n, n, n + 5, n % 2 == 0) for n in range(6)])
    load(lake, "deal", [{"id": f"r:d{n}", "valid_from": day(0), "x_band": "a", "x_memo": f"memo {n}"} for n in range(300)])
    found = snapshots(lake, "deal", as_of=day(100), source="s")
    assert not {"x_band", "x_memo"} & set(found.excluded["field"])
    told = snapshots(lake, "deal", as_of=day(100), source="r").excluded.set_index("field")["reason"]
    assert "one value" in told["x_band"] and "free text" in told["x_memo"]


def test_a_field_of_ones_own_has_its_row_for_each_source_that_fills_it(lake):
    for source in ("s", "r", "s"):
        load(lake, "deal", [{"id": f"{source}:d1", "valid_from": day(0), "x_band": "a"}])
    assert sorted(lake.fields().query("field == 'x_band'")["source"]) == ["r", "s"]


def test_another_source_does_not_enter(lake):
    export(lake, deal(1, 0, 10, True))
    load(lake, "deal", [{"id": "r:d1", "valid_from": day(0), "created_at": day(0)}, {"id": "r:d1", "valid_from": day(3), "created_at": day(0), "stage": "B"}])
    assert set(snapshots(lake, "deal", as_of=day(100), source="s").frame["id"]) == {"s:d1"}
    assert snapshots(lake, "deal", as_of=day(100), source="s").score_at == "creation" and snapshots(lake, "deal", as_of=day(100)).score_at == "grid"


@pytest.mark.parametrize(("options", "message"), [({"score_at": "weekly"}, "is unknown"), ({"horizon_days": 0}, "makes no sense"),
                                                   ({"allow": ["stage", "x_nope"]}, "allow names no field: x_nope")])
def test_wrong_options_are_refused(lake, options, message):
    with pytest.raises(WorkbenchError, match=message):
        snapshots(lake, "deal", as_of=day(1), **options)
