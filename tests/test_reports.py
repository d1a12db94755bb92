"""The real notebooks on small lakes: every state of the data gives a report that says so, and hostile text in every field stays text."""

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.browser import CHROMIUM, MISSING, browser
from tests.test_report import DRAWN, PAYLOADS, _harmless
from workbench import schema
from workbench.connect.files import import_files
from workbench.lake import open_lake
from workbench.runs import run_notebooks

ROOT = Path(__file__).resolve().parent.parent
REAL = os.environ.get("WORKBENCH_REAL_DATA")
START = datetime(2024, 1, 1)
needs_real = pytest.mark.skipif(not REAL, reason="set WORKBENCH_REAL_DATA to the folder of the public data sets")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A lake, runs and reports of their own; the tests run in the project's folder."""
    monkeypatch.chdir(ROOT)
    for name in ("LAKE", "RUNS", "REPORTS"):
        monkeypatch.setenv(f"WORKBENCH_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("WORKBENCH_LAKE_VERSION", raising=False)
    return tmp_path


def run(*names: str, **options) -> dict[str, dict]:
    """Run notebooks; notebook -> record. Every one must have ended well."""
    records = run_notebooks(list(names or ["all"]), jobs=2, **options)
    assert {r["notebook"]: (r["status"], r["error"]) for r in records} == {r["notebook"]: ("ok", None) for r in records}
    return {r["notebook"]: r for r in records}


def report(folders: Path, record: dict) -> str:
    return (folders / "reports" / record["report"]).read_text(encoding="utf-8")


def leads(n: int, n_won: int) -> pd.DataFrame:
    """n leads of one a day, all decided after three days, the first n_won of them won."""
    created = [START + timedelta(days=i) for i in range(n)]
    return pd.DataFrame({"id": [f"s:{i}" for i in range(n)], "source": ["Web", "Fair"] * (n // 2), "created_at": created,
                         "closed_at": [d + timedelta(days=3) for d in created], "is_converted": [i < n_won for i in range(n)]})


STATES = {
    "an empty lake": (None, {}, "This lake is empty", "too little data"),
    "one class only": (leads(100, 100), {}, "0 not converted", "too little data"),
    "fewer than thirty outcomes": (leads(40, 20), {}, "at least 30 of each", "too little data"),
    "an instant before any data": (leads(100, 50), {"as_of": "2020-01-01"}, "before any data", "too little data"),
}


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_the_data_gives_reports_that_say_so(folders, state):
    frame, options, sentence, verdict = STATES[state]
    lake = open_lake(create=True)
    if frame is not None:
        lake.upsert("lead", frame, at=START + timedelta(days=400), origin="import")
    records = run(**options)
    assert set(records) == {"00_start_here", "02_data_quality", "10_lead_scoring", "12_lead_funnel"}
    assert records["10_lead_scoring"]["results"]["verdict"] == verdict
    texts = [report(folders, r) for r in records.values()]
    assert any(sentence in text for text in texts)
    assert not any("Traceback" in text for text in texts)


def hostile(entity: str, n: int, **fixed) -> pd.DataFrame:
    """n records whose every text field (keys to others apart) holds a payload, and a custom field too."""
    fields = {f.name for f in schema.entity(entity).fields.values() if f.kind == "text" and not f.references and f.name not in ("merged_into", "currency")}
    frame = pd.DataFrame({f: [PAYLOADS[(i + j) % len(PAYLOADS)] for i in range(n)] for j, f in enumerate(sorted(fields | {"x_note"}))})
    return frame.assign(id=[f"h:{PAYLOADS[i % len(PAYLOADS)]}{i}" for i in range(n)], **fixed)


@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_hostile_text_in_every_field_of_a_lake_stays_text_in_every_report(folders):
    n, rng = 900, np.random.default_rng(3)
    created = pd.Series([START + timedelta(hours=12 * i) for i in range(n)])
    won = rng.random(n) < np.where(np.arange(n) % 20 < 8, .75, .1)  # the payload in `source` tells much of the outcome
    closed = created + pd.to_timedelta(rng.integers(5, 60, n), unit="D")
    done = (closed < created.max()).to_numpy()
    users = hostile("user", 20)
    born = hostile("lead", n, created_at=created, valid_from=created, owner_id=[users["id"][i % 20] for i in range(n)], do_not_call=False)
    ended = born[done].assign(valid_from=closed[done], closed_at=closed[done], is_converted=won[done])
    lake = open_lake(create=True)
    with lake.writer():
        lake.upsert("user", users, at=START)
        lake.load_versions("lead", pd.concat([born.assign(is_converted=pd.Series([None] * n, dtype="boolean")), ended.astype({"is_converted": "boolean"})]), origin="crm_history")
        lake.upsert("deal", hostile("deal", 60, amount=5.0, created_at=START), at=created.max())
        for entity in ("account", "contact", "campaign", "product", "stage"):
            lake.upsert(entity, hostile(entity, 20), at=created.max())
        lake.upsert("activity", hostile("activity", 60, created_at=START, happened_at=START), at=created.max())
        lake.add_findings(pd.DataFrame([{"source": "h", "file": p, "line": 1, "rule": p, "entity": p, "record_id": p, "detail": p, "n": 1} for p in PAYLOADS]))
    records = run()
    assert records["10_lead_scoring"]["results"]["verdict"] == "usable"
    assert "&lt;script&gt;" in report(folders, records["10_lead_scoring"])
    with browser() as tab:
        for page in sorted((folders / "reports").glob("*.html")):
            tab.open(page, ready=DRAWN, seconds=90)
            _harmless(tab)
            assert page.stat().st_size <= 500_000


@needs_real
def test_x_education_leads_gives_a_usable_score_of_fields_known_at_creation(folders):
    import_files(open_lake(create=True), ROOT / "data/mappings/x_education_leads.toml", Path(REAL) / "x_education_leads", at=datetime(2024, 1, 1))
    results = run(source="x_education_leads")["10_lead_scoring"]["results"]
    keys = ["verdict", "model", "n", "n_events", "base_rate", "auc", "log_loss", "brier", "ece", "ece_perfect", "gain_low", "baselines", "features", "assumed", "suspects",
            "evaluation", "horizons", "trial", "drift", "bands", "half_life_days", "half_life_pays"]
    assert sorted(results) == sorted(keys)
    assert (results["verdict"], results["evaluation"], results["n"], results["n_events"]) == ("usable", "grouped", 9240, 3561)
    # README of the set: tags and grades written after the call, and another vendor's scores, must not take part
    assert not [f for f in results["features"] if any(word in f for word in ("tags", "quality", "profile", "asymmetrique", "last", "occupation", "matters"))]
    # above what the set's public solutions reach without leaks lies a leak; below .85 something is lost
    assert .85 <= results["auc"] <= .90 and results["log_loss"] <= .46


@needs_real
def test_maven_crm_sales_sells_no_score(folders):
    import_files(open_lake(create=True), ROOT / "data/mappings/maven_crm_sales.toml", Path(REAL) / "maven_crm_sales", at=datetime(2024, 1, 1))
    records = run(source="maven_crm_sales")
    assert records["10_lead_scoring"]["results"]["verdict"] in ("no usable signal", "too little data")
    assert "newest first" in report(folders, records["10_lead_scoring"])
    executed = next((folders / "runs").glob("*/10_lead_scoring*.json"))
    assert json.loads(executed.read_text())["results"]["evaluation"] == "time"
