"""Each slot runs once: real processes, real kernels, daylight saving, deaths."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import nbformat
import pytest
from cronsim import CronSim
from nbformat.v4 import new_code_cell, new_notebook

from workbench.errors import WorkbenchError
from workbench.lake import open_lake
from workbench.schedule import Schedule, claim, due_slots, read_schedule, run_due

SIX = datetime(2026, 3, 31, 6, 0)
DUE = "from datetime import datetime\nfrom workbench.schedule import run_due\nrun_due(datetime.fromisoformat({now!r}))"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with an empty lake, and a notebook that appends its parameter to the file `ran`, then waits while a file `wait` stands."""
    for name in ("WORKBENCH_LAKE", "WORKBENCH_LAKE_VERSION", "WORKBENCH_RUNS", "WORKBENCH_REPORTS", "WORKBENCH_TOML"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    open_lake("data/lake", create=True)
    cells = [new_code_cell('who = "nobody"\ndays = []', metadata={"tags": ["parameters"]}),
             new_code_cell("import os, time\nwith open('ran', 'a') as file:\n    file.write(who + '\\n')\nwhile os.path.exists('wait'):\n    time.sleep(.05)"),
             new_code_cell("from workbench.record import record\nrecord({'who': who})")]
    Path("notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), "notebooks/01_note.ipynb")
    schedule('[schedule.nightly]\nnotebook = "01_note"\ncron = "0 6 * * *"\ntime_zone = "UTC"\nparameters = { who = "night" }\n')
    return tmp_path


def schedule(text):
    """Write workbench.toml (its time stamp moves, whatever the clock's grain)."""
    Path("workbench.toml").write_text(text)
    os.utime("workbench.toml", (schedule.at, schedule.at))
    schedule.at += 1


schedule.at = 1_700_000_000


def ran():
    """What the notebook wrote, one line a run."""
    return Path("ran").read_text().split() if Path("ran").exists() else []


def claims():
    """{claim's name: its content}."""
    return {p.stem: json.loads(p.read_text()) for p in sorted(Path("papermill_runs/.slots").glob("*.claim"))}


def in_the_index():
    return Path("reports/index.html").read_text()


# ---------------------------------------------------------------------- which slots

def slots(cron, zone, now, since):
    return [s.isoformat(timespec="minutes") for s in due_slots(Schedule("s", ["all"], cron, zone, {}, ""), datetime.fromisoformat(now), since and datetime.fromisoformat(since))]


def test_a_time_that_spring_skips_comes_once_after_the_gap():
    # Sydney, 4 October 2026: 02:00 becomes 03:00 at 16:00 UTC; 02:30 does not exist that day
    assert slots("30 2 * * *", "Australia/Sydney", "2026-10-05T20:00", "2026-10-02T20:00") == ["2026-10-05T15:30", "2026-10-04T15:30", "2026-10-03T16:00"]


def test_a_time_that_autumn_repeats_comes_once():
    # Berlin, 25 October 2026: 02:30 is at 00:30 UTC and again at 01:30 UTC
    assert slots("30 2 * * *", "Europe/Berlin", "2026-10-26T12:00", "2026-10-24T12:00") == ["2026-10-26T01:30", "2026-10-25T00:30"]


def test_every_minute_is_a_slot_also_when_the_clock_repeats_an_hour():
    assert len(slots("* * * * *", "Europe/Berlin", "2026-10-25T04:00", "2026-10-24T22:00")) == 360  # 6 hours of real time


def test_without_a_claim_only_the_latest_slot_is_due_and_a_slot_is_due_at_its_very_minute():
    assert slots("0 6 * * *", "UTC", "2026-03-31T06:00", None) == ["2026-03-31T06:00"]
    assert slots("0 6 * * *", "UTC", "2026-03-31T05:59", None) == ["2026-03-30T06:00"]
    assert slots("0 6 * * *", "UTC", "2026-03-31T23:00", "2026-03-31T06:00") == []


@pytest.mark.parametrize("zone", ["Australia/Sydney", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("cron", ["30 2 * * *", "15 1 * * 1-5", "*/20 1-3 * * *"])
def test_looking_back_in_steps_finds_the_slots_that_looking_forward_finds(zone, cron):
    from datetime import UTC
    from zoneinfo import ZoneInfo

    start, end, ahead = datetime(2026, 3, 1), datetime(2026, 11, 30), []
    for slot in CronSim(cron, start.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))):
        ahead.append(slot.astimezone(UTC).replace(tzinfo=None))
        if ahead[-1] > end:
            break
    back, last, now = [], start, start
    while now < end:  # a caller who comes every 7 hours and 11 minutes
        now = min(now + timedelta(hours=7, minutes=11), end)
        back += reversed(due_slots(Schedule("s", ["all"], cron, zone, {}, ""), now, last))
        last = back[-1] if back else last
    assert back == ahead[:-1]


# ---------------------------------------------------------------------- what can be written

MISTAKES = {
    "an hour that is none": ('notebook = "all"\ncron = "0 25 * * *"', "cron '0 25 * * *' is no schedule"),
    "a sixth field": ('notebook = "all"\ncron = "0 0 6 * * *"', "minute hour day month weekday"),
    "a day that never comes": ('notebook = "all"\ncron = "0 6 31 2 *"', "is no schedule"),
    "no cron": ('notebook = "all"', "cron '' is no schedule"),
    "no notebook": ('cron = "0 6 * * *"', "it needs notebook"),
    "a misspelt key": ('notebook = "all"\ncron = "0 6 * * *"\ntimezone = "UTC"', "Did you mean time_zone?"),
    "a zone that is none": ('notebook = "all"\ncron = "0 6 * * *"\ntime_zone = "Sydney"', "is no time zone"),
    "parameters that are none": ('notebook = "all"\ncron = "0 6 * * *"\nparameters = "n=5"', "parameters must be a table"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_and_nothing_is_run(project, case):
    text, sentence = MISTAKES[case]
    schedule(f'[schedule.wrong]\n{text}\n')
    told, = run_due(SIX)
    assert (told["status"], told["name"], ran()) == ("failed", "schedule-wrong", [])
    assert told["error"].startswith("[schedule.wrong] in workbench.toml: ") and sentence in told["error"]


def test_a_broken_schedule_stands_in_the_index_until_it_runs_and_keeps_no_other_from_running(project):
    good = '[schedule.nightly]\nnotebook = ["01_note"]\ncron = "0 6 * * *"\n'
    schedule('[schedule.a]\nnotebook = "01_note"\ncron = "six"\n' + good)
    assert [r["status"] for r in run_due(SIX)] == ["failed", "ok"] and ran() == ["nobody"]
    assert "cron &#39;six&#39; is no schedule" in in_the_index()
    schedule('[schedule.a]\nnotebook = "01_note"\ncron = "0 6 * * *"\n' + good)
    assert [r["status"] for r in run_due(SIX)] == ["ok"]
    assert "is no schedule" not in in_the_index()


def test_a_schedule_without_more_runs_in_the_time_zone_of_the_organization(project):
    schedule('[organization]\ntime_zone = "Asia/Tokyo"\n')
    assert read_schedule("s", {"notebook": "10", "cron": "0 6 * * *"}) == Schedule("s", ["10"], "0 6 * * *", "Asia/Tokyo", {}, "")


# ---------------------------------------------------------------------- once

def test_a_slot_runs_once_with_its_parameters(project):
    told, = run_due(SIX + timedelta(minutes=3))
    assert (told["status"], told["results"], told["slot"]) == ("ok", {"who": "night"}, "nightly@20260331T0600Z")
    assert run_due(SIX + timedelta(minutes=8)) == [] and ran() == ["night"]
    assert claims()["nightly@20260331T0600Z"]["status"] == "ok"


def test_two_processes_that_ask_at_once_run_a_slot_once(project):
    Path("wait").touch()
    code = DUE.format(now=SIX.isoformat())
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    while not ran():
        assert any(p.poll() is None for p in both)
        time.sleep(0.05)
    assert run_due(SIX) == []  # it is running elsewhere
    time.sleep(0.5)
    Path("wait").unlink()
    assert [p.wait(60) for p in both] == [0, 0, 0]
    assert ran() == ["night"] and [c["status"] for c in claims().values()] == ["ok"]


def test_a_claim_can_be_made_once(tmp_path):
    assert claim(tmp_path, "nightly", SIX) is not None and claim(tmp_path, "nightly", SIX) is None


def test_only_the_latest_missed_slot_is_caught_up_and_the_others_are_noted(project):
    run_due(SIX)
    lines = []
    told, = run_due(SIX + timedelta(days=3, hours=2), progress=lines.append)
    assert told["slot"] == "nightly@20260403T0600Z" and len(ran()) == 2
    assert claims()["nightly@20260403T0600Z"]["skipped"] == ["2026-04-02T06:00Z", "2026-04-01T06:00Z"]
    assert lines[0] == "nightly: 2 older slots were missed and are skipped"


def test_a_clock_that_goes_back_repeats_nothing(project):
    run_due(SIX)
    assert run_due(SIX - timedelta(days=2)) == [] and len(ran()) == 1


def test_a_run_whose_process_died_is_told_once_and_not_repeated(project):
    schedule('[schedule.nightly]\nnotebook = "01_note"\ncron = "0 6 * * *"\nparameters = { who = "late night", days = [1, 2] }\n')
    Path("wait").touch()
    child = subprocess.Popen([sys.executable, "-c", DUE.format(now=SIX.isoformat())])
    while not ran():
        assert child.poll() is None
        time.sleep(0.05)
    child.kill()
    child.wait()
    Path("wait").unlink()
    told, = run_due(SIX + timedelta(hours=1))
    assert told["status"] == "failed" and "workbench run 01_note -p 'who=late night' -p days=1,2" in told["error"] and "nightly@20260331T0600Z" in told["error"]
    assert run_due(SIX + timedelta(hours=2)) == [] and ran() == ["late", "night"] and "not repeated by itself" in in_the_index()
    assert run_due(SIX + timedelta(days=1))[0]["status"] == "ok" and "not repeated by itself" not in in_the_index()
    assert [c["status"] for c in claims().values()] == ["died", "ok"]


def test_a_claim_that_died_half_written_is_told_too(project):
    Path("papermill_runs/.slots").mkdir(parents=True)
    Path("papermill_runs/.slots/nightly@20260331T0600Z.claim").write_text('{"status": "run')
    assert "died" in run_due(SIX)[0]["error"] and run_due(SIX) == []


def test_ctrl_c_leaves_a_claim_that_says_interrupted(project):
    Path("wait").touch()
    child = subprocess.Popen([sys.executable, "-c", DUE.format(now=SIX.isoformat())], stderr=subprocess.DEVNULL)
    while not ran():
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) != 0
    Path("wait").unlink()
    assert [c["status"] for c in claims().values()] == ["interrupted"] and run_due(SIX) == []
    record = json.loads(next(Path("papermill_runs").glob("*/01_note--who-night.json")).read_text())
    assert record["error"] == "interrupted before it had ended" and record["slot"] == "nightly@20260331T0600Z"


@pytest.mark.parametrize("text", ['notebook = "11_note"', 'notebook = "01_note"\nparameters = { whom = "x" }'])
def test_a_slot_that_is_refused_says_so_and_is_not_tried_every_minute(project, text):
    schedule(f'[schedule.nightly]\ncron = "0 6 * * *"\n{text}\n')
    told, = run_due(SIX)
    assert told["status"] in ("failed", "refused") and "Did you mean" in told["error"] and "Did you mean" in in_the_index() and ran() == []
    assert len(claims()) == 1 and run_due(SIX + timedelta(minutes=1)) == []


def test_asking_when_nothing_is_due_imports_no_papermill(project):
    run_due(SIX)
    code = DUE.format(now=SIX.isoformat()) + "\nimport sys\nassert 'papermill' not in sys.modules and 'nbformat' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_settings_of_the_documentation_can_be_read(project):
    import tomllib

    text = (Path(__file__).parent.parent / "docs" / "schedule.md").read_text()
    blocks = [part.split("```")[0] for part in text.split("```toml\n")[1:]]
    names = [read_schedule(name, table).name for block in blocks for name, table in tomllib.loads(block).get("schedule", {}).items()]
    assert len(names) >= 2


def test_a_bad_name_of_a_schedule_is_refused(project):
    with pytest.raises(WorkbenchError, match="this is no schedule"):
        read_schedule("../up", {"notebook": "all", "cron": "0 6 * * *"})
