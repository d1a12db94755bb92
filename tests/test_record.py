"""A notebook begins at one instant of one source and leaves its headline numbers behind."""

from datetime import datetime

import pandas as pd
import pytest

from workbench.errors import WorkbenchError
from workbench.lake import open_lake
from workbench.plots.explore import explorer, value_counts
from workbench.plots.quality import plot_events
from workbench.quality.contents import contents_sentence, events_by_month, lake_contents
from workbench.record import RESULTS_MIME, begin, record
from workbench.settings import settings

T1, T2 = datetime(2024, 1, 10), datetime(2024, 3, 1, 12)


@pytest.fixture
def lake(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_LAKE", str(tmp_path / "lake"))
    lake = open_lake(create=True)
    lake.upsert("lead", pd.DataFrame({"id": ["a:1", "a:2"], "name": ["Ann", "Bob"], "status": ["New", None]}), at=T1)
    lake.upsert("lead", pd.DataFrame({"id": ["a:1"], "status": ["Working"]}), at=T2)
    return lake


def test_the_default_instant_is_the_latest_event_of_the_only_source(lake):
    session = begin()
    assert (session.as_of, session.source) == (T2, "a")


def test_a_bare_date_means_its_end_and_the_note_says_how_old_the_data_are_then(lake):
    session = begin("2024-03-31")
    assert session.as_of == datetime(2024, 3, 31, 23, 59, 59, 999999)
    assert "30 days older: 2024-03-01" in session.note  # 31 March less 1 March


def test_an_instant_before_any_data_is_said_to_be_one(lake):
    assert "before any data" in begin("2020-01-01").note


def test_an_instant_before_the_chosen_source_began_is_said_to_be_one_though_another_had_begun(lake):
    lake.upsert("lead", pd.DataFrame({"id": ["b:1"]}), at=T2)
    assert "before any data" in begin("2024-02-01", "b").note and "before any data" not in begin("2024-02-01", "a").note


@pytest.mark.parametrize(("as_of", "sentence"), [("2204-01-01", "180 years after"), ("9999-12-31T23:59:59-10:00", "beyond what dates can tell")])
def test_an_instant_that_is_surely_a_slip_is_refused(lake, as_of, sentence):
    with pytest.raises(WorkbenchError, match=sentence):
        begin(as_of)


def test_the_demo_is_left_aside_when_there_is_one_source_beside_it(lake):
    lake.upsert("lead", pd.DataFrame({"id": ["demo:1"]}), at=T2)
    assert begin().source == "a" and begin(source="demo").source == "demo" and begin(every=True).source is None


def test_the_environment_may_name_the_source(lake, monkeypatch):
    lake.upsert("lead", pd.DataFrame({"id": ["b:1"]}), at=T2)
    monkeypatch.setenv("WORKBENCH_SOURCE", "b")
    assert begin().source == begin(every=True).source == "b" and begin(source="a").source == "a"


def test_several_sources_must_be_chosen_from_and_an_unknown_one_is_named(lake):
    lake.upsert("lead", pd.DataFrame({"id": ["b:1"]}), at=T2)
    with pytest.raises(WorkbenchError, match="several sources: a, b"):
        begin()
    with pytest.raises(WorkbenchError, match="no source 'c'.*a, b"):
        begin(source="c")


def test_an_empty_lake_is_told_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_LAKE", str(tmp_path))
    session = begin()
    assert "lake is empty" in session.note
    held = lake_contents(session.lake, session.as_of)
    assert contents_sentence(held) == "Nothing was recorded up to this instant."
    assert plot_events(events_by_month(session.lake, session.as_of)).layout.annotations


def test_what_is_recorded_can_be_read_from_the_cell_s_output(lake, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    record({"n": 3}, [("Records", "3", "of all")], session=begin())
    data = shown[0]
    assert data[RESULTS_MIME] == {"results": {"n": 3}, "cards": [["Records", "3", "of all"]], "as_of": T2.isoformat(), "source": "a", "lake_version": 1}


def test_contents_count_what_stood_then_and_which_changes_were_told(lake):
    row = lake_contents(lake, T2).iloc[0]
    assert (row["n_records"], row["n_versions"], row["n_changes"], row["days_old"]) == (2, 3, 1, 0)  # a:1 changed once
    assert lake_contents(lake, T1).iloc[0][["n_versions", "n_changes"]].tolist() == [2, 0]


def test_the_explorer_offers_no_personal_field_and_counts_what_is_chosen(lake):
    entity, field = explorer(lake, as_of=T2).children[0].children
    assert entity.options == ("lead",) and "status" in field.options and not {"name", "email", "phone"} & set(field.options)
    counts = value_counts(lake, "lead", "status", as_of=T2)
    assert dict(counts.values.tolist()) == {"Working": 1, "(empty)": 1}


def test_folders_are_found_from_the_folder_of_the_notebooks(tmp_path, monkeypatch):
    monkeypatch.delenv("WORKBENCH_LAKE", raising=False)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "workbench.toml").write_text('[organization]\ntime_zone = "Australia/Sydney"\n')
    monkeypatch.chdir(tmp_path / "notebooks")
    assert settings().lake == tmp_path / "data/lake" and settings().time_zone == "Australia/Sydney" and settings().value == {}


def test_the_table_value_is_told_as_it_stands(tmp_path, monkeypatch):
    (tmp_path / "workbench.toml").write_text('[value]\ncost_per_call = 12.5\ncalls_per_day = 0\ncurrency = "EUR"\n')
    monkeypatch.chdir(tmp_path)
    assert settings().value == {"cost_per_call": 12.5, "calls_per_day": 0, "currency": "EUR"}
