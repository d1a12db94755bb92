"""Every fault x every CRM: after the next normal sync the lake equals the CRM row for row, nothing double, nothing lost.

`python -m tests.test_faults [FAULT...]` runs the whole matrix with every stream, the fault at several places, and prints it.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.servers import crms
from tests.servers.base import TRANSPORT, Server
from tests.servers.organisation import CustomDefinition, Organisation, edits, organisation
from workbench.connect.sync import sync
from workbench.lake import Lake, open_lake

pytestmark = pytest.mark.faults
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def _contact(org: Organisation, at) -> None:
    org.create("contact", at, first_name="Late", last_name="Comer", name="Late Comer", email="late@example.com", phone=None, title=None, account_id=None, owner_id=1, country="France",
               city="Lyon", do_not_email=False, do_not_call=False)


def _rows(org: Organisation, at) -> None:
    """One new record of each kind that some CRM tells."""
    _contact(org, at)
    org.create("activity", at, kind="call", direction="out", subject="Late", body=None, user_id=1, lead_id=None, contact_id=2, deal_id=None, account_id=None, happened_at=at, is_done=True,
               duration_minutes=15.0, ended_at=None)
    org.create("requirement", at, contact_id=3, suburbs="Glebe", kind="unit", bedrooms_min=2, price_min=1.0, price_max=2.0, currency="AUD")
    org.create("inspection", at, contact_id=2, listing_id=1, comment=None, happened_at=at, duration_minutes=30.0, is_appointment=False, user_id=1)


def _insert(server: Server) -> None:
    _rows(server.org, server.org.now)


def _drift(server: Server) -> None:
    """A custom field comes, one goes, one gets another label, an option goes."""
    custom = server.org.custom
    custom["deal"].append(CustomDefinition("late", f"Late {len(custom['deal'])}", "text"))
    custom["deal"][2].dropped, custom["deal"][0].label = True, "Renamed <i>now</i>"
    custom["lead"][2].removed.append(custom["lead"][2].options.pop())


def _hard(server: Server) -> None:
    for entity in ("deal", "activity", "contact", "listing", "requirement", "inspection"):
        server.org.delete(entity, list(server.org.standing(entity))[-2], hard=True)


def _crowd(server: Server) -> None:
    """A thousand records of one stamp, so that it lies across edges of pages."""
    for n in range(1000):
        if server.crm == "agentbox":
            server.org.create("requirement", contact_id=1 + n % 5, suburbs="Bondi", kind="house", bedrooms_min=1, price_min=1.0, price_max=float(n), currency="AUD")
        else:
            server.org.create("activity", kind="task", direction=None, subject=f"Crowd {n}", body=None, user_id=1, lead_id=None, contact_id=2, deal_id=None, account_id=None,
                              happened_at=server.org.now, is_done=True, duration_minutes=None, ended_at=None)


def _late(server: Server) -> None:
    """Rows that turn up ten minutes below the cursor."""
    _rows(server.org, server.org.now - 10 * MINUTE)


# Before the first load, before the sync under fault, after it: what happens to the CRM.
Act = Callable[[Server], None]
DATA: dict[str, tuple[Act | None, Act | None, Act | None]] = {
    "rows inserted mid-scan": (lambda s: s.faults.add("do", 4, times=12, action=_insert), None, None),
    "1,000 rows of one stamp": (None, _crowd, None),
    "rows late below the cursor": (None, _insert, _late),
    "duplicated pages": (lambda s: s.faults.add("duplicated", times=0), None, None),
    "clock 2 h ahead": (lambda s: setattr(s, "skew", 2 * HOUR), None, None),
    "clock 2 h behind": (lambda s: setattr(s, "skew", -2 * HOUR), None, None),
    "schema drift mid-sync": (None, lambda s: s.faults.add("do", 4, times=2, action=_drift), None),
    "hard deletes": (None, None, _hard)}
NAMES = {"unauthorized": "401 mid-sync", "limit": "403 limit exceeded", "too_many": "429 with headers", "too_many_bare": "429 without headers", "server_error": "500",
         "bad_gateway": "502", "hang": "timeout", "reset": "connection reset", "truncated": "truncated JSON", "html": "HTML error page", "drip": "slow drip", "spent": "daily budget spent"}
FAULTS = [*(NAMES[k] for k in TRANSPORT), *DATA]


def load(crm: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, few: bool = True) -> Path:
    """A lake with the organisation as it first stands."""
    with crms.stand_in(crm, organisation()) as server:
        sync(open_lake(folder, create=True), "crm", crms.connector(crm, server, monkeypatch, few=few), now=server.org.now)
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """crm -> a lake that `load` made."""
    @functools.cache
    def made(crm: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            return load(crm, tmp_path_factory.mktemp(crm) / "lake", patch)
    return made


def outcome(crm: str, fault: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, at: int = 4, few: bool = True) -> tuple[str, list[str]]:
    """(what the sync under fault came to, what differs after the next normal one): a load (`folder` may hold it), a day of edits, the sync under fault,
    the normal one."""
    before, during, after = DATA.get(fault, (None, None, None))
    with crms.stand_in(crm, organisation()) as server:
        lake, now = open_lake(folder, create=True), server.org.now
        if before:
            before(server)
        if lake.version < 0:
            sync(lake, "crm", crms.connector(crm, server, monkeypatch, few=few), now=now)
        edits(server.org, 1)
        if fault in NAMES.values():
            kind = next(k for k, name in NAMES.items() if name == fault)
            server.faults.add(kind, at, times=0 if kind == "spent" else 2 if kind in ("hang", "drip") else 3, value={"hang": 1.3, "drip": 0.5}.get(kind, 0))
        if during:
            during(server)
        report = sync(lake, "crm", crms.connector(crm, server, monkeypatch, few=few), now=server.org.now)
        server.faults.clear()
        if after:
            after(server)
        server.org.now += DAY
        normal = sync(lake, "crm", crms.connector(crm, server, monkeypatch, few=few), now=server.org.now)
        entities = crms.FEW[crm][1] if few else crms.LIVE[crm]
        told = [*normal["error"][normal["error"] != ""], *crms.differences(lake, server, entities, times=not server.skew), *crms.broken_histories(lake, entities)]
        return ("told, and went on" if (report["error"] != "").any() else "not noticed"), told


def _matrix() -> list:
    """Every fault with every CRM; of each fault one CRM in the usual run, the others in `make soak`."""
    return [pytest.param(*crm.values, fault, marks=[*crm.marks, *([pytest.mark.soak] if (row + column) % 3 else [])])
            for row, fault in enumerate(FAULTS) for column, crm in enumerate(crms.of())]


@pytest.mark.parametrize(("crm", "fault"), _matrix())
def test_after_the_next_normal_sync_the_lake_equals_the_crm(crm, fault, loaded, tmp_path, monkeypatch):
    if not DATA.get(fault, (None,))[0]:
        shutil.copytree(loaded(crm), tmp_path / "lake")
    assert outcome(crm, fault, tmp_path / "lake", monkeypatch)[1] == []


def _killed(lake: str, crm: str, url: str, env: dict[str, str], now, point: int, counter) -> None:
    """Sync in a process that ends itself by SIGKILL at the point-th of: a request, a spilled file, a commit to a table, a publish (0 = count them only)."""
    import pyarrow.parquet as pq

    from workbench.connect.http import HttpClient
    from workbench.store import Store

    os.environ |= env

    def counted(home: object, name: str) -> None:
        kept = getattr(home, name)

        def step(*args, **more):
            counter.value += 1
            if counter.value == point:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return kept(*args, **more)
            finally:
                counter.value += 1
                if counter.value == point:
                    os.kill(os.getpid(), signal.SIGKILL)
        setattr(home, name, step)

    for home, name in ((HttpClient, "_sent"), (pq, "write_table"), (Store, "append"), (Store, "merge"), (Store, "overwrite"), (Store, "_publish")):
        counted(home, name)
    patch = pytest.MonkeyPatch()
    stub = type("Stub", (), {"url": url, "client": env.get("WORKBENCH_CRM_CLIENT_ID", ""), "key": env.get("WORKBENCH_CRM_API_KEY", "")})
    sync(open_lake(lake), "crm", crms.connector(crm, stub, patch, few=True), now=now)


def _seen(lake: Lake) -> dict[str, list]:
    return {e: lake.sql(f"select * exclude (recorded_at) from {e}_versions order by id, valid_from").fetchall() for e in lake.entities()}


@pytest.mark.parametrize(("crm", "points"), [("salesforce", 6), *(pytest.param(crm, 20, marks=pytest.mark.soak) for crm in crms.NAMES)])
def test_a_sync_killed_anywhere_is_seen_whole_or_not_at_all_and_made_good_by_the_next(crm, points, loaded, tmp_path, monkeypatch):
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.test_faults", "workbench.connect.sync", "simple_salesforce"])
    folder = loaded(crm)
    with crms.stand_in(crm, organisation()) as server:
        edits(server.org, 1)

        def run(point: int, lake: Path) -> tuple[int, int]:
            steps = context.Value("i", 0)
            child = context.Process(target=_killed, args=(str(lake), crm, server.url, crms.secrets(crm, server), server.org.now, point, steps))
            child.start()
            child.join(60)
            return child.exitcode, steps.value

        whole = shutil.copytree(folder, tmp_path / "whole")
        code, n = run(0, whole)
        assert code == 0 and n > 60
        before, after, halves = _seen(open_lake(folder)), _seen(open_lake(whole)), 0
        for k in range(points):
            lake = shutil.copytree(folder, tmp_path / f"lake{k}")
            code, _ = run(1 + k * (n - 1) // (points - 1), lake)
            assert code == -signal.SIGKILL
            seen = _seen(open_lake(lake))
            assert seen in (before, after)
            halves += seen == before
            sync(open_lake(lake), "crm", crms.connector(crm, server, monkeypatch, few=True), now=server.org.now + MINUTE)
            assert crms.differences(open_lake(lake), server, crms.FEW[crm][1]) == [] and crms.broken_histories(open_lake(lake), crms.FEW[crm][1]) == []
            assert [p.name for p in lake.glob(".sync-*") if p.is_dir()] == []  # nothing spilled is left
            shutil.rmtree(lake)
        assert halves >= points - 1  # all but those killed after the publish


def main() -> None:
    """The whole matrix (or the faults that are named), every stream, the fault at the 2nd, 9th and 25th request; one line a fault."""
    failed = 0
    for fault in sys.argv[1:] or FAULTS:
        cells = []
        for crm in crms.NAMES:
            told = []
            for at in (2, 9, 25) if fault in NAMES.values() else (4,):
                patch, folder = pytest.MonkeyPatch(), tempfile.mkdtemp(prefix="faults-")
                try:
                    did, differs = outcome(crm, fault, Path(folder) / "lake", patch, at=at, few=False)
                    told.append(did if not differs else f"DIFFERS {differs[0]} (of {len(differs)})")
                    failed += bool(differs)
                finally:
                    patch.undo()
                    shutil.rmtree(folder)
            cells.append(" / ".join(dict.fromkeys(told)))
        print(f"| {fault} | {' | '.join(cells)} |", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
