"""The first page: every report by theme, what failed on top, and how old each is beside the newest run."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from workbench.report.export import render, write_whole

THEMES = {"0": "Start and data", "1": "Leads and deals", "2": "Forecast and pipeline"}
STALE_DAYS = 7  # a report that much older than the newest run is called ageing


def write_index(reports: Path, runs: Path) -> Path:
    """Write reports/index.html from the latest record of each name under `runs` and the pages that exist; nothing else is listed."""
    records = latest_records(runs)
    newest = max((at for record in records if (at := _ended(record))), default=None)
    entries = []
    for record in records:
        page = reports / f"{record['name']}.html"
        at = _ended(record)
        entry = {"record": record, "href": quote(page.name) if page.exists() else "", "failed": record.get("status") != "ok",
                 "days": (newest - at).days if newest and at else 0, "cards": [c for c in record.get("cards") or [] if isinstance(c, list) and len(c) == 3]}
        if entry["failed"] or entry["href"]:
            entries.append(entry)
    themes: dict[str, list[dict]] = {}
    for entry in sorted((e for e in entries if not e["failed"]), key=lambda e: e["record"]["name"]):
        digit = entry["record"]["name"][:1]
        themes.setdefault(THEMES.get(digit, f"Theme {digit}"), []).append(entry)
    failed = sorted((e for e in entries if e["failed"]), key=lambda e: e["record"]["name"])
    return write_whole(reports / "index.html", render("index.html.j2", scripts=[], themes=themes, failed=failed, newest=newest and newest.isoformat(), stale=STALE_DAYS))


def latest_records(runs: Path) -> list[dict]:
    """The newest record of each name, from the folders of days; one that cannot be read counts as a failed run and says so."""
    found: dict[str, dict] = {}
    for day in sorted((d for d in runs.iterdir() if d.is_dir()), reverse=True) if runs.is_dir() else []:
        of_day: dict[str, dict] = {}
        for path in sorted(day.glob("*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                name, order = str(record["name"]), str(record.get("ended_at") or record.get("started_at") or "")
            except (ValueError, KeyError, TypeError, OSError):
                name, order = path.stem, ""
                record = {"name": name, "status": "failed", "error": f"The record {day.name}/{path.name} cannot be read."}
            if name not in of_day or order >= str(of_day[name].get("ended_at") or of_day[name].get("started_at") or ""):
                of_day[name] = record
        found = of_day | found
    return list(found.values())


def _ended(record: dict) -> datetime | None:
    try:
        return datetime.fromisoformat(str(record.get("ended_at") or record.get("started_at"))).replace(tzinfo=None)
    except ValueError:
        return None
