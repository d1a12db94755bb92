"""As-of reads equal a brute-force replay of whatever happened to the records, in any order and with any history cut off."""

import os
import tempfile
from datetime import datetime, timedelta

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.lake import open_lake

IDS = ("s:1", "s:2", "s:10", "r:1")  # two sources; as text s:10 sorts before s:2
FIELDS = ("stage", "amount", "is_won", "x_note")
TYPES = {"stage": object, "amount": "float64", "is_won": "boolean", "x_note": object}
LAST = 30  # days


def day(n: float) -> datetime:
    return datetime(2024, 1, 1) + timedelta(days=n)


values = {"stage": st.sampled_from([None, "New", "Won"]), "amount": st.sampled_from([None, 0.1, 19.99]),
          "is_won": st.sampled_from([None, True, False]), "x_note": st.sampled_from([None, "a'b", "ü"])}
ids = st.lists(st.sampled_from(IDS), min_size=1, unique=True)
some_fields = st.lists(st.sampled_from(FIELDS), min_size=1, unique=True)
states = st.fixed_dictionaries(values)
edits = st.tuples(st.just("edit"), st.integers(0, 4), some_fields, st.dictionaries(st.sampled_from(IDS), states, min_size=1))
deletions = st.tuples(st.just("delete"), st.integers(0, 4), ids, st.none())
merges = st.tuples(st.just("merge"), st.integers(0, 4), ids, st.sampled_from(IDS))
histories = st.tuples(st.just("history"), st.integers(0, 4), st.dictionaries(
    st.sampled_from(IDS), st.dictionaries(st.integers(0, LAST), states, min_size=1, max_size=4), min_size=1), st.booleans())
steps = st.lists(st.one_of(edits, edits, deletions, merges, histories), min_size=1, max_size=6)
cuts = st.dictionaries(st.sampled_from(FIELDS), st.integers(0, LAST), max_size=2)


class Replay:
    """What happened, told plainly: id -> [(instant, what changed)]; a state is all of it up to an instant, one after the other."""

    def __init__(self):
        self.events: dict[str, list[tuple[datetime, dict]]] = {}

    def tell(self, record: str, at: datetime, change: dict) -> None:
        self.events.setdefault(record, []).append((at, change))

    def rewrite(self, record: str, history: dict[datetime, dict]) -> None:
        self.events[record] = sorted(history.items())

    def standing(self, t: datetime) -> dict[str, dict]:
        found = {}
        for record, events in self.events.items():
            known = [change for at, change in events if at <= t]
            state = {k: v for change in known for k, v in change.items()}
            if known and state.get("deleted_at") is None:
                found[record] = {f: state.get(f) for f in FIELDS}
        return found


def frame_of(rows: list[dict]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    return frame.astype({c: t for c, t in TYPES.items() if c in frame})


def take(lake, replay: Replay, step: tuple, now: float) -> None:
    """Carry out one step in the lake and in the replay."""
    kind, _, first, second = step
    at = day(now)
    if kind == "edit":
        rows = {i: {f: state[f] for f in first} for i, state in second.items()}
        lake.upsert("deal", frame_of([{"id": i} | r for i, r in rows.items()]), at=at)
        for i, change in rows.items():
            replay.tell(i, at, change | {"deleted_at": None})  # an edit of a deleted record means that it lives
    elif kind in ("delete", "merge"):
        change = {"deleted_at": at} | ({"merged_into": second} if kind == "merge" else {})
        known = [i for i in first if i in replay.events and replay.events[i][-1][1].get("deleted_at") is None]
        if known:
            lake.upsert("deal", pd.DataFrame([{"id": i} | change for i in known]), at=at)
        for i in known:
            replay.tell(i, at, change)
    else:
        told = {i: {day(min(n, now)): state for n, state in history.items()} for i, history in first.items()}
        rows = [{"id": i, "valid_from": t} | state for i, history in told.items() for t, state in history.items()]
        lake.load_versions("deal", frame_of(rows[::-1] if second else rows), origin="crm_history")
        for i, history in told.items():
            replay.rewrite(i, {t: state | {"deleted_at": None} for t, state in history.items()})


def plain(frame: pd.DataFrame) -> dict[str, dict]:
    return {r["id"]: {f: None if f not in r or pd.isna(r[f]) else r[f] for f in FIELDS} for r in frame.to_dict("records")}


def check(plan: list[tuple], cut: dict[str, int], instants: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake, replay, now = open_lake(folder, create=True), Replay(), 0
        for step in plan:
            now += step[1]
            take(lake, replay, step, now)
        assert plain(lake.read("deal")) == replay.standing(day(now))
        if cut:
            lake.set_fields([{"source": "s", "entity": "deal", "field": f, "known_at": "historized", "history_from": day(n)} for f, n in cut.items()])
        for t in instants:
            expected = replay.standing(day(t))
            for record, state in expected.items():  # before the history of source s begins, nobody knows
                state |= {f: None for f, n in cut.items() if record.startswith("s:") and t < n}
            assert plain(lake.read("deal", as_of=day(t))) == expected
        consistent(lake)


def consistent(lake) -> None:
    """Versions of a record follow one another without gap or overlap, and one of them is current."""
    wrong = lake.sql("""select id from (select id, valid_from, valid_to, lead(valid_from) over (partition by id order by valid_from) as next from deal_versions)
        where valid_to is distinct from next or valid_to <= valid_from""").fetchall()
    assert wrong == []


instants = st.lists(st.sampled_from([n / 2 for n in range(-1, 2 * LAST + 2)]), min_size=1, max_size=3, unique=True)
quick = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(steps, cuts, instants)
def test_as_of_reads_equal_a_replay_of_the_history(plan, cut, when):
    check(plan, cut, when)


@pytest.mark.soak
@settings(quick, max_examples=int(os.environ.get("SOAK_EXAMPLES", 1000)))
@given(st.lists(st.one_of(edits, edits, deletions, merges, histories), min_size=1, max_size=20), cuts, instants)
def test_as_of_reads_equal_a_replay_of_long_histories(plan, cut, when):
    check(plan, cut, when)


def versions(lake) -> list[dict]:
    return lake.sql("select * from deal_versions order by id, valid_from").to_arrow_table().to_pylist()


@settings(quick, max_examples=5)
@given(some_fields, st.lists(st.dictionaries(st.sampled_from(IDS), states, min_size=1), min_size=1, max_size=3))
def test_an_upsert_said_twice_changes_nothing_the_second_time(fields, batches):
    with tempfile.TemporaryDirectory() as folder:
        lake = open_lake(folder, create=True)
        for n, batch in enumerate(batches):
            frame = frame_of([{"id": i} | {f: state[f] for f in fields} for i, state in batch.items()])
            lake.upsert("deal", frame, at=day(n))
            before = versions(lake)
            assert lake.upsert("deal", frame, at=day(n)) == {"new": 0, "changed": 0, "same": len(frame)}
            assert lake.upsert("deal", frame, at=day(n + .5)) == {"new": 0, "changed": 0, "same": len(frame)}
            assert versions(lake) == before


def test_a_change_before_the_latest_version_is_refused_and_nothing_is_written(tmp_path):
    lake = open_lake(tmp_path, create=True)
    lake.upsert("deal", frame_of([{"id": "s:1", "stage": "New"}]), at=day(5))
    before = versions(lake)
    with pytest.raises(WorkbenchError, match="s:1.*a later version stands already"):
        lake.upsert("deal", frame_of([{"id": "s:1", "stage": "Won"}, {"id": "s:2", "stage": "New"}]), at=day(4))
    assert versions(lake) == before == versions(open_lake(tmp_path))


def test_the_unknown_past_is_null_and_not_the_value_of_today(tmp_path):
    lake = open_lake(tmp_path, create=True)
    lake.load_versions("deal", frame_of([{"id": "s:1", "valid_from": day(0), "stage": "Won", "amount": 5.0}]))
    lake.set_fields([{"source": "s", "entity": "deal", "field": "stage", "known_at": "historized", "history_from": day(10)},
                     {"source": "s", "entity": "deal", "field": "amount", "known_at": "current_only"}])
    assert plain(lake.read("deal", as_of=day(9)))["s:1"]["stage"] is None
    assert plain(lake.read("deal", as_of=day(10)))["s:1"]["stage"] == "Won"
    lake.upsert("deal", frame_of([{"id": "s:1", "amount": 7.0}]), at=day(20))
    assert plain(lake.read("deal"))["s:1"]["amount"] == 7  # seen on day 20, with the value of day 20


def test_a_pinned_version_still_reads_what_was_known_then(tmp_path):
    lake = open_lake(tmp_path, create=True)
    lake.upsert("deal", frame_of([{"id": "s:1", "stage": "New"}]), at=day(1))
    then = lake.version
    lake.load_versions("deal", frame_of([{"id": "s:1", "valid_from": day(0), "stage": "Won"}]))
    assert plain(open_lake(tmp_path, version=then).read("deal"))["s:1"]["stage"] == "New"
    assert plain(open_lake(tmp_path).read("deal", as_of=day(.5)))["s:1"]["stage"] == "Won"


def test_a_column_that_no_row_holds_yet_reads_as_null(tmp_path):
    lake = open_lake(tmp_path, create=True)
    lake.upsert("deal", frame_of([{"id": "s:1", "stage": "New"}]), at=day(1))
    assert lake.upsert("deal", frame_of([{"id": "s:1", "x_note": None}]), at=day(2)) == {"new": 0, "changed": 0, "same": 1}
    assert plain(lake.read("deal", as_of=day(1))) == plain(lake.read("deal")) == {"s:1": {"stage": "New", "amount": None, "is_won": None, "x_note": None}}


def test_history_tells_each_change_of_a_field_and_refuses_one_that_is_none(tmp_path):
    lake = open_lake(tmp_path, create=True)
    days = [datetime(2026, 1, n) for n in (1, 2, 3)]
    for at, status, title in zip(days, ("New", "Working", "Working"), (None, None, "CEO"), strict=True):
        lake.upsert("lead", pd.DataFrame({"id": ["s:1"], "status": [status], "title": [title]}), at=at)
    told = lake.history("lead", ["status", "title"])
    assert [[None if pd.isna(v) else v for v in row] for row in told.values.tolist()] == [
        ["s:1", days[0], "status", None, "New"], ["s:1", days[1], "status", "New", "Working"], ["s:1", days[2], "title", None, "CEO"]]
    for fields in (["status", "nope"], []):
        with pytest.raises(WorkbenchError, match="has no history of"):
            lake.history("lead", fields)
