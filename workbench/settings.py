"""Where things live and which clock counts: defaults < workbench.toml < environment < command line."""

import re
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from os import environ
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from workbench.errors import WorkbenchError

FOLDERS = {"lake": "data/lake", "runs": "papermill_runs", "reports": "reports"}  # where WORKBENCH_LAKE ... name no other
CRMS = ("salesforce", "pipedrive", "agentbox")
VALUE_KEYS = ("cost_per_call", "value_per_conversion", "calls_per_day", "currency")


@dataclass(frozen=True)
class Settings:
    """Folders, the organization's time zone, how long a notebook's cell may run, and the tables [schedule.NAME], [value] and [sources.NAME] of workbench.toml.

    value: what calling is worth, each key only where it is given: cost_per_call, value_per_conversion, calls_per_day (numbers), currency (text).
    sources: NAME -> the CRM behind it: crm, url, share (of the API allowance), fields {entity: {field: native}}, and what that CRM adds; no secrets.
    """

    lake: Path
    runs: Path
    reports: Path
    time_zone: str = "UTC"
    cell_minutes: float = 30
    schedules: dict = field(default_factory=dict)
    value: dict = field(default_factory=dict)
    sources: dict = field(default_factory=dict)


def root() -> Path:
    """The project's folder: the working folder, or the nearest one above it with a workbench.toml (JupyterLab runs in notebooks/)."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "workbench.toml").is_file()), here)


def settings() -> Settings:
    """Read WORKBENCH_LAKE, WORKBENCH_RUNS, WORKBENCH_REPORTS and workbench.toml (or WORKBENCH_TOML) of the project's folder."""
    base, named = root(), environ.get("WORKBENCH_TOML")
    toml = Path(named or base / "workbench.toml")
    try:
        values = tomllib.loads(toml.read_text(encoding="utf-8")) if named or toml.exists() else {}
    except FileNotFoundError:
        raise WorkbenchError(f"There is no {toml}.", fix="WORKBENCH_TOML names it.") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise WorkbenchError(f"{toml} is not valid TOML: {error}.", fix="Mend the line that it names.") from None
    organization, runs, schedules, value, sources = tables = [values.get(name, {}) for name in ("organization", "runs", "schedule", "value", "sources")]
    if not all(isinstance(table, dict) for table in tables):
        raise WorkbenchError(f"{toml}: organization, runs, schedule, value and sources are tables.",
                             fix="Write [organization] or [schedule.NAME] on a line of its own, and the settings below it.")
    zone, minutes = organization.get("time_zone", "UTC"), runs.get("cell_minutes", 30)
    instant("2000-01-01", zone)  # refuses what is no time zone
    if not isinstance(minutes, (int, float)) or not 0 < minutes < 1e6:
        raise WorkbenchError(f"{toml}: cell_minutes cannot be {minutes!r}.", fix="Write a number of minutes.")
    for key, told in value.items():
        if key not in VALUE_KEYS:
            raise WorkbenchError(f"{toml}: [value] has no setting {key!r}.", fix=f"It has: {', '.join(VALUE_KEYS)}.")
        if not (isinstance(told, str) if key == "currency" else type(told) in (int, float) and 0 <= told < 1e15):
            raise WorkbenchError(f"{toml}: [value] {key} cannot be {told!r}.",
                                 fix="Write a text such as \"EUR\"." if key == "currency" else "Write a number, 0 or more.")
    for name, told in sources.items():
        _check_source(f"{toml}: [sources.{name}]", name, told)
    folders = {name: Path(environ.get(f"WORKBENCH_{name.upper()}") or base / folder) for name, folder in FOLDERS.items()}
    return Settings(**folders, time_zone=zone, cell_minutes=minutes, schedules=schedules, value=value, sources=sources)


def _check_source(where: str, name: str, told: object) -> None:
    """Refuse a source that no sync could use, and a secret in the file."""
    if not isinstance(told, dict) or not re.fullmatch(r"[a-z0-9_]+", name):
        raise WorkbenchError(f"{where} is no source.", fix="Name it with a-z, 0-9 and _, and write crm and url below it.")
    if told.get("crm") not in CRMS:
        raise WorkbenchError(f"{where} crm cannot be {told.get('crm')!r}.", fix=f"One of {', '.join(CRMS)}.")
    if type(share := told.get("share", 0.5)) not in (int, float) or not 0 < share <= 1:
        raise WorkbenchError(f"{where} share cannot be {share!r}.", fix="Write a number above 0, 1 at most: the part of the API allowance that syncs may use.")
    if secrets := [key for key in told if re.search("secret|token|password|api_?key|private", key)]:
        raise WorkbenchError(f"{where} holds {', '.join(secrets)}: secrets never stand in a file.", fix=f"Run `workbench connect {name}`, or set WORKBENCH_{name.upper()}_... .")
    fields = told.get("fields", {})
    if not isinstance(fields, dict) or not all(isinstance(f, dict) and all(isinstance(n, str) for n in f.values()) for f in fields.values()):
        raise WorkbenchError(f"{where} fields are wrong.", fix=f"Write [sources.{name}.fields.deal] and below it canonical = \"native\".")


def instant(value: str | date | datetime | None, time_zone: str = "UTC") -> datetime | None:
    """The instant (naive UTC) that a user's text means; a bare date means the END of that day in `time_zone`.

    >>> instant("2026-03-31", "Australia/Sydney")
    datetime.datetime(2026, 3, 31, 12, 59, 59, 999999)
    >>> instant("2026-03-31T09:00:00+00:00")
    datetime.datetime(2026, 3, 31, 9, 0)
    >>> instant("") is None
    True
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value) if len(value) <= 10 else datetime.fromisoformat(value)
        except ValueError:
            raise WorkbenchError(f"{value!r} is no date.", fix="Write it as 2026-03-31 or 2026-03-31T09:00:00.") from None
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):  # OSError: the name of a folder
        raise WorkbenchError(f"{time_zone!r} is no time zone.", fix="Use a name such as Australia/Sydney.") from None
    if not isinstance(value, datetime):
        value = datetime.combine(value, time.max, tzinfo=zone)
    elif value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise WorkbenchError(f"{value} is beyond what dates can tell.", fix="Choose a day in the years 1970 to 2100.") from None
