"""Run notebooks with papermill, several kernels at once, and leave for each an executed notebook, a record and a report.

A run reads one version of the lake, resolved before the first kernel starts. Everything lies under papermill_runs/<date>/: NAME.ipynb and
NAME.json belong to the latest run of the day; an earlier one of the same name is kept as NAME@HHMMSS. A run writes to a hidden file until it
has ended, so that a killed process leaves nothing that looks like a run.
"""

from __future__ import annotations

import html
import json
import logging
import os
import platform
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import nbformat
from filelock import FileLock
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill import execute_notebook
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.execute import ERROR_MARKER_TAG, ERROR_STYLE

from workbench import checks
from workbench.errors import WorkbenchError
from workbench.lake import open_lake
from workbench.settings import instant, settings

PACKAGES = ("crm-workbench", "pandas", "numpy", "duckdb", "deltalake", "scikit-learn", "lightgbm", "plotly", "papermill", "ipykernel")
INTERRUPTED = "interrupted before it had ended"
_LOG = logging.getLogger("workbench.runs")
_LOG.addHandler(logging.NullHandler())
logging.getLogger("papermill").addHandler(logging.NullHandler())


class _Manager(AsyncKernelManager):
    """Starts kernels in the Python that runs us, whatever kernel `python3` is registered as; what they say is encrypted on its way."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())

    def _transport_encryption_default(self) -> str:
        return "auto"


class _Client(PapermillNotebookClient):
    """Tells each cell to its run, and lets nothing be saved before secrets are masked."""

    def __init__(self, nb_man: Any, run: Run, **options: Any):
        super().__init__(nb_man, **options)
        self.run = run

    def execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        self.run.before_cell(self, cell_index)
        try:
            return super().execute_cell(cell, cell_index, **options)
        finally:
            self.run.after_cell(self)


class _Engine(Engine):
    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
        run: Run = options["run"]
        client = _Client(nb_man, run, kernel_manager_class=_Manager, kernel_name=kernel_name, log=_LOG, timeout=run.seconds, startup_timeout=120,
                         store_widget_state=False, shutdown_kernel="immediate")
        checks.clean_cells(nb_man.nb, run.secrets)
        client.execute(cwd=str(run.root), env=run.environment)


papermill_engines.register("workbench", _Engine)


class Run:
    """One notebook with its parameters: refused when made (WorkbenchError), or run once."""

    def __init__(self, path: Path, given: Mapping[str, Any], *, base: dict, folder: Path, environment: dict[str, str], say: Callable[[str], None]):
        self.path, self.folder, self.say, self.root = path, folder, say, path.resolve().parent.parent
        self.environment, self.secrets = environment, checks.secrets_of(environment)
        self.seconds = max(1, round(settings().cell_minutes * 60))
        self.stopped, self.manager, self.at, self.peak_kb = False, None, 0, 0
        self.notebook = nbformat.read(path, as_version=4)
        defaults = checks.default_parameters(self.notebook)
        self.given = checks.typed_parameters(given, defaults)
        parameters = defaults | self.given
        instant(parameters.get("as_of"), settings().time_zone)
        self.record = base | {"name": checks.run_name(path.stem, self.given, defaults), "notebook": path.stem, "title": checks.heading(self.notebook),
                              "parameters": parameters, "as_of": parameters.get("as_of"), "source": parameters.get("source")}

    def stop(self) -> None:
        """End the kernel and what it started; the run then ends as interrupted."""
        self.stopped = True
        if self.manager is not None and self.manager.has_kernel:
            with suppress(ProcessLookupError):
                os.killpg(self.manager.provisioner.pgid, signal.SIGKILL)

    def before_cell(self, client: _Client, index: int) -> None:
        """Tell how far it is; a run that was stopped goes no further."""
        self.manager = client.km
        code = [i for i, c in enumerate(client.nb.cells) if c.cell_type == "code" and c.source.strip()]
        if index in code:
            self.at = code.index(index) + 1
            self.say(f"{self.record['name']}: cell {self.at} of {len(code)}")
        if self.stopped:
            self.stop()

    def after_cell(self, client: _Client) -> None:
        """Mask what the cells show, and note the kernel's peak memory so far."""
        checks.clean_cells(client.nb, self.secrets)
        with suppress(OSError, AttributeError):  # only Linux has /proc; elsewhere the peak stays unknown
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{client.km.provisioner.pid}/status").read_text())
            self.peak_kb = max(self.peak_kb, int(found[1]) if found else 0)

    def execute(self, reports: Path, standalone: bool) -> dict:
        """Run it, keep notebook and record, make the report; the record."""
        started, clock = datetime.now(UTC), time.perf_counter()
        hidden = self.folder / f".{self.record['name']}.{os.getpid()}.ipynb"
        error = self._executed(hidden)
        done = nbformat.read(hidden, as_version=4) if hidden.exists() else self.notebook
        fault = checks.run_fault(done)
        error = INTERRUPTED if self.stopped else error or (fault[1] if fault else None)
        if error and not any(ERROR_MARKER_TAG in c.metadata.get("tags", []) for c in done.cells):
            banner = f"<span {ERROR_STYLE}>{html.escape(error)}</span>"  # papermill has one for a cell that raised only
            done.cells.insert(0, nbformat.v4.new_markdown_cell(banner, metadata={"tags": [ERROR_MARKER_TAG]}))
        told = checks.recorded(done)
        self.record |= {key: told[key] for key in ("results", "cards", "as_of", "source") if told.get(key) is not None}
        self.record |= {"status": "failed" if error else "ok", "error": error, "started_at": _utc(started), "ended_at": _utc(datetime.now(UTC)),
                        "seconds": round(time.perf_counter() - clock, 2), "peak_mb": round(self.peak_kb / 1024) or None}
        nbformat.write(done, hidden)
        self.record = keep(checks.masked(self.record, self.secrets), self.folder, hidden)
        return self._reported(reports, standalone)

    def _executed(self, hidden: Path) -> str | None:
        """Run it through papermill into `hidden`; a sentence when it ended in a way that no cell shows."""
        try:
            execute_notebook(_plain(self.path), _plain(hidden), self.given, engine_name="workbench", kernel_name="python3", language="python",
                             progress_bar=False, autosave_cell_every=0, run=self)
        except PapermillExecutionError:
            return None
        except CellTimeoutError:
            return f"Cell {self.at} ran longer than {self.seconds / 60:g} minutes, the limit ([runs] cell_minutes in workbench.toml)."
        except DeadKernelError:
            return f"The kernel died in cell {self.at}: out of memory, or the code ended it."
        except Exception as error:
            return f"The notebook could not be run: {type(error).__name__}: {error}"[:600]
        return None

    def _reported(self, reports: Path, standalone: bool) -> dict:
        from workbench.report.export import export_report

        try:
            report = export_report(self.folder / f"{self.record['name']}.ipynb", reports, record=self.record, standalone=standalone)
            self.record["report"] = os.path.relpath(report, reports)
        except Exception as error:
            self.record |= {"status": "failed", "error": self.record["error"] or f"The report could not be made: {type(error).__name__}: {error}"[:600]}
        _write(self.folder / f"{self.record['name']}.json", self.record)
        self.say(f"{self.record['name']}: {self.record['status']} after {self.record['seconds']:.0f} s")
        return self.record


def _plain(path: Path) -> str:
    return str(path.resolve()).replace("{", "{{").replace("}", "}}")  # papermill fills {} in paths


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")


def _write(path: Path, record: dict) -> None:
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    hidden.write_text(json.dumps(record, indent=1, default=str), encoding="utf-8")
    hidden.replace(path)


def new_record(name: str, status: str, error: str, slot: str | None = None) -> dict:
    """A run's record with every key; of a run that never began unless more is filled in."""
    at = _utc(datetime.now(UTC))
    return {"name": name, "notebook": None, "title": name, "status": status, "error": error, "started_at": at, "ended_at": at, "seconds": 0.0, "peak_mb": None,
            "parameters": {}, "as_of": None, "source": None, "lake": str(settings().lake), "lake_version": None,
            "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES}, "slot": slot, "results": {}, "cards": [], "report": None}


def day_folder() -> Path:
    """Where the runs of today (in the organization's time zone) lie."""
    folder = settings().runs / f"{datetime.now(ZoneInfo(settings().time_zone)):%Y-%m-%d}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep(record: dict, folder: Path, notebook: Path | None = None) -> dict:
    """Give `record` (and the executed notebook) its name in `folder`, after putting an earlier run of that name aside; the record."""
    name = record["name"]
    with FileLock(folder / ".lock"):
        earlier = folder / f"{name}.json"
        if earlier.exists():
            old = json.loads(earlier.read_text(encoding="utf-8"))
            stamp = f"{name}@{datetime.fromisoformat(old['started_at']).astimezone(ZoneInfo(settings().time_zone)):%H%M%S}"
            aside = next(a for n in count() if not (folder / f"{(a := stamp + '+' * n)}.json").exists())
            if (folder / f"{name}.ipynb").exists():
                (folder / f"{name}.ipynb").replace(folder / f"{aside}.ipynb")
            _write(folder / f"{aside}.json", old | {"name": aside, "report": None})  # its report is about to be written over
        if notebook is not None:
            notebook.replace(folder / f"{name}.ipynb")
        _write(earlier, record)
    return record


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end us as Ctrl-C does, so that kernels are ended and the record is written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_notebooks(names: list[str], *, parameters: Mapping[str, Any] | None = None, as_of: str = "", source: str = "", jobs: int = 2, standalone: bool = False,
                  slot: str | None = None, progress: Callable[[str], None] | None = None, folder: str | Path = "notebooks") -> list[dict]:
    """Run the notebooks that `names` mean (stem, number, `all`) in `folder`, `jobs` at once; one record a notebook, in order.

    parameters, as_of, source go to every notebook; one that has no such parameter is refused. progress gets a line of text, from any thread.
    slot names the schedule's slot that a run fills. Ctrl-C (and SIGTERM) end the kernels, write the records and are raised again.
    """
    given = dict(parameters or {})
    for name, value in (("as_of", as_of), ("source", source)):
        if value and given.setdefault(name, value) != value:
            raise WorkbenchError(f"{name} is given twice: {given[name]!r} and {value!r}.", fix="Give it once.")
    paths, lake, today = checks.notebook_paths(names, Path(folder)), open_lake(), day_folder()
    base = new_record("", "failed", "", slot) | {"lake": str(lake.path), "lake_version": lake.version}
    environment = os.environ | {"WORKBENCH_LAKE": str(lake.path.resolve()), "WORKBENCH_LAKE_VERSION": str(lake.version), "PYTHONWARNINGS": "ignore",
                                "WORKBENCH_RUNS": str(settings().runs.resolve()), "WORKBENCH_REPORTS": str(settings().reports.resolve()),
                                "TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    runs: list[Run | dict] = []
    for path in paths:
        try:
            runs.append(Run(path, given, base=base, folder=today, environment=environment, say=progress or (lambda text: None)))
        except (WorkbenchError, ValueError) as error:  # ValueError: the file is no notebook
            refused = base | {"name": f"{path.stem}--refused", "notebook": path.stem, "title": path.stem, "status": "refused", "error": str(error)}
            runs.append(keep(refused, today) if slot else refused)
    return _all(runs, jobs, standalone)


def _all(runs: list[Run | dict], jobs: int, standalone: bool) -> list[dict]:
    from workbench.report.index import write_index

    reports, live = settings().reports, [r for r in runs if isinstance(r, Run)]
    reports.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool, _terminable():
        futures = [pool.submit(run.execute, reports, standalone) for run in live]
        try:
            wait(futures)
        except KeyboardInterrupt:
            for future in futures:
                future.cancel()
            for run in live:
                run.stop()
            wait(futures)
            raise
        finally:
            write_index(reports, settings().runs)
    ended = iter(futures)
    return [r if isinstance(r, dict) else next(ended).result() for r in runs]
