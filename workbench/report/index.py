"""The first page: every report by theme, what failed on top, and how old each is beside the newest run."""

import json
from datetime import date
from pathlib import Path
from urllib.parse import quote

from workbench.report.export import render, write_whole

THEMES = {"0": "Start and data", "1": "Leads and deals", "2": "Forecast and pipeline"}  # by the first digit of a notebook's name
STALE_DAYS = 7  # a report that much older than the newest run is called ageing


def write_index(reports: Path, runs: Path) -> Path:
    """Write reports/index.html from the newest record of each name under `runs` and the pages that exist; nothing else is listed."""
    records = latest_records(runs)
    days = {record["name"]: date.fromisoformat(record["ended_at"][:10]) for record in records if "ended_at" in record}
    newest, failed, themes = max(days.values(), default=None), [], dict[str, list[dict]]()
    for record in sorted(records, key=lambda r: r["name"]):
        page, name = reports / f"{record['name']}.html", record["name"]
        entry = {"record": record, "href": quote(page.name) if page.exists() else "", "failed": record.get("status") != "ok",
                 "days": (newest - days[name]).days if newest and name in days else 0}
        if entry["failed"]:
            failed.append(entry)
        elif entry["href"]:
            themes.setdefault(THEMES.get(name[0], f"Theme {name[0]}"), []).append(entry)
    return write_whole(reports / "index.html", render("index.html.j2", themes=themes, failed=failed, newest=newest, stale=STALE_DAYS))


def latest_records(runs: Path) -> list[dict]:
    """The newest record of each name, from the folders of days; one that cannot be read counts as a failed run and says so."""
    found: dict[str, dict] = {}
    for path in sorted(runs.glob("[!.]*/[!.]*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            name, ended = str(record["name"]), record["ended_at"]
            date.fromisoformat(ended[:10])
        except (ValueError, KeyError, TypeError, OSError):
            record = {"name": path.stem, "status": "failed", "error": f"The record {path.parent.name}/{path.name} cannot be read."}
            name, ended = path.stem, path.parent.name
        if name not in found or ended >= found[name].get("ended_at", ""):
            found[name] = record
    return list(found.values())
