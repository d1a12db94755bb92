"""Run what [schedule.NAME] in workbench.toml makes due: each slot once, however often and in however many processes this is asked.

A slot is claimed by creating papermill_runs/.slots/NAME@SLOT.claim (SLOT in UTC), which no two processes can. While a schedule runs, its lock
is held; the system frees it when the process dies, so a claim that still says `running` under a free lock belongs to a process that died.
"""

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
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from filelock import FileLock, Timeout

from workbench.errors import WorkbenchError
from workbench.settings import settings

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


def read_schedule(name: str, table: dict) -> Schedule:
    """The schedule that a table of workbench.toml means; a mistake is named."""
    from workbench.checks import meant

    known: dict[str, Any] = {"time_zone": settings().time_zone, "parameters": {}, "source": ""} | (table if isinstance(table, dict) else {})
    notebooks: Any = [known.get("notebook")] if isinstance(known.get("notebook"), str) else known.get("notebook")
    cron = str(known.get("cron", ""))
    unknown = [str(k) for k in known if k not in _KEYS]
    faults = {
        "this is no schedule. Write [schedule.NAME], NAME of letters, digits, _ and -.": not re.fullmatch(r"[A-Za-z0-9_-]+", name) or not isinstance(table, dict),
        f"{', '.join(unknown)} is unknown. {meant(unknown[0], _KEYS) if unknown else ''}Known are {', '.join(_KEYS)}.": unknown,
        'it needs notebook = "10_lead_scoring", "all", or a list.': not isinstance(notebooks, list) or not notebooks or not all(isinstance(n, str) for n in notebooks),
        "parameters must be a table, such as { horizon_days = 30 }.": not isinstance(known["parameters"], dict),
        f"cron {cron!r} is no schedule. Write minute hour day month weekday, such as \"0 6 * * 1-5\".": not _is_cron(cron),
        f"time_zone {known['time_zone']!r} is no time zone. Use a name such as Australia/Sydney.": known["time_zone"] not in available_timezones()}
    for fault, found in faults.items():
        if found:
            raise WorkbenchError(f"[schedule.{name}] in workbench.toml: {fault}")
    return Schedule(name, notebooks, cron, known["time_zone"], known["parameters"], str(known["source"]))


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
    refused run and a claim whose process died (told once, with the command that runs it again) stay in the index until its next run.
    """
    slots, records = settings().runs / ".slots", []
    slots.mkdir(parents=True, exist_ok=True)
    for name, table in settings().schedules.items():
        safe, ran, troubles = re.sub(r"[^\w-]", "_", name), [], []
        with suppress(Timeout), FileLock(slots / f"{safe}.lock", timeout=0):
            try:
                schedule = read_schedule(name, table)
                claims = sorted(slots.glob(f"{name}@*.claim"))
                troubles = _died(schedule, claims)
                last = datetime.strptime(claims[-1].stem.rpartition("@")[2], "%Y%m%dT%H%MZ") if claims else None
                ran = _ran(schedule, due_slots(schedule, now, last), slots, progress, jobs=jobs, folder=folder)
            except WorkbenchError as error:
                troubles.append(str(error))
            records += _shown(safe, troubles, ran) + ran
    return records


def _died(schedule: Schedule, claims: list[Path]) -> list[str]:
    """Mark the claims whose process died; a sentence for each."""
    given = [x for k, v in schedule.parameters.items() for x in ("-p", f"{k}={','.join(map(str, v)) if isinstance(v, list) else v}")]
    command = shlex.join(["workbench", "run", *schedule.notebooks, *given, *(["--source", schedule.source] if schedule.source else [])])
    errors = []
    for path in claims:
        text = path.read_text(encoding="utf-8")
        told = json.loads(text) if text.endswith("}") else {"status": "running"}  # it died while it wrote
        if told["status"] == "running":
            path.write_text(json.dumps(told | {"status": "died"}), encoding="utf-8")
            errors.append(f"The run of slot {path.stem} began {told.get('claimed_at', '')} and its process ({told.get('pid', '?')} on {told.get('host', '?')}) died. "
                          f"It is not repeated by itself; run it again with: {command}")
    return errors


def _ran(schedule: Schedule, due: list[datetime], slots: Path, progress: Callable[[str], None] | None, **options: Any) -> list[dict]:
    """Claim and run the first slot of `due`; the records."""
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
        return records
    except WorkbenchError:
        status = "refused"
        raise
    finally:
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"status": status, "ended_at": utc_now()}), encoding="utf-8")


def _shown(name: str, troubles: list[str], ran: list[dict]) -> list[dict]:
    """A record of each trouble; the index tells what kept a schedule from running until it has run."""
    if not troubles and not ran:
        return []
    from workbench.report.export import write_whole
    from workbench.report.index import write_index
    from workbench.runs import new_record

    path, texts = settings().runs / "schedules" / f"{name}.json", troubles + [r["error"] for r in ran if r["status"] == "refused"]
    if any(r["status"] != "refused" for r in ran):
        path.unlink(missing_ok=True)
    else:
        write_whole(path, json.dumps(new_record(f"schedule-{name}", "failed", " ".join(texts)), indent=1))
    write_index(settings().reports, settings().runs)
    return [new_record(f"schedule-{name}", "failed", text) for text in troubles]
