"""The one sync: cursors, overlaps, versions from told changes, deletions, custom fields, failures, all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from workbench import ledger
from workbench.connect.http import Budget, Refused
from workbench.connect.streams import CustomField, Stream
from workbench.connect.sync import sync
from workbench.lake import open_lake

T0 = datetime(2026, 3, 2, 9)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DEALS = Stream("deals", "deal", {"created_at": "created", "name": "name", "stage": "stage", "amount": "value", "owner_id": "owner.id", "source": "source", "is_won": "won",
                                 "closed_at": "closed", "lost_reason": "reason"}, cursor="modified", ordered=True)


class Crm:
    """A connector over rows in memory."""

    name, keep_bodies = "testcrm", False

    def __init__(self, *streams: Stream):
        self.streams, self.budget = list(streams) or [DEALS], Budget(1.0)
        self.rows: dict[str, dict[str, dict]] = {s.name: {} for s in self.streams}
        self.told: dict[str, list[dict]] = {}
        self.since: dict[str, datetime | None] = {}  # stream -> since when its changes are told
        self.tracked_fields: dict[str, dict] = {}
        self.gone: dict[str, list[dict]] = {}
        self.custom: dict[str, list[CustomField]] = {}
        self.has_ids, self.page, self.asked, self.breaks = True, 3, [], {}

    def put(self, key: str, at: datetime, stream: str = "deals", **values) -> None:
        row = self.rows[stream].setdefault(key, {"id": key, "created": at.isoformat() + "Z"})
        row.update(values, modified=at.isoformat() + "Z")

    def check(self) -> list[dict]:
        return []

    def discover(self, stream: Stream) -> list[CustomField]:
        return self.custom.get(stream.name, [])

    def pull(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        self.asked.append((stream.name, since))
        rows = sorted((r for r in self.rows[stream.name].values() if since is None or r["modified"] >= since.isoformat() + "Z"), key=lambda r: r["modified"])
        for start in range(0, len(rows), self.page):
            self.budget.spend()
            if start >= self.breaks.get(stream.name, 1e9):
                raise Refused("no such luck", status=500)
            yield [dict(r) for r in rows[start:start + self.page]]

    def tracked(self, stream: Stream) -> dict[str, datetime | None]:
        return self.tracked_fields.get(stream.name, {})

    def history(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        yield [c for c in self.told.get(stream.name, []) if since is None or c["at"] is None or c["at"] >= since]

    def deletions(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        yield [g for g in self.gone.get(stream.name, []) if since is None or g["at"] >= since]

    def ids(self, stream: Stream) -> Iterator[list[str]] | None:
        return iter([list(self.rows[stream.name])]) if self.has_ids else None


@pytest.fixture
def lake(tmp_path):
    return open_lake(tmp_path / "lake", create=True)


def versions(lake, columns: str, entity: str = "deal", key: str = "c:1") -> list[tuple]:
    return lake.sql(f"select valid_from, {columns} from {entity}_versions where id = '{key}' order by valid_from").fetchall()


def test_a_record_first_seen_is_known_by_what_never_changes_from_its_creation_and_by_the_rest_from_the_sync(lake):
    crm = Crm()
    crm.put("1", T0 - 9 * DAY, name="Big one", stage="New", value="12.345", source="Web", owner={"id": 7})
    report = sync(lake, "c", crm, now=T0)
    assert versions(lake, "source, stage, amount::varchar, owner_id") == [(T0 - 9 * DAY, "Web", None, None, None), (T0, "Web", "New", "12.35", "c:7")]
    assert report.loc[0, ["rows", "new", "changed", "deleted", "error"]].tolist() == [1, 1, 0, 0, ""]


def test_a_record_seen_again_in_the_overlap_makes_no_version_and_no_publish_of_its_table(lake):
    crm = Crm()
    crm.put("1", T0, stage="New")
    sync(lake, "c", crm, now=T0)
    head = lake.store.heads["deal"]
    report = sync(lake, "c", crm, now=T0 + HOUR)
    assert report.loc[0, "rows"] == 1 and lake.store.heads["deal"] == head
    assert crm.asked[-1] == ("deals", T0 - timedelta(minutes=15))


def test_a_difference_that_a_sync_sees_is_dated_by_the_sync(lake):
    crm = Crm()
    crm.put("1", T0 - DAY, stage="New", owner={"id": 1})
    sync(lake, "c", crm, now=T0)
    crm.put("1", T0 + HOUR, stage="Won")
    assert sync(lake, "c", crm, now=T0 + 2 * HOUR).loc[0, "changed"] == 1
    assert versions(lake, "stage, origin")[-2:] == [(T0, "New", "sync_diff"), (T0 + 2 * HOUR, "Won", "sync_diff")]


def test_told_changes_date_the_versions_and_the_first_value_is_the_old_one_of_the_first_change(lake):
    crm = Crm()
    crm.tracked_fields["deals"] = {"stage": None}
    crm.put("1", T0 - 9 * DAY, stage="Won", value=5)
    crm.told["deals"] = [{"id": "1", "at": T0 - 3 * DAY, "field": "stage", "old": "New", "new": "Offer"}, {"id": "1", "at": T0 - DAY, "field": "stage", "old": "Offer", "new": "Won"}]
    sync(lake, "c", crm, now=T0)
    assert versions(lake, "stage, amount::varchar, origin") == [
        (T0 - 9 * DAY, "New", None, "crm_history"), (T0 - 3 * DAY, "Offer", None, "crm_history"), (T0 - DAY, "Won", None, "crm_history"), (T0, "Won", "5.00", "sync_diff")]
    told = lake.fields().set_index("field")
    assert told.loc["stage", "history_from"] is not None and str(told.loc["stage", "history_from"]) == "NaT" and told.loc["amount", "history_from"] == T0


def test_a_tracked_field_without_a_change_held_its_value_since_creation_or_since_the_tracking_began(lake):
    crm = Crm()
    crm.tracked_fields["deals"] = {"stage": None, "amount": T0 - 5 * DAY}
    crm.put("1", T0 - 9 * DAY, stage="New", value=7)
    sync(lake, "c", crm, now=T0)
    assert versions(lake, "stage, amount::varchar") == [(T0 - 9 * DAY, "New", None), (T0 - 5 * DAY, "New", "7.00")]


def test_fields_whose_histories_begin_at_different_times_are_all_known_from_creation(lake):
    """Each beginning is a point of its own at the record's creation; none may hide another."""
    crm = Crm()
    crm.tracked_fields["deals"] = {f: T0 - (20 + n) * DAY for n, f in enumerate(("stage", "amount", "owner_id", "name"))}
    for n in range(300):
        crm.put(str(n), T0 - 9 * DAY, stage="New", value=7, owner={"id": 1}, name="A")
    sync(lake, "c", crm, now=T0)
    assert lake.sql("select distinct valid_from, stage, amount::int, owner_id, name from deal_versions").fetchall() == [(T0 - 9 * DAY, "New", 7, "c:1", "A")]


def test_a_change_told_later_than_it_was_seen_moves_back_to_its_own_time(lake):
    crm = Crm()
    crm.tracked_fields["deals"] = {"stage": None}
    crm.put("1", T0 - DAY, stage="New")
    sync(lake, "c", crm, now=T0)
    crm.put("1", T0 + HOUR, stage="Offer")
    sync(lake, "c", crm, now=T0 + 2 * HOUR)  # seen, not told
    assert versions(lake, "stage")[-1] == (T0 + 2 * HOUR, "Offer")
    crm.told["deals"] = [{"id": "1", "at": T0 + HOUR, "field": "stage", "old": "New", "new": "Offer"}]
    sync(lake, "c", crm, now=T0 + 3 * HOUR)
    assert versions(lake, "stage") == [(T0 - DAY, "New"), (T0 + HOUR, "Offer")]


def test_an_empty_value_in_told_history_stays_empty_when_more_is_told_later(lake):
    crm = Crm()
    crm.tracked_fields["deals"] = {"stage": None}
    crm.put("1", T0 - 9 * DAY, stage="B")
    crm.told["deals"] = [{"id": "1", "at": T0 - 5 * DAY, "field": "stage", "old": "A", "new": None}, {"id": "1", "at": T0 - 3 * DAY, "field": "stage", "old": None, "new": "B"}]
    sync(lake, "c", crm, now=T0)
    crm.put("1", T0 + HOUR, stage="C")
    crm.told["deals"] = [{"id": "1", "at": T0 + HOUR, "field": "stage", "old": "B", "new": "C"}]
    sync(lake, "c", crm, now=T0 + 2 * HOUR)
    assert versions(lake, "stage") == [(T0 - 9 * DAY, "A"), (T0 - 5 * DAY, None), (T0 - 3 * DAY, "B"), (T0 + HOUR, "C")]


def test_history_that_is_fetched_per_record_counts_for_the_records_it_covers(lake):
    crm = Crm(Stream(**{**vars(DEALS), "historized": frozenset({"stage"})}))
    for key in ("1", "2"):
        crm.put(key, T0 - 9 * DAY, stage="Offer")
    crm.told["deals"] = [{"id": "1", "at": None, "field": "", "old": None, "new": None}, {"id": "1", "at": T0 - DAY, "field": "stage", "old": "New", "new": "Offer"}]
    sync(lake, "c", crm, now=T0)
    assert versions(lake, "stage") == [(T0 - 9 * DAY, "New"), (T0 - DAY, "Offer")]
    assert versions(lake, "stage", key="c:2") == [(T0 - 9 * DAY, None), (T0, "Offer")]
    crm.told["deals"] = [{"id": "2", "at": None, "field": "", "old": None, "new": None}]  # the budget of another day reaches the second one
    sync(lake, "c", crm, now=T0 + DAY)
    assert versions(lake, "stage", key="c:2") == [(T0 - 9 * DAY, "Offer")]


@pytest.mark.parametrize("unmapped", ["", "lost_reason"])
def test_an_outcome_holds_from_when_it_came_and_not_before(lake, unmapped):
    crm = Crm(replace(DEALS, fields={c: path for c, path in DEALS.fields.items() if c != unmapped}))
    crm.put("1", T0 - 9 * DAY, stage="Won", won=True, closed=(T0 - 2 * DAY).isoformat() + "+00:00")
    crm.put("2", T0 - 9 * DAY, stage="New", won=None)
    sync(lake, "c", crm, now=T0)
    assert versions(lake, "is_won, stage") == [(T0 - 9 * DAY, None, None), (T0 - 2 * DAY, True, None), (T0, True, "Won")]


def test_a_deletion_ends_the_record_when_it_was_deleted_and_an_undeleted_one_stands_again(lake):
    crm = Crm()
    crm.put("1", T0 - DAY, stage="New")
    crm.put("2", T0 - DAY, stage="New")
    sync(lake, "c", crm, now=T0)
    kept = crm.rows["deals"].pop("1")
    crm.gone["deals"] = [{"id": "1", "at": T0 + HOUR, "merged_into": "2"}]
    report = sync(lake, "c", crm, now=T0 + 2 * HOUR)
    assert report.loc[0, "deleted"] == 1 and lake.read("deal")["id"].tolist() == ["c:2"]
    assert versions(lake, "deleted_at, merged_into")[-1] == (T0 + HOUR, T0 + HOUR, "c:2")
    assert lake.read("deal", as_of=T0 + HOUR - timedelta(seconds=1))["id"].tolist() == ["c:1", "c:2"]
    assert not sync(lake, "c", crm, now=T0 + 3 * HOUR)["deleted"].any()  # told again in the overlap
    crm.rows["deals"]["1"] = kept | {"modified": (T0 + 4 * HOUR).isoformat() + "Z"}
    sync(lake, "c", crm, now=T0 + 5 * HOUR)
    assert lake.read("deal")["id"].tolist() == ["c:1", "c:2"]


@pytest.mark.parametrize("vanishes", [True, False])
def test_comparing_ids_finds_what_vanished_untold_and_what_never_came(lake, vanishes):
    crm = Crm()
    for key in "123":
        crm.put(key, T0 - DAY, stage="New")
    sync(lake, "c", crm, now=T0)
    if vanishes:
        del crm.rows["deals"]["2"]
    else:
        crm.put("0", T0 - 3 * DAY, stage="Late")  # with a stamp from before the cursor
    sync(lake, "c", crm, now=T0 + HOUR)
    assert lake.read("deal")["id"].tolist() == (["c:1", "c:3"] if vanishes else ["c:0", "c:1", "c:2", "c:3"])


def test_many_ids_are_compared_once_a_week(lake, monkeypatch):
    monkeypatch.setattr("workbench.connect.pull.SWEEPS", ((2, timedelta(0)), (1000, timedelta(days=7))))
    crm = Crm()
    for key in "123":
        crm.put(key, T0 - DAY, stage="New")
    sync(lake, "c", crm, now=T0)
    del crm.rows["deals"]["2"]
    sync(lake, "c", crm, now=T0 + 6 * DAY)
    assert len(lake.read("deal")) == 3
    sync(lake, "c", crm, now=T0 + 8 * DAY)
    assert lake.read("deal")["id"].tolist() == ["c:1", "c:3"]


def test_when_most_records_vanish_at_once_none_is_deleted_before_somebody_says_so(lake):
    crm = Crm(Stream("stages", "deal", {"created_at": "created", "stage": "stage"}))
    for key in range(60):
        crm.put(str(key), T0 - DAY, "stages", stage="New")
    sync(lake, "c", crm, now=T0)
    crm.rows["stages"] = {k: r for k, r in crm.rows["stages"].items() if int(k) < 10}
    report = sync(lake, "c", crm, now=T0 + DAY)
    assert "50 of 60 records are gone all at once" in report.loc[0, "error"] and len(lake.read("deal")) == 60
    assert sync(lake, "c", crm, now=T0 + DAY, full=True).loc[0, "deleted"] == 50 and len(lake.read("deal")) == 10


def test_a_stream_that_fails_keeps_what_came_before_and_the_others_finish(lake):
    other = Stream("people", "contact", {"created_at": "created", "name": "name"}, cursor="modified")
    crm = Crm(DEALS, other)
    for n in range(9):
        crm.put(str(n), T0 - (9 - n) * DAY, stage="New")
        crm.put(str(n), T0 - (9 - n) * DAY, "people", name="A")
    crm.breaks = {"deals": 6}
    report = sync(lake, "c", crm, now=T0).set_index("stream")
    assert "testcrm, deals: no such luck" in report.loc["deals", "error"] and report.loc["people", "error"] == ""
    assert len(lake.read("deal")) == 6 and len(lake.read("contact")) == 9  # deals come by ascending cursor
    crm.breaks = {}
    report = sync(lake, "c", crm, now=T0 + HOUR).set_index("stream")
    # from the last stamp that came, that of record 5 at T0 - 4 days, less the overlap
    assert crm.asked[-2] == ("deals", T0 - 4 * DAY - timedelta(minutes=15)) and report.loc["deals", "error"] == ""
    assert len(lake.read("deal")) == 9


def test_a_stream_whose_rows_have_no_order_is_left_as_it_was_when_it_fails(lake):
    crm = Crm(Stream(**{**vars(DEALS), "ordered": False}))
    for n in range(9):
        crm.put(str(n), T0 - n * DAY, stage="New")
    crm.breaks = {"deals": 6}
    sync(lake, "c", crm, now=T0)
    assert lake.is_empty("deal")
    crm.breaks = {}
    sync(lake, "c", crm, now=T0 + HOUR)
    assert len(lake.read("deal")) == 9


def test_after_the_budget_is_spent_no_other_stream_is_asked(lake):
    other = Stream("people", "contact", {"created_at": "created"}, cursor="modified")
    crm = Crm(DEALS, other)
    crm.budget = Budget(0.5, daily=4)  # two calls
    for n in range(9):
        crm.put(str(n), T0 - (9 - n) * DAY, stage="New")
    report = sync(lake, "c", crm, now=T0)
    assert "the share of this workbench is 50%" in report.loc[0, "error"] and "Not asked" in report.loc[1, "error"]
    assert [name for name, _ in crm.asked] == ["deals"] and len(lake.read("deal")) == 6
    crm.budget = Budget(0.5, daily=4)  # another process on the same day has the same allowance
    assert "share" in sync(lake, "c", crm, now=T0 + HOUR).loc[0, "error"]
    crm.budget = Budget(0.5, daily=100)
    assert not sync(lake, "c", crm, now=T0 + 25 * HOUR)["error"].any() and len(lake.read("deal")) == 9


def test_a_stamp_far_in_the_future_does_not_hide_what_follows(lake):
    crm = Crm()
    crm.put("1", T0, stage="New")
    crm.rows["deals"]["1"]["modified"] = "2099-01-01T00:00:00Z"
    sync(lake, "c", crm, now=T0)
    crm.put("2", T0 + 2 * HOUR, stage="New")
    sync(lake, "c", crm, now=T0 + 3 * HOUR)
    assert len(lake.read("deal")) == 2


def test_a_custom_field_keeps_its_name_when_its_label_changes_and_gets_another_column_when_its_type_does(lake):
    crm = Crm()
    crm.custom["deals"] = [CustomField("f1", "f1", "Budget <b>€</b>", "text", {"1": "High, really", "2": "Low"}), CustomField("f2", "deep.f2", "株式", "float")]
    crm.put("1", T0 - DAY, f1=1, deep={"f2": "2.5"})
    sync(lake, "c", crm, now=T0)
    assert lake.read("deal").loc[0, ["x_budget_b_b", "x_f2"]].tolist() == ["High, really", 2.5]
    crm.custom["deals"] = [CustomField("f1", "f1", "Renamed", "text", {"2": "Low"}), CustomField("f2", "deep.f2", "株式", "text"), CustomField("f3", "f3", "Renamed", "bool")]
    crm.put("2", T0 + HOUR, f1=[1, 2], deep={"f2": "much"}, f3="true")
    sync(lake, "c", crm, now=T0 + 2 * HOUR)
    row = lake.read("deal").iloc[1]
    assert row[["x_budget_b_b", "x_f2_text", "x_renamed"]].tolist() == ["High, really; Low", "much", True]
    assert lake.read("deal").loc[0, "x_f2_text"] == "2.5"  # a new column is filled for all records
    told = lake.sql("select field, label, kind, dropped_at from custom_field order by field").fetchall()
    assert [(f, k, d is not None) for f, _, k, d in told] == [("x_budget_b_b", "text", False), ("x_f2", "float", True), ("x_f2_text", "text", False), ("x_renamed", "bool", False)]


def test_values_that_no_type_can_hold_are_findings_and_lose_no_row(lake):
    crm = Crm()
    crm.put("1", T0 - DAY, value="INF", stage="", won="maybe", name="a\0b\ud800")
    crm.put("2", T0 - DAY, value="1e30", name=["x", "y"])
    sync(lake, "c", crm, now=T0)
    assert lake.read("deal")["amount"].isna().all() and lake.read("deal")["name"].tolist() == ["a\ufffdb\ufffd", "x; y"]
    assert lake.sql("select file, rule, entity, detail, n from finding order by detail").fetchall() == [
        ("deals", "unreadable_value", "deal", "amount", 2), ("deals", "unreadable_value", "deal", "is_won", 1)]


def test_a_field_that_is_new_to_the_workbench_is_pulled_for_every_record(lake):
    crm = Crm()
    crm.put("1", T0 - 9 * DAY, hidden="seen")
    sync(lake, "c", crm, now=T0)
    crm.custom["deals"] = [CustomField("hidden", "hidden", "Hidden")]
    sync(lake, "c", crm, now=T0 + DAY)
    assert lake.read("deal").loc[0, "x_hidden"] == "seen"


def test_items_of_a_row_are_records_of_their_own_and_go_with_it(lake):
    lines = Stream("lines", "deal_product", {"deal_id": "_row.id", "product_id": "product", "quantity": "n", "currency": "_row.currency"}, key="line", each="lines", within="deal_id")
    crm = Crm(Stream(**{**vars(DEALS), "parts": (lines,)}))
    crm.put("1", T0 - DAY, currency="EUR", lines=[{"line": 1, "product": 5, "n": 2}, {"line": 2, "product": 6, "n": 1}])
    crm.put("2", T0 - DAY, lines=[{"line": 3, "product": 5, "n": 1}])
    sync(lake, "c", crm, now=T0)
    assert lake.read("deal_product")[["id", "deal_id", "product_id", "quantity"]].values.tolist() == [["c:1", "c:1", "c:5", 2.0], ["c:2", "c:1", "c:6", 1.0], ["c:3", "c:2", "c:5", 1.0]]
    crm.put("1", T0 + HOUR, lines=[{"line": 2, "product": 6, "n": 1}])
    crm.gone["deals"] = [{"id": "2", "at": T0 + HOUR}]
    del crm.rows["deals"]["2"]
    sync(lake, "c", crm, now=T0 + 2 * HOUR)
    assert lake.read("deal_product")["id"].tolist() == ["c:2"]


def test_two_streams_fill_one_table_without_deleting_each_others_records(lake):
    tasks, events = (Stream(n, "activity", {"created_at": "created", "subject": "name"}, cursor="modified", prefix=p, assumed=frozenset({"subject"})) for n, p in (("tasks", "task-"), ("events", "event-")))
    crm = Crm(tasks, events)
    for stream in ("tasks", "events"):
        crm.put("1", T0 - DAY, stream, name=stream)
    sync(lake, "c", crm, now=T0)
    sync(lake, "c", crm, now=T0 + HOUR, full=True)
    assert lake.read("activity")[["id", "subject"]].values.tolist() == [["c:event-1", "events"], ["c:task-1", "tasks"]]
    assert versions(lake, "subject", "activity", "c:task-1") == [(T0 - DAY, "tasks")]  # assumed: as it is, since creation


def test_long_text_is_kept_as_a_hash_unless_the_setting_says_so(lake, tmp_path):
    notes = Stream("notes", "activity", {"created_at": "created", "body": "text"}, cursor="modified")
    crm = Crm(notes)
    crm.put("1", T0 - DAY, "notes", text="Anna is ill")
    sync(lake, "c", crm, now=T0)
    assert lake.read("activity").loc[0, "body"].startswith("blake2b:")
    kept = open_lake(tmp_path / "kept", create=True)
    crm.keep_bodies = True
    sync(kept, "c", crm, now=T0)
    assert kept.read("activity").loc[0, "body"] == "Anna is ill"


def test_everything_of_a_sync_is_published_at_once_and_nothing_when_it_is_interrupted(lake):
    crm = Crm(DEALS, Stream("people", "contact", {"created_at": "created"}, cursor="modified"))
    crm.put("1", T0, stage="New")
    crm.put("1", T0, "people")
    before = lake.version

    def stop(text: str) -> None:
        if text == "writing contact":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync(lake, "c", crm, now=T0, progress=stop)
    assert lake.version == before and lake.is_empty("deal") and not list(lake.path.glob(".sync-c/*"))
    sync(lake, "c", crm, now=T0)
    assert lake.version == before + 1 and len(lake.read("deal")) == len(lake.read("contact")) == 1


def test_a_thousand_records_of_one_stamp_across_pages_are_all_there(lake):
    crm = Crm()
    crm.page = 7
    for n in range(1000):
        crm.put(str(n), T0, stage="New")
    sync(lake, "c", crm, now=T0)
    assert len(lake.read("deal")) == 1000


def test_a_sync_again_from_the_beginning_changes_nothing_that_stands(lake):
    crm = Crm()
    crm.tracked_fields["deals"] = {"stage": None}
    for n in range(20):
        crm.put(str(n), T0 - n * DAY, stage="Offer", value=n)
        crm.told.setdefault("deals", []).append({"id": str(n), "at": T0 - n * DAY + HOUR, "field": "stage", "old": "New", "new": "Offer"})
    sync(lake, "c", crm, now=T0 + HOUR)
    before = lake.sql("select * from deal_versions order by id, valid_from").fetchall()
    sync(lake, "c", crm, now=T0 + DAY, full=True)
    assert lake.sql("select * from deal_versions order by id, valid_from").fetchall() == before


def test_what_a_crm_scores_itself_is_kept_in_the_ledger_once_it_changes(lake):
    crm = Crm()
    crm.put("1", T0 - DAY, stage="New")
    crm.scored_by, told = "einstein", [[{"id": "1", "p": 0.4}, {"id": "2", "p": 0.9}]]
    for day, p in ((0, 0.4), (1, 0.4), (2, 0.5)):
        told[0][0]["p"] = p
        crm.scores = lambda: iter(told)
        assert not sync(lake, "c", crm, now=T0 + day * DAY)["error"].any()
    said = ledger.scores(lake, purpose="crm", source="c")
    assert said[["id", "p", "model"]].values.tolist() == [["c:1", 0.4, "einstein"], ["c:2", 0.9, "einstein"], ["c:1", 0.5, "einstein"]]
    assert ledger.scores(lake).empty  # not among ours
    crm.scores = lambda: (_ for _ in ()).throw(Refused("no scores for you", status=403))
    assert "no scores for you" in sync(lake, "c", crm, now=T0 + 3 * DAY)["error"].iloc[-1]


def test_a_crm_that_answers_nothing_is_not_asked_stream_after_stream(lake):
    streams = [Stream(f"s{n}", "deal", {"created_at": "created"}, cursor="modified", prefix=f"s{n}-") for n in range(5)]
    crm = Crm(*streams)

    def pull(stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        crm.asked.append((stream.name, since))
        raise Refused("no connection")
        yield []

    crm.pull = pull  # type: ignore[method-assign]
    report = sync(lake, "c", crm, now=T0)
    assert (report["error"] != "").all() and [name for name, _ in crm.asked] == ["s0", "s1"]
