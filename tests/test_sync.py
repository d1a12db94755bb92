"""The one sync: cursors, overlaps, versions from told changes, deletions, custom fields, failures, all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

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
