"""The ledger: a batch stands once whoever writes it and however often, and is read whatever the lake does."""

import json
import multiprocessing
import os
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable

from workbench import ledger
from workbench.errors import WorkbenchError
from workbench.lake import open_lake
from workbench.ledger import latest_run, scores, this_run, write_scores

NOW = datetime(2025, 6, 1)
BATCH = {"purpose": "production", "model": "m1", "as_of": NOW, "lake_version": 0, "source": "s", "made_at": NOW, "run": "10_lead_scoring"}
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["workbench.ledger", "workbench.lake", __name__])


def frame(*p: float) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"s:{i}" for i in range(len(p))], "p": p})


def days(n: float) -> datetime:
    return NOW + timedelta(days=n)


@pytest.fixture
def lake(tmp_path):
    return open_lake(tmp_path / "lake", create=True)


def test_a_lake_without_a_ledger_reads_as_an_empty_frame_with_every_column(lake):
    assert scores(lake).empty and list(scores(lake)) == ledger.SCHEMA.names
    assert latest_run(lake, before=NOW, source="s").empty and not (lake.path / "_ledger").exists()


def test_what_was_written_is_read_with_every_bit(lake):
    given = pd.DataFrame({"id": ["s:1"], "p": [0.1 + 0.2], "p_low": [1 / 3], "p_high": [2 / 3], "band": ["A"], "total": [-12.2], "start": [-20.1],
                          "points": [json.dumps({"x_\"é\n": 5.5})], "others": [2.4]})
    write_scores(lake, given, **BATCH | {"horizon_days": None})
    row = scores(lake).iloc[0]
    assert row[list(given)].tolist() == given.iloc[0].tolist()
    assert row[["purpose", "model", "lake_version", "source", "run", "entity"]].tolist() == ["production", "m1", 0, "s", "10_lead_scoring", "lead"]
    assert row["as_of"] == NOW and row["made_at"] == NOW and pd.isna(row["horizon_days"])


def test_the_same_batch_stands_once_and_what_was_said_first_stays(lake):
    assert [write_scores(lake, frame(.1, .2), **BATCH), write_scores(lake, frame(.1, .9), **BATCH | {"made_at": days(1)})] == [2, 0]
    assert scores(lake)["p"].tolist() == [.1, .2]


def test_a_model_trained_again_that_differs_in_its_last_digits_says_nothing_new(lake):
    again = frame(.1, .2).assign(p=lambda f: f["p"] * (1 + 1e-14)).iloc[::-1]
    assert [write_scores(lake, frame(.1, .2), **BATCH), write_scores(lake, again, **BATCH | {"model": "m2"}), write_scores(lake, frame(.1, .21), **BATCH | {"model": "m2"})] == [2, 0, 2]
    assert scores(lake)["p"].tolist() == [.1, .2, .1, .21]


@pytest.mark.parametrize("other", [{"as_of": days(1)}, {"purpose": "backtest"}, {"source": None}, {"horizon_days": 30}, {"horizon_days": None}, {"entity": "deal"}])
def test_a_batch_that_differs_in_one_part_of_its_key_stands_beside(lake, other):
    assert [write_scores(lake, frame(.1), **BATCH), write_scores(lake, frame(.1), **BATCH | other)] == [1, 1]
    assert sum(len(scores(lake, purpose=p)) for p in ledger.PURPOSES) == 2


def test_a_batch_is_known_after_many_others(lake):
    for i in range(25):  # beyond two checkpoints of the log
        write_scores(lake, frame(.1), **BATCH | {"as_of": days(-i)})
    assert write_scores(lake, frame(.5), **BATCH) == 0 and len(scores(lake)) == 25


def test_rows_that_are_no_scores_are_refused_and_nothing_is_written(lake):
    for bad in (frame(.1, float("nan")), frame(1.2), frame(.1).assign(id=None), pd.concat([frame(.1), frame(.2)])):
        with pytest.raises(WorkbenchError, match="one row a record"):
            write_scores(lake, bad, **BATCH)
    for bad in ({"purpose": "prod"}, {"purpose": None}, {"made_at": None}):
        with pytest.raises(WorkbenchError, match="cannot be kept"):
            write_scores(lake, frame(.1), **BATCH | bad)
    assert scores(lake).empty


def test_the_latest_run_is_the_last_before_an_instant_of_the_same_population(lake):
    for as_of, other in ((-14, {}), (-7, {}), (-7, {"model": "m2", "made_at": days(2)}), (0, {}), (-1, {"source": None}), (-2, {"purpose": "backtest"}), (-3, {"horizon_days": 30})):
        write_scores(lake, frame(.1, .3 if other else .2), **BATCH | {"as_of": days(as_of)} | other)
    last = latest_run(lake, before=NOW, source="s")
    assert last[["id", "model"]].to_numpy().tolist() == [["s:0", "m2"], ["s:1", "m2"]] and set(last["as_of"]) == {days(-7)}  # of two at one as_of the one made later
    assert latest_run(lake, before=days(-14), source="s").empty
    assert set(latest_run(lake, before=NOW, source=None)["as_of"]) == {days(-1)}


def test_a_row_cannot_be_changed_or_deleted_by_way_of_the_table(lake):
    write_scores(lake, frame(.1), **BATCH)
    with pytest.raises(Exception, match="append-only"):
        DeltaTable(lake.path / ledger.TABLE).delete()


def test_the_ledger_survives_writers_that_fail_compaction_and_vacuum_and_is_read_beside_a_pinned_version(lake):
    lake.upsert("lead", pd.DataFrame({"id": ["s:0"], "name": ["A"]}), at=days(-9))
    pinned = open_lake(lake.path, version=lake.version)
    write_scores(lake, frame(.1), **BATCH)
    with pytest.raises(ZeroDivisionError), lake.writer():
        lake.upsert("lead", pd.DataFrame({"id": ["s:1"], "name": ["B"]}), at=days(-8))
        1 / 0  # noqa: B018
    lake.upsert("lead", pd.DataFrame({"id": ["s:2"], "name": ["C"]}), at=days(-7))  # rolls the failed one back
    lake.compact()
    lake.vacuum(days(400), keep_days=0)
    assert write_scores(pinned, frame(.7), **BATCH | {"as_of": days(1)}) == 1  # a pinned lake cannot be written, its ledger can
    assert scores(pinned)["p"].tolist() == scores(lake)["p"].tolist() == [.1, .7]


def test_a_score_is_written_while_another_process_holds_the_lake(lake):
    with open_lake(lake.path).writer():
        assert write_scores(lake, frame(.1), **BATCH) == 1


def appending(path: Path, name: str, n: int) -> None:
    lake = open_lake(path)
    for i in range(n):
        write_scores(lake, frame(.1, ord(name) / 1000), **BATCH | {"model": f"{name}{i}", "as_of": days(i)})
        write_scores(lake, frame(.1, .2), **BATCH | {"model": f"both{i}", "as_of": days(i)})


def test_processes_that_append_at_once_lose_nothing_and_double_nothing(lake):
    children = [processes.Process(target=appending, args=(lake.path, name, 15)) for name in "ab"]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [c.exitcode for c in children] == [0, 0]
    assert len(scores(lake)) == 3 * 15 * 2  # a's, b's, and once those of both; two rows each
    assert not scores(lake).duplicated(["model", "id"]).any()


def beginning(paths: list[Path], name: str, barrier) -> None:
    for path in paths:
        lake = open_lake(path)
        barrier.wait(60)
        write_scores(lake, frame(ord(name) / 1000), **BATCH | {"model": name})


def test_processes_that_begin_a_ledger_at_once_make_one_table(tmp_path):
    paths, barrier = [tmp_path / str(i) for i in range(25)], processes.Barrier(3)
    lakes = [open_lake(path, create=True) for path in paths]
    children = [processes.Process(target=beginning, args=(paths, name, barrier)) for name in "abc"]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [c.exitcode for c in children] == [0, 0, 0]
    assert {len(scores(lake)) for lake in lakes} == {3}
    assert {DeltaTable(lake.path / ledger.TABLE).version() for lake in lakes} == {3}  # made once, and a commit each


def test_a_killed_writer_leaves_whole_batches_only(lake):
    child = processes.Process(target=appending, args=(lake.path, "a", 10_000))
    child.start()
    while len(scores(lake)) < 20:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    found = scores(lake)
    assert set(found.groupby("model").size()) == {2}
    assert write_scores(lake, frame(.1, .2), **BATCH | {"model": found["model"].iloc[0], "as_of": found["as_of"].iloc[0].to_pydatetime()}) == 0
    assert write_scores(lake, frame(.3, .2), **BATCH | {"model": "later"}) == 2


@pytest.mark.parametrize(("told", "at", "purpose"), [("production", 0, "production"), ("production", -1, "backtest"), ("exploration", -1, "exploration")])
def test_a_run_writes_what_its_environment_says_and_backdated_ones_are_backtests(lake, monkeypatch, told, at, purpose):
    lake.upsert("lead", pd.DataFrame({"id": ["s:0"], "name": ["A"]}), at=NOW)
    for name, value in (("PURPOSE", told), ("STARTED_AT", "2025-07-01T06:00:00+02:00"), ("RUN", "10_lead_scoring")):
        monkeypatch.setenv(f"WORKBENCH_{name}", value)
    assert this_run(lake, as_of=days(at), source="s") == {"purpose": purpose, "run": "10_lead_scoring", "made_at": datetime(2025, 7, 1, 4)}


def test_a_notebook_run_by_hand_writes_nothing(lake, monkeypatch):
    monkeypatch.delenv("WORKBENCH_PURPOSE", raising=False)
    assert this_run(lake, as_of=NOW) == {}
