"""Run what [schedule.NAME] in workbench.toml makes due: each slot once, however often and in however many processes this is asked.

A slot is claimed by creating papermill_runs/.slots/NAME@SLOT.claim (SLOT in UTC), which no two processes can. While a schedule runs, its lock
is held; the system frees it when the process dies, so a claim that still says `running` under a free lock belongs to a process that died.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from filelock import FileLock, Timeout

from workbench.errors import WorkbenchError
from workbench.settings import instant, settings

_KEYS = ("notebook", "cron", "time_zone", "parameters", "source")


@dataclass(frozen=True)
class Schedule:
    """One [schedule.NAME]: which notebooks, when (`cron` in `time_zone`), with which parameters and source."""

    name: str
    notebooks: list[str]
    cron: str
    time_zone: str
    parameters: dict
    source: str

    @property
    def command(self) -> str:
        """What a person types to run it by hand."""
        given = [x for k, v in self.parameters.items() for x in ("-p", f"{k}={','.join(map(str, v)) if isinstance(v, list) else v}")]
        return shlex.join(["workbench", "run", *self.notebooks, *given, *(["--source", self.source] if self.source else [])])


def read_schedule(name: str, table: dict) -> Schedule:
    """The schedule that a table of workbench.toml means; a mistake is named."""
    from workbench.checks import meant

    known = table if isinstance(table, dict) else {}
    notebook, cron, zone = known.get("notebook"), known.get("cron"), known.get("time_zone", settings().time_zone)
    notebooks = [notebook] if isinstance(notebook, str) else notebook
    unknown = next((k for k in known if k not in _KEYS), None)
    faults = {  # in the order in which a person mends them
        "this is no schedule. Write [schedule.NAME], NAME of letters, digits, _ and -.": re.fullmatch(r"[A-Za-z0-9_-]+", name) and known,
        f"{unknown!r} is unknown. {meant(str(unknown), _KEYS)}Known are {', '.join(_KEYS)}.": unknown is None,
        'it needs notebook = "10_lead_scoring", "all", or a list.': notebooks and isinstance(notebooks, list) and all(isinstance(n, str) for n in notebooks),
        "parameters must be a table, such as { horizon_days = 30 }.": isinstance(known.get("parameters", {}), dict),
        f"cron {cron!r} is no schedule. Write minute hour day month weekday, such as \"0 6 * * 1-5\".": isinstance(cron, str) and _is_cron(cron)}
    for fault, fine in faults.items():
        if not fine:
            raise WorkbenchError(f"[schedule.{name}] in workbench.toml: {fault}")
    instant("2020-01-01", str(zone))
    return Schedule(name, list(notebooks or []), str(cron), str(zone), known.get("parameters", {}), str(known.get("source", "")))


def _is_cron(text: str) -> bool:
    try:
        return len(text.split()) == 5 and bool(CronSim(text, datetime(2020, 1, 1)))
    except CronSimError:
        return False


def due_slots(schedule: Schedule, now: datetime, since: datetime | None = None) -> list[datetime]:
    """The schedule's slots (naive UTC, as `now` and `since`) in (since, now], the latest first; without `since` only the latest.

    As in Debian's cron, a time that the clock skips in spring comes right after the gap, and one that it repeats in autumn comes once.

    >>> nightly = Schedule("nightly", ["all"], "0 6 * * *", "Europe/Berlin", {}, "")
    >>> [f"{s:%m-%d %H:%M}" for s in due_slots(nightly, datetime(2026, 3, 29, 9), datetime(2026, 3, 27, 9))]
    ['03-29 04:00', '03-28 05:00']
    """
    slots: list[datetime] = []
    start = (now + timedelta(seconds=1)).replace(tzinfo=UTC).astimezone(ZoneInfo(schedule.time_zone))
    for slot in (s.astimezone(UTC).replace(tzinfo=None) for s in CronSim(schedule.cron, start, reverse=True)):
        if slot <= (since or datetime.min) or (since is None and slots):
            break
        slots += [slot] if slot <= now else []
    return slots


def claim(slots: Path, name: str, slot: datetime, **told: object) -> Path | None:
    """Take a slot for this process: its claim file (JSON), or None when it was taken already."""
    path = slots / f"{name}@{slot:%Y%m%dT%H%MZ}.claim"
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump({"schedule": name, "status": "running", "host": socket.gethostname(), "pid": os.getpid()} | told, file)
    except FileExistsError:
        return None
    return path


def run_due(now: datetime, progress: Callable[[str], None] | None = None, *, jobs: int = 2, folder: str | Path = "notebooks") -> list[dict]:
    """Run every schedule's latest slot up to `now` (naive UTC) that nobody has claimed; the records of the runs.

    Older missed slots are noted as skipped in the claim. A schedule that another process is running is left alone. One that cannot be read, a
    refused run, and a claim whose process died (told once, with the command that runs it again) stay in the index until its next run.
    """
    slots, records = settings().runs / ".slots", []
    slots.mkdir(parents=True, exist_ok=True)
    for name, table in settings().schedules.items():
        safe = re.sub(r"[^\w-]", "_", name)
        with suppress(Timeout), FileLock(slots / f"{safe}.lock", timeout=0):
            try:
                schedule = read_schedule(name, table)
                claims = sorted(slots.glob(f"{name}@*.claim"))
                made = [_trouble(name, error) for error in _died(schedule, claims)]
                last = datetime.strptime(claims[-1].stem.rpartition("@")[2], "%Y%m%dT%H%MZ") if claims else None
                made += _ran(schedule, due_slots(schedule, now, last), slots, progress, jobs=jobs, folder=folder)
            except WorkbenchError as error:
                made = [_trouble(name, str(error))]
            if made:
                _show(settings().runs / "schedules" / f"{safe}.json", made)
            records += made
    return records


def _died(schedule: Schedule, claims: list[Path]) -> list[str]:
    """Mark the claims whose process died; a sentence for each."""
    errors = []
    for path in claims:
        text = path.read_text(encoding="utf-8")
        told = json.loads(text) if text.endswith("}") else {"status": "running"}  # it died while it wrote
        if told["status"] == "running":
            path.write_text(json.dumps(told | {"status": "died"}), encoding="utf-8")
            errors.append(f"The run of slot {path.stem} began {told.get('claimed_at', '')} and its process ({told.get('pid', '?')} on {told.get('host', '?')}) died. "
                          f"It is not repeated by itself; run it again with: {schedule.command}")
    return errors


def _ran(schedule: Schedule, due: list[datetime], slots: Path, progress: Callable[[str], None] | None, **options: Any) -> list[dict]:
    if not due:
        return []
    from workbench.runs import run_notebooks, utc_now

    path = claim(slots, schedule.name, due[0], claimed_at=utc_now(), skipped=[f"{s:%Y-%m-%dT%H:%MZ}" for s in due[1:1000]])
    if path is None:
        return []
    if len(due) > 1 and progress:
        progress(f"{schedule.name}: {len(due) - 1} older slots were missed and are skipped")
    status = "interrupted"
    try:
        records = run_notebooks(schedule.notebooks, parameters=schedule.parameters, source=schedule.source, slot=path.stem, progress=progress, **options)
        status = "ok" if all(r["status"] == "ok" for r in records) else "failed"
    except WorkbenchError:
        status = "refused"
        raise
    finally:
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"status": status, "ended_at": utc_now()}), encoding="utf-8")
    return records


def _trouble(name: str, error: str) -> dict:
    from workbench.runs import new_record

    return new_record(f"schedule-{name}", "refused", error)


def _show(path: Path, made: list[dict]) -> None:
    """Let the index tell what kept a schedule from running, until it has run."""
    from workbench.report.index import write_index
    from workbench.runs import write_json

    troubles = [r for r in made if r["status"] == "refused"]
    if len(troubles) < len(made):
        path.unlink(missing_ok=True)
    else:
        path.parent.mkdir(exist_ok=True)
        write_json(path, troubles[-1] | {"name": f"schedule-{path.stem}", "title": f"Schedule {path.stem}"})
    write_index(settings().reports, settings().runs)
