"""Runs cannot lie: real kernels, real papermill, small notebooks made here."""

import json
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from workbench import checks, runs
from workbench.errors import WorkbenchError
from workbench.lake import open_lake
from workbench.runs import run_notebooks

SECRET = "h0rse'battery/\"staple\""
PARAMETERS = 'as_of = ""  # a date\nsource = ""\nn = 5\nshare = 0.25\nstages = ["New"]\ndeep = False'
RECORD = "from workbench.record import record\nrecord({'n': n}, cards=[('Leads', str(n), 'all of them')])"


def write_notebook(root, name, *cells, parameters=PARAMETERS):
    """A notebook with a question, parameters and `cells` (text, or (text, tag))."""
    code = [new_code_cell(c, metadata={"tags": []}) if isinstance(c, str) else new_code_cell(c[0], metadata={"tags": [c[1]]}) for c in cells]
    (root / "notebooks").mkdir(exist_ok=True)
    notebook = new_notebook(cells=[new_markdown_cell("# How many are there?"), new_code_cell(parameters, metadata={"tags": ["parameters"]}), *code])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")


def a_project(root, patch):
    """An empty project with an empty lake as the current folder, on a machine where `python3` is registered as something else."""
    for name in ("WORKBENCH_LAKE", "WORKBENCH_LAKE_VERSION", "WORKBENCH_RUNS", "WORKBENCH_REPORTS", "WORKBENCH_TOML", "WORKBENCH_PURPOSE"):
        patch.delenv(name, raising=False)
    kernel = root / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "Another", "language": "python", "env": {"PYTHONPATH": "/nowhere"}}))
    patch.setenv("JUPYTER_PATH", str(root / "jupyter"))
    patch.chdir(root)
    open_lake("data/lake", create=True)
    return root


@pytest.fixture
def project(tmp_path, monkeypatch):
    return a_project(tmp_path, monkeypatch)


def kept(name, ending="ipynb"):
    """The one file of a run in the day's folder."""
    return next(Path("papermill_runs").glob(f"*/{name}.{ending}"))


# ---------------------------------------------------------------------- one batch, many ways to fail

ENDINGS = {
    "02_exit": (["import sys\nsys.exit(0)", RECORD], "Cell 2 left the notebook (SystemExit: 0)"),
    "03_quit": (["quit()", "1 + 1", RECORD], "The kernel died in cell"),
    "04_raise": (["x = {}", "x['stage']", RECORD], "Cell 3 stopped: KeyError: 'stage'"),
    "05_dead": (["import os\nos._exit(0)", RECORD], "The kernel died in cell 2"),
    "06_silent": (["1 + 1"], "recorded no results"),
    "07_skipped": ([("1 + 1", "skip-execution"), RECORD], "Cell 2 did not run"),
    "08_tolerated": ([("1 / 0", "raises-exception"), RECORD], "Cell 2 stopped: ZeroDivisionError"),
    "09_workbench": (["from workbench.errors import WorkbenchError\nraise WorkbenchError('No leads.', fix='Import <b>some</b>.')"], "stopped: No leads. Import <b>some</b>."),
    "10_input": (["input('password?')", RECORD], "Cell 2 stopped: StdinNotImplementedError"),
}


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Every notebook of ENDINGS, one that is fine and one that shows a secret, run as one batch: (records by notebook, lines of progress)."""
    with pytest.MonkeyPatch.context() as patch:
        root = a_project(tmp_path_factory.mktemp("batch"), patch)
        patch.setenv("CRM_API_TOKEN", SECRET)
        patch.setenv("WAREHOUSE_URL", "postgresql://reader:hunter2hunter2@localhost/crm")
        write_notebook(root, "01_fine", "import os, sys\nblock = bytearray(300_000_000)\nblock[::4096] = b'x' * len(block[::4096])\ndel block",
                       "from workbench.record import record\nrecord({'n': n, 'python': sys.executable, 'folder': os.getcwd(),\n"
                       "    'run': [os.environ[f'WORKBENCH_{name}'] for name in ('PURPOSE', 'RUN')]},\n"
                       "    cards=[('Leads', '5', 'all')])")
        for name, (cells, _) in ENDINGS.items():
            write_notebook(root, name, *cells)
        write_notebook(root, "11_secret", "import html, os, sys\nsecret = os.environ['CRM_API_TOKEN']\nsecret",
                       "sys.stdout.write(secret[:5])\nsys.stdout.flush()\nsys.stdout.write(secret[5:])\nprint(os.environ['WAREHOUSE_URL'])",
                       "from IPython.display import HTML, JSON\ndisplay(HTML('<p>' + html.escape(secret) + '</p>'), JSON({secret: [secret]}))",
                       "from workbench.record import record\nrecord({'told': secret})", "raise ValueError('rejected: ' + secret)")
        lines = []
        yield {r["notebook"]: r for r in run_notebooks(["all"], jobs=3, progress=lines.append)}, lines, root


def test_a_run_that_ends_well_says_what_it_ran(batch):
    records, _, root = batch
    told = records["01_fine"]
    assert (told["status"], told["error"], told["name"], told["title"], told["report"]) == ("ok", None, "01_fine", "How many are there?", "01_fine.html")
    assert told["results"]["n"] == 5 and told["cards"] == [["Leads", "5", "all"]]
    assert told["parameters"] == {"as_of": "", "source": "", "n": 5, "share": 0.25, "stages": ["New"], "deep": False}
    assert told["seconds"] > 0 and told["started_at"] <= told["ended_at"] and told["versions"]["papermill"] and told["slot"] is None
    assert json.loads(kept("01_fine", "json").read_text()) == told


def test_kernels_are_this_python_in_the_project_folder_whatever_python3_is_registered_as(batch):
    told = batch[0]["01_fine"]["results"]
    assert (told["python"], told["folder"]) == (sys.executable, str(batch[2]))


def test_a_notebook_knows_that_it_is_a_production_run_and_which(batch):
    assert batch[0]["01_fine"]["results"]["run"] == ["production", "01_fine"]


@pytest.mark.parametrize(("given", "purpose"), [({}, "production"), ({"allow": []}, "production"), ({"allow": ["x_tags"]}, "exploration")])
def test_what_lets_accused_fields_in_is_an_exploration(given, purpose):
    path = Path(__file__).parent.parent / "notebooks/10_lead_scoring.ipynb"
    assert runs.Run(path, given, base={}, folder=path.parent, environment={}, say=print).environment["WORKBENCH_PURPOSE"] == purpose


def test_peak_memory_counts_what_was_freed_again(batch):
    assert 300_000_000 / 2**20 < batch[0]["01_fine"]["peak_mb"] < 900


@pytest.mark.parametrize("name", ENDINGS)
def test_a_notebook_that_did_not_run_to_its_end_has_failed(batch, name):
    told = batch[0][name]
    assert told["status"] == "failed" and ENDINGS[name][1] in told["error"]


@pytest.mark.parametrize("name", ENDINGS)
def test_a_failed_run_keeps_its_notebook_with_a_banner_and_gets_a_report_that_says_so(batch, name):
    first = nbformat.read(kept(name), as_version=4).cells[0]
    assert first.metadata["tags"] == ["papermill-error-cell-tag"] and "<b>some" not in first.source
    page = (batch[2] / "reports" / batch[0][name]["report"]).read_text()
    assert "did not finish" in page or "failed" in page.lower()


def test_a_secret_of_the_environment_stays_in_no_file(batch):
    records, _, root = batch
    assert records["11_secret"]["error"] == "Cell 6 stopped: ValueError: rejected: ***" and records["11_secret"]["results"] == {"told": "***"}
    cells = nbformat.read(kept("11_secret"), as_version=4).cells
    assert sum("***" in json.dumps(c.get("outputs", "")) for c in cells) == 5  # the value, the stream, HTML and JSON, the record, the traceback
    for path in (p for folder in ("papermill_runs", "reports") for p in (root / folder).rglob("*") if p.is_file()):
        text = path.read_text(errors="replace")
        assert not [w for w in ("battery", "hunter2") if w in text], path


def test_progress_tells_notebook_cell_and_end(batch):
    lines = batch[1]
    assert {"01_fine: cell 1 of 3", "01_fine: cell 3 of 3"} <= set(lines) and any(line.startswith("04_raise: failed after") for line in lines)


def test_nothing_half_done_is_left_beside_the_runs(batch):
    assert [p.name for p in (batch[2] / "papermill_runs").glob("*/.*") if p.name != ".lock"] == []


# ---------------------------------------------------------------------- parameters

def test_parameters_reach_the_notebook_in_the_types_of_its_defaults_and_name_the_run(project):
    write_notebook(project, "20_types", "from workbench.record import record\nrecord({'all': repr((as_of, n, share, stages, deep, source))})")
    given = {"n": "7", "share": "1", "stages": "['Won', \"Lost\"]", "deep": "yes", "source": 'a "b" \\ {c}\n\'d\''}
    told, = run_notebooks(["20"], parameters=given, as_of="2026-03-31")
    assert told["results"]["all"] == repr(("2026-03-31", 7, 1.0, ["Won", "Lost"], True, given["source"])), told["error"]
    assert told["name"].startswith("20_types--n-7--share-1.0--stages-Won,Lost--deep-True--source-a__b_____c___d_~") and told["name"].endswith("--as_of-2026-03-31")
    assert (told["as_of"], told["source"]) == ("2026-03-31", given["source"]) and kept(told["name"]).exists()


REFUSALS = {
    "a misspelt name": ({"stagess": "a"}, "Did you mean stages?"),
    "a name that is code": ({"n = 1; open('ran', 'w').close() #": "1"}, "is no name of a parameter"),
    "a keyword": ({"import": "1"}, "is no name of a parameter"),
    "half a number": ({"n": "5.5"}, "It takes a whole number; its default is 5"),
    "words for a number": ({"share": "half"}, "It takes a number"),
    "not a number": ({"share": "nan"}, "It takes a number"),
    "a flag that is none": ({"deep": "maybe"}, "true or false"),
    "code for a list": ({"stages": [["a"]]}, "cannot be"),
    "a table": ({"n": {"a": 1}}, "cannot be"),
    "a date that is none": ({"as_of": "2026-13-01"}, "is no date"),
    "a secret's name": ({"api_token": "x"}, "looks like a secret"),
    "a service's key": ({"source": "sk-abcdefghijklmnop"}, "looks like a secret"),
    "a long random value": ({"source": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"}, "looks like a secret"),
    "a session id": ({"source": "00D5g000004XyZq!AQEAQ.x"}, "looks like a secret"),
    "a password in an address": ({"stages": ["x", "https://u:pw@example.org"]}, "looks like a secret"),
    "a value of the environment": ({"source": f"my {SECRET}"}, "looks like a secret"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_does_not_fit_is_refused_and_nothing_is_run_or_repeated(project, monkeypatch, case):
    given, sentence = REFUSALS[case]
    monkeypatch.setenv("CRM_PASSWORD", SECRET)
    write_notebook(project, "20_types", "open('ran', 'w').close()", RECORD)
    told, = run_notebooks(["20_types"], parameters=given)
    assert told["status"] == "refused" and sentence in told["error"] and told["report"] is None
    assert not Path("ran").exists() and not list(Path("papermill_runs").rglob("20_types*"))
    assert not any(secret in json.dumps(told) for secret in ("abcdefghijklmnop", "9f86d0", "XyZq", "u:pw", "battery"))


@pytest.mark.parametrize("value", ["x_education_leads", "2026-03-31_snapshot_of_all_open_pipelines", "Basic subscription plan", "skincare_products_emea",
                                   "123e4567-e89b-12d3-a456-426614174000", "https://example.org/a/b"])
def test_plain_values_are_not_taken_for_secrets(value):
    assert checks.typed_parameters({"source": value}, {"source": ""}) == {"source": value}


def test_only_plain_literals_of_the_tagged_cell_are_parameters():
    notebook = new_notebook(cells=[new_code_cell("hidden = 1"), new_code_cell("a = -1\nb: int = 2\nc = len('x')\nd = e = 3\na += 1\nprint(a)", metadata={"tags": ["parameters"]})])
    assert checks.default_parameters(notebook) == {"a": -1, "b": 2, "d": 3}


def test_values_that_look_alike_in_a_file_name_get_different_names():
    names = {checks.run_name("10", {"source": v}, {"source": ""}) for v in ("a b", "a_b", "a/b", "../../a", "x" * 50, "x" * 51)}
    assert len(names) == 6 and all("/" not in n for n in names) and "10--source-a_b" in names


@pytest.mark.parametrize(("name", "error"), [("1", "may mean 10_leads or 11_deals"), ("10_leeds", "Did you mean 10_leads?"), ("", "There is no notebook")])
def test_a_notebook_that_is_not_named_clearly_is_asked_for(tmp_path, name, error):
    for stem in ("10_leads", "11_deals", "2_data"):
        write_notebook(tmp_path, stem)
    with pytest.raises(WorkbenchError, match=error.replace("?", r"\?")):
        checks.notebook_paths([name], tmp_path / "notebooks")
    assert [p.stem for p in checks.notebook_paths(["10", "notebooks/10_leads.ipynb", "2"], tmp_path / "notebooks")] == ["10_leads", "2_data"]


# ---------------------------------------------------------------------- versions, time, parallel, interrupted

def test_a_run_reads_the_lake_as_it_was_when_the_run_began(project):
    lake = open_lake("data/lake")
    lake.upsert("lead", pd.DataFrame({"id": ["s:1", "s:2"]}), at=datetime(2026, 1, 1))
    wait = "import pathlib, time\npathlib.Path('began').touch()\nwhile not pathlib.Path('go').exists(): time.sleep(.05)"
    count = "from workbench.lake import open_lake\nfrom workbench.record import record\nrecord({'n': len(open_lake().read('lead'))})"
    write_notebook(project, "01_wait", wait, count)
    write_notebook(project, "02_later", count)  # starts after the publish, in the same batch
    told = []
    thread = threading.Thread(target=lambda: told.extend(run_notebooks(["all"], jobs=1)))
    thread.start()
    while not Path("began").exists():
        time.sleep(0.05)
    before = lake.version
    open_lake("data/lake").upsert("lead", pd.DataFrame({"id": ["s:3"]}), at=datetime(2026, 1, 2))
    Path("go").touch()
    thread.join(60)
    assert [(t["results"].get("n"), t["lake_version"]) for t in told] == [(2, before), (2, before)], told  # 3 leads stand by then
    assert open_lake("data/lake").version == before + 1


def test_an_empty_lake_stays_empty_for_the_whole_run(project):
    write_notebook(project, "01_empty", "from workbench.lake import open_lake\nimport pandas as pd, os\nfrom datetime import datetime\n"
                   "open_lake(create=True).upsert('lead', pd.DataFrame({'id': ['s:1']}), at=datetime(2026, 1, 1))",
                   "from workbench.record import record\nrecord({'n': len(open_lake().read('lead'))})")
    told, = run_notebooks(["01"])
    assert (told["lake_version"], told["results"], told["error"]) == (-1, {"n": 0}, None)


def test_a_cell_that_never_ends_is_ended(project, monkeypatch):
    Path("workbench.toml").write_text("[runs]\ncell_minutes = 0.02\n")  # 1.2 s, rounded to 1
    write_notebook(project, "01_endless", "while True: pass", RECORD)
    told, = run_notebooks(["01"])
    assert told["status"] == "failed" and "Cell 2 ran longer than" in told["error"] and told["seconds"] < 15


def test_jobs_run_at_the_same_time(project):
    for me, other in (("a", "b"), ("b", "a")):  # each waits until the other has begun
        write_notebook(project, f"01_{me}", f"import pathlib, time\npathlib.Path('{me}').touch()\nend = time.time() + 30\n"
                       f"while not pathlib.Path('{other}').exists() and time.time() < end: time.sleep(.05)\nassert pathlib.Path('{other}').exists()", RECORD)
    assert [t["status"] for t in run_notebooks(["all"], jobs=2)] == ["ok", "ok"]


def test_an_earlier_run_of_the_day_is_kept_aside(project):
    write_notebook(project, "01_twice", "import pathlib\nassert pathlib.Path('fixed').exists()", RECORD)
    first, = run_notebooks(["01"])
    assert "AssertionError" in Path("reports/index.html").read_text()
    Path("fixed").touch()
    second, = run_notebooks(["01"])
    assert "AssertionError" not in Path("reports/index.html").read_text()
    assert (first["status"], second["status"], first["name"], second["name"]) == ("failed", "ok", "01_twice", "01_twice")
    assert json.loads(kept("01_twice", "json").read_text()) == second
    old = json.loads(kept("01_twice@*", "json").read_text())
    assert old["status"] == "failed" and kept(old["name"]).exists()


def test_runs_of_one_name_that_end_together_do_not_mix(project, monkeypatch):
    write_notebook(project, "01_same", "import time\nfrom workbench.record import record\nrecord({'t': time.time_ns()})")
    export, first, told = runs.export_report, threading.Event(), []

    def slow(notebook, reports, *, record, standalone):
        if not first.is_set():
            first.set()
            time.sleep(4)  # the other run ends meanwhile
        assert checks.recorded(nbformat.read(notebook, as_version=4))["results"] == record["results"]
        return export(notebook, reports, record=record, standalone=standalone)

    monkeypatch.setattr(runs, "export_report", slow)
    threads = [threading.Thread(target=lambda: told.extend(run_notebooks(["01"]))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    last = json.loads(kept("01_same", "json").read_text())
    assert [r["error"] for r in told] == [None, None] and last == told[-1]
    assert checks.recorded(nbformat.read(kept("01_same"), as_version=4))["results"] == last["results"]


def test_a_notebook_that_was_written_by_half_leaves_a_record_and_a_report(project, monkeypatch):
    def full(notebook, out, *_, **__):
        Path(out).write_text('{"cells": [')
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "execute_notebook", full)
    write_notebook(project, "01_full", RECORD)
    told, = run_notebooks(["01"])
    assert told["status"] == "failed" and "No space left" in told["error"] and kept("01_full", "json").exists() and "No space left" in Path("reports/01_full.html").read_text()


def test_what_a_widget_would_catch_stays_in_its_cell_and_a_widget_that_draws_fails_no_run(project):
    write_notebook(project, "01_widget", "import ipywidgets as w\nout = w.Output()\nout.clear_output(wait=True)\nwith out:\n    display('drawn')\nout", RECORD)
    told, = run_notebooks(["01"])
    assert told["error"] is None and "drawn" in json.dumps(nbformat.read(kept("01_widget"), as_version=4).cells[2].outputs)


def test_ctrl_c_ends_the_kernels_and_what_they_started_and_says_interrupted(project):
    write_notebook(project, "01_long", "import os, pathlib, subprocess, time\nchild = subprocess.Popen(['sleep', '300'])\n"
                   "pathlib.Path('pids.tmp').write_text(f'{os.getpid()} {child.pid}')\nos.rename('pids.tmp', 'pids')\ntime.sleep(300)", RECORD)
    write_notebook(project, "02_never", "open('ran', 'w').close()", RECORD)
    child = subprocess.Popen([sys.executable, "-c", "from workbench.runs import run_notebooks; run_notebooks(['all'], jobs=1)"], stderr=subprocess.PIPE)
    while not Path("pids").exists():
        assert child.poll() is None
        time.sleep(0.05)
    pids = [int(p) for p in Path("pids").read_text().split()]
    child.send_signal(signal.SIGINT)
    errors = child.communicate(timeout=30)[1].decode()
    assert child.returncode != 0 and "KeyboardInterrupt" in errors
    told = json.loads(kept("01_long", "json").read_text())
    assert (told["status"], told["error"]) == ("failed", "interrupted before it had ended") and kept("01_long").exists()
    assert not Path("ran").exists() and not [p for p in pids if _lives(p)]


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # one that nobody has waited for is dead too
    except OSError:
        return False


