"""The command `workbench`: every command teaches, errors are one sentence, the lake is the one that was named."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from workbench.lake import open_lake

ROOT = Path(__file__).resolve().parent.parent


def workbench(*words: str, lake: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WORKBENCH_")} | environment
    return subprocess.run([sys.executable, "-c", "from workbench.cli import main; main()", *words, *(["--lake", str(lake)] if lake else [])], cwd=ROOT, env=clean, capture_output=True, text=True)


def imported(*words: str) -> set[str]:
    code = f"import sys; sys.argv = ['workbench', *{words!r}]\nimport workbench.cli\ntry: workbench.cli.main()\nexcept SystemExit: pass\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_and_import_load_no_heavy_library():
    heavy = {"pandas", "numpy", "duckdb", "sklearn", "lightgbm", "papermill", "plotly", "pyarrow", "deltalake", "nbconvert", "shap"}
    assert imported("--help") & heavy == set()


@pytest.mark.parametrize("command", [(), ("demo",), ("import",), ("mapping",), ("run",), ("due",), ("dictionary",), ("lake",), ("lake", "versions"), ("lake", "vacuum")], ids=" ".join)
def test_every_command_explains_itself(command):
    done = workbench(*command, "--help")
    assert done.returncode == 0 and "Usage: " in done.stdout and len(done.stdout.splitlines()) > 6
    assert ("--lake FOLDER" in done.stdout) == (command not in [(), ("lake",)])  # every command takes it, the two groups don't


@pytest.mark.parametrize("words, sentence", [
    (("run", "10_lead_scoring"), "There is no lake at"),
    (("import", "nowhere.toml"), "There is no mapping nowhere.toml"),
    (("run", "10_lead_scoring", "-p", "horizon_days"), "Write it as -p name=value"),
    (("demo", "--size", "huge"), "huge"),
    (("mapping", "nowhere.csv"), "nowhere.csv"),
    (("lake", "versions"), "There is no lake at"),
], ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_an_error_is_one_sentence_with_its_remedy_and_no_traceback(tmp_path, words, sentence):
    named = {} if words[0] == "mapping" else {"lake": tmp_path / "none"}
    done = workbench(*words, **named)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("workbench: ") and sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("toml, sentence", [
    ("organization = 3", "are tables"), ("schedule = 3", "are tables"), ("[organization]\ntime_zone = 'Mars/X'", "'Mars/X' is no time zone"),
    ("[organization]\ntime_zone = 3", "3 is no time zone"), ("[runs]\ncell_minutes = 'x'", "cell_minutes cannot be 'x'"), ("[[", "is not valid TOML"),
    ("[value]\ncost_per_cal = 2", "[value] has no setting 'cost_per_cal'. It has: cost_per_call,"), ("value = 3", "are tables"),
    ("[value]\ncost_per_call = -1", "cost_per_call cannot be -1"), ("[value]\ncalls_per_day = true", "calls_per_day cannot be True"),
    ("[value]\ncost_per_call = nan", "cost_per_call cannot be nan"), ("[value]\ncurrency = 3", "currency cannot be 3"),
    ("\udcff", "is not valid TOML"), (None, "There is no")])
def test_settings_that_cannot_be_read_are_named_in_a_sentence(tmp_path, toml, sentence):
    if toml is not None:
        (tmp_path / "w.toml").write_text(toml, encoding="utf-8", errors="surrogateescape")
    done = workbench("due", lake=tmp_path, WORKBENCH_TOML=str(tmp_path / "w.toml"), WORKBENCH_RUNS=str(tmp_path / "runs"))
    assert done.returncode == 1 and done.stderr.startswith("workbench: ") and sentence in done.stderr, done.stderr


def test_a_folder_that_cannot_be_used_and_a_version_that_is_none_are_named_in_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    done = workbench("demo", lake=tmp_path / "file")
    assert done.returncode == 1 and done.stderr == f"workbench: File exists: {tmp_path / 'file'}.\n"
    done = workbench("lake", "versions", lake=tmp_path, WORKBENCH_LAKE_VERSION="abc")
    assert done.returncode == 1 and "WORKBENCH_LAKE_VERSION=abc is no version" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("seconds", [0, .3, .6, .9, 1.2])
def test_ctrl_c_at_any_time_is_told_in_a_sentence_and_publishes_nothing(tmp_path, seconds):
    command = [sys.executable, "-c", "from workbench.cli import main; main()", "demo", "--size", "medium", "--lake", str(tmp_path)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stderr and "part 1" in child.stderr.readline()
    time.sleep(seconds)
    child.send_signal(signal.SIGINT)
    errors = child.communicate(timeout=60)[1]
    assert (child.returncode, errors.splitlines()[-1]) == (130, "workbench: interrupted; what was not finished was not published."), errors
    assert "Traceback" not in errors and open_lake(tmp_path).version == -1


def test_an_import_names_its_rows_its_findings_and_the_next_step(tmp_path):
    (tmp_path / "leads.csv").write_text("Id,Converted,Extra\n1,yes,a\n2,no,b\n3,no,c\n")
    (tmp_path / "leads.toml").write_text('source = "mine"\n[[file]]\nname = "leads.csv"\nentity = "lead"\n[file.columns]\nId = { field = "id" }\n'
                                         'Converted = { field = "is_converted" }\n')
    done = workbench("import", str(tmp_path / "leads.toml"), lake=tmp_path / "lake")
    assert done.returncode == 0, done.stderr
    assert "leads.csv: 3 of 3 rows loaded as lead" in done.stdout and "unused_column 1" in done.stdout and "workbench run all --source mine" in done.stdout
    listed = workbench("lake", "versions", lake=tmp_path / "lake")
    assert listed.returncode == 0 and "0" in listed.stdout
    for command in ("compact", "vacuum"):
        done = workbench("lake", command, lake=tmp_path / "lake")
        assert done.returncode == 0, done.stderr


def test_the_demo_is_made_once_when_only_missing_ones_are_asked_for(tmp_path):
    first, second = (workbench("demo", "--if-missing", lake=tmp_path / "lake") for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "Made the demo organisation" in first.stdout and "stands in" in second.stdout


def test_the_draft_of_a_mapping_is_printed_as_toml_alone(tmp_path):
    (tmp_path / "leads.csv").write_text("Lead ID,Company,Converted,Created\n" + "".join(f"{i},Firm {i},{i % 2},2024-01-{i:02}\n" for i in range(1, 29)))
    done = workbench("mapping", str(tmp_path / "leads.csv"))
    assert done.returncode == 0, done.stderr
    assert tomllib.loads(done.stdout)["file"][0]["entity"] == "lead" and "question" in done.stderr


def test_the_lake_may_be_named_by_the_environment(tmp_path):
    done = workbench("lake", "versions", WORKBENCH_LAKE=str(tmp_path / "named"))
    assert str(tmp_path / "named") in done.stderr
