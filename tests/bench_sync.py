"""`python -m tests.bench_sync`: a first load of 100,000 deals (with a history) and 1M activities, and an increment of 1,000 changes, from a connector in memory.

Each runs in a process of its own: rows a second, peak memory (500 MB or less), seconds of the increment (5 or less).
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from workbench.connect.http import Budget
from workbench.connect.streams import CustomField, Stream
from workbench.connect.sync import sync
from workbench.lake import open_lake

N_DEALS = int(os.environ.get("BENCH_SYNC_DEALS", 100_000))
T0, PAGE = datetime(2026, 3, 2, 9), 2000
DEAL = Stream("Opportunity", "deal", {"created_at": "CreatedDate", "name": "Name", "stage": "StageName", "amount": "Amount", "currency": "Currency", "owner_id": "OwnerId", "account_id": "AccountId",
              "source": "LeadSource", "close_on": "CloseDate", "next_step": "NextStep", "is_won": "IsWon"}, cursor="SystemModstamp", key="Id", ordered=True)
TASK = Stream("Task", "activity", {"created_at": "CreatedDate", "kind": "Type", "subject": "Subject", "deal_id": "WhatId", "contact_id": "WhoId", "user_id": "OwnerId", "happened_at": "ActivityDate",
              "is_done": "IsClosed", "duration_minutes": "Minutes", "body": "Description"}, cursor="SystemModstamp", key="Id", prefix="task-", ordered=True)


def stamp(n: int, seconds: int = 0) -> str:
    return (datetime(2023, 1, 1) + timedelta(seconds=n * 900 + seconds)).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


class Synthetic:
    """Rows as Salesforce writes them, made page by page."""

    name, keep_bodies = "synthetic", False

    def __init__(self, changed: int = 0):
        self.streams, self.budget, self.changed = [DEAL, TASK], Budget(1.0), changed

    def check(self) -> list[dict]:
        return []

    def discover(self, stream: Stream) -> list[CustomField]:
        return [CustomField("Fit__c", "Fit__c", "Fit", "float"), CustomField("Kind__c", "Kind__c", "Kind", "text", {"a": "A", "b": "B"})] if stream is DEAL else []

    def row(self, stream: Stream, n: int, day: int) -> dict:
        at = {"Id": f"{n:018}", "CreatedDate": stamp(n // 10 if stream is TASK else n), "SystemModstamp": stamp(n // 10 if stream is TASK else n, 7) if not day else "2026-03-02T10:00:00.000+0000",
              "OwnerId": f"005{n % 200:015}"}
        if stream is DEAL:
            return at | {"Name": f"Deal {n} of somebody", "StageName": f"Stage {n % 6 + day}", "Amount": n * 1.5, "Currency": "EUR", "AccountId": f"001{n % 9000:015}", "LeadSource": "Web",
                         "CloseDate": "2026-05-01", "NextStep": None, "IsWon": None, "Fit__c": n % 100, "Kind__c": "ab"[n % 2]}
        return at | {"Type": "call", "Subject": f"Call about deal {n // 10 + day}", "WhatId": f"{n // 10:018}", "WhoId": f"003{n % 50000:015}", "ActivityDate": "2025-05-01T00:00:00.000+0000", "IsClosed": True,
                     "Minutes": 15.0, "Description": f"We spoke for a while about number {n} and agreed to speak again soon about it."}

    def pull(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        total = N_DEALS * (10 if stream is TASK else 1)
        numbers = range(total) if since is None else range(0, total, total // self.changed) if self.changed else range(0)
        for start in range(0, len(numbers), PAGE):
            self.budget.spend()
            yield [self.row(stream, n, since is not None) for n in numbers[start:start + PAGE]]

    def tracked(self, stream: Stream) -> dict[str, datetime | None]:
        return {"stage": None, "amount": None} if stream is DEAL else {}

    def history(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        if stream is DEAL and since is None:
            for start in range(0, N_DEALS, PAGE):
                yield [{"id": f"{n:018}", "at": datetime(2023, 1, 1) + timedelta(seconds=n * 900 + k * 86400), "field": "stage", "old": f"Stage {k - 1}", "new": f"Stage {n % 6 if k == 3 else k}"}
                       for n in range(start, min(start + PAGE, N_DEALS)) for k in (1, 2, 3)]

    def deletions(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        yield []

    def ids(self, stream: Stream) -> Iterator[list[str]] | None:
        total = N_DEALS * (10 if stream is TASK else 1)
        return ([f"{n:018}" for n in range(start, start + 50_000)] for start in range(0, total, 50_000))


def case(name: str, folder: str) -> None:
    """One measurement, printed as JSON."""
    connector, begun = Synthetic(0 if name == "load" else 500), time.perf_counter()
    if name == "bare":
        n = sum(len(json.dumps(batch)) > 0 and len(batch) for s in connector.streams for batch in connector.pull(s, None))
    else:
        n = int(sync(open_lake(folder, create=True), "b", connector, now=T0 + timedelta(hours=name != "load"))["rows"].sum())
    print(json.dumps({"case": name, "rows": n, "seconds": round(time.perf_counter() - begun, 1), "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="bench-sync-"))
    try:
        for name in ("bare", "load", "increment"):
            print(subprocess.run([sys.executable, "-m", "tests.bench_sync", name, str(folder / "lake")], capture_output=True, text=True, check=True).stdout.strip(), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    case(*sys.argv[1:]) if len(sys.argv) > 1 else main()
