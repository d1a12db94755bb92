"""Run notebooks with papermill, several kernels at once; each leaves an executed notebook, a record and a report.

papermill_runs/<date>/NAME.ipynb and NAME.json are the day's latest run of that name; earlier ones are kept as NAME@HHMMSSffffff. A run writes
to a hidden file until it has ended, so that a killed process leaves nothing that looks like a run. One lake version is resolved before all runs.
"""

from __future__ import annotations

import html
import json
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
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
from workbench.connect.status import freshness
from workbench.errors import WorkbenchError
from workbench.lake import open_lake
from workbench.report.export import export_report, write_whole
from workbench.report.index import write_index
from workbench.settings import instant, settings

PACKAGES = ("crm-workbench", "pandas", "numpy", "duckdb", "deltalake", "scikit-learn", "lightgbm", "plotly", "papermill", "ipykernel")
_LOG = logging.getLogger("papermill")
_LOG.addHandler(logging.NullHandler())  # what went wrong stands in the record


class _Manager(AsyncKernelManager):
    """Starts kernels in the Python that runs us, whatever is registered as `python3`; what they say travels encrypted."""

    kernel_spec = property(lambda self: KernelSpec(**get_kernel_dict()))

    def _transport_encryption_default(self) -> str:
        return "auto"


class _Client(PapermillNotebookClient):
    """Tells how far its run is, ends it when it was stopped, and masks secrets before papermill saves what a cell showed."""

    def __init__(self, nb_man: Any, run: Run):
        super().__init__(nb_man, kernel_manager_class=_Manager, kernel_name="python3", log=_LOG, timeout=run.cell_seconds, startup_timeout=120,
                         store_widget_state=False, shutdown_kernel="immediate")
        self.comm_open_handlers.clear()  # nbclient's own Output widget wants the state that is not stored; what it would catch stays in its cell
        self.run, self.code = run, [i for i, c in enumerate(nb_man.nb.cells) if c.cell_type == "code" and c.source.strip()]
        checks.mask_cells(nb_man.nb, run.secrets)

    def execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        run, run.manager = self.run, self.km
        if cell_index in self.code:
            run.at = self.code.index(cell_index) + 1
            run.say(f"{run.record['name']}: cell {run.at} of {len(self.code)}")
        if run.stopped:
            run.stop()
        try:
            return super().execute_cell(cell, cell_index, **options)
        finally:
            checks.mask_cells(self.nb, run.secrets)
            with suppress(OSError, AttributeError):  # only Linux has /proc; elsewhere the peak stays unknown
                status = Path(f"/proc/{self.km.provisioner.pid}/status").read_text()
                run.peak_kb = max([run.peak_kb, *map(int, re.findall(r"VmHWM:\s+(\d+)", status))])


class _Engine(Engine):
    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, *, run: Run, **_: Any) -> None:
        _Client(nb_man, run).execute(cwd=str(run.path.parent.parent), env=run.environment)


papermill_engines.register("workbench", _Engine)


class Run:
    """One notebook with its parameters: refused when made (WorkbenchError), or executed once."""

    def __init__(self, path: Path, given: Mapping[str, Any], *, base: dict, folder: Path, environment: dict[str, str], say: Callable[[str], None]):
        self.path, self.folder, self.say = path.resolve(), folder.resolve(), say
        self.secrets, self.cell_seconds = checks.secrets_of(environment), max(1, round(settings().cell_minutes * 60))
        self.stopped, self.manager, self.at, self.peak_kb = False, None, 0, 0
        self.notebook = nbformat.read(path, as_version=4)
        defaults = checks.default_parameters(self.notebook)
        self.given = checks.typed_parameters(given, defaults)
        told = defaults | self.given
        instant(told.get("as_of"), settings().time_zone)
        self.record = base | {"name": checks.run_name(path.stem, self.given, defaults), "title": checks.heading(self.notebook), "parameters": told,
                              "as_of": told.get("as_of"), "source": told.get("source")}
        purpose = "exploration" if self.given.get("allow") else "production"  # fields let in by hand: a trial of what the score would be
        self.environment = {"WORKBENCH_PURPOSE": purpose} | environment | {"WORKBENCH_RUN": self.record["name"], "WORKBENCH_STARTED_AT": utc_now()}

    def stop(self) -> None:
        """End the kernel and all that it started; the run then ends as interrupted."""
        self.stopped = True
        if self.manager is not None and self.manager.has_kernel:
            with suppress(ProcessLookupError):
                os.killpg(self.manager.provisioner.pgid, signal.SIGKILL)

    def execute(self, reports: Path, standalone: bool) -> dict:
        """Run it, keep notebook and record, make the report; the record."""
        started, clock, error = utc_now(), time.perf_counter(), None
        hidden = self.folder / f".{self.record['name']}.{os.getpid()}-{id(self):x}.ipynb"
        try:
            execute_notebook(self.path, hidden, self.given, engine_name="workbench", kernel_name="python3", language="python",
                             progress_bar=False, autosave_cell_every=0, run=self)
        except PapermillExecutionError:
            pass  # the cell tells
        except Exception as caught:
            error = {CellTimeoutError: f"Cell {self.at} ran longer than {self.cell_seconds / 60:g} minutes, the limit ([runs] cell_minutes in workbench.toml).",
                     DeadKernelError: f"The kernel died in cell {self.at}: out of memory, or the code ended it.",
                     }.get(type(caught), f"The notebook could not be run: {type(caught).__name__}: {caught}"[:600])
        done = self.notebook
        with suppress(OSError, ValueError):  # none was written, or half of one, as the disk is full
            done = nbformat.read(hidden, as_version=4)
        error = "interrupted before it had ended" if self.stopped else error or checks.run_fault(done)
        if error and not any(ERROR_MARKER_TAG in c.metadata.get("tags", []) for c in done.cells):  # papermill marks a cell that raised, no other fault
            done.cells.insert(0, nbformat.v4.new_markdown_cell(f"<span {ERROR_STYLE}>{html.escape(error)}</span>", metadata={"tags": [ERROR_MARKER_TAG]}))
        nbformat.write(done, hidden)
        told = checks.recorded(done)
        record = self.record | {key: told[key] for key in ("results", "cards", "as_of", "source") if told.get(key) is not None} | {
            "status": "failed" if error else "ok", "error": error, "started_at": started, "ended_at": utc_now(),
            "seconds": round(time.perf_counter() - clock, 2), "peak_mb": round(self.peak_kb / 1024) or None}
        record["freshness"] = [stream for stream in record["freshness"] if record["source"] in (None, "", stream["source"])]
        record = checks.masked(record, self.secrets)
        with FileLock(self.folder / ".lock"):  # notebook, report and record are of one run, also where another of this name ends now
            kept = self._kept(hidden, record)
            try:
                record["report"] = os.path.relpath(export_report(kept, reports, record=record, standalone=standalone), reports)
            except Exception as caught:
                record |= {"status": "failed", "error": record["error"] or f"The report could not be made: {type(caught).__name__}: {caught}"[:600]}
            write_whole(kept.with_name(f"{record['name']}.json"), json.dumps(record, indent=1, default=str))
        self.say(f"{record['name']}: {record['status']} after {record['seconds']:.0f} s")
        return record

    def _kept(self, hidden: Path, record: dict) -> Path:
        """Give the notebook and its record their names, an earlier run of that name aside; the notebook's path."""
        name = f"{self.folder}/{record['name']}"
        if Path(f"{name}.json").exists():
            ended = datetime.fromtimestamp(Path(f"{name}.json").stat().st_mtime, ZoneInfo(settings().time_zone))
            for ending in ("ipynb", "json"):
                os.replace(f"{name}.{ending}", f"{name}@{ended:%H%M%S%f}.{ending}")
        write_whole(Path(f"{name}.json"), json.dumps(record, indent=1, default=str))
        return hidden.replace(f"{name}.ipynb")


def utc_now() -> str:
    """The time in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_record(name: str, status: str, error: str, slot: str | None = None) -> dict:
    """The record of a run that never began, with every key that a record has."""
    return {"name": name, "notebook": None, "title": name, "status": status, "error": error, "started_at": utc_now(), "ended_at": utc_now(), "seconds": 0.0,
            "peak_mb": None, "parameters": {}, "as_of": None, "source": None, "lake": str(settings().lake), "lake_version": None,
            "versions": {p: version(p) for p in PACKAGES}, "slot": slot, "results": {}, "cards": [], "freshness": [], "report": None}


def run_notebooks(names: list[str], *, parameters: Mapping[str, Any] | None = None, as_of: str = "", source: str = "", jobs: int = 2, standalone: bool = False,
                  slot: str | None = None, progress: Callable[[str], None] | None = None, folder: str | Path = "notebooks") -> list[dict]:
    """Run the notebooks that `names` mean (stem, number, `all`) in `folder`, `jobs` at once; one record a notebook, in order.

    parameters, as_of and source go to every notebook; one that has no such parameter is refused. progress gets lines of text, from any thread.
    slot: the schedule's slot that is filled. Ctrl-C ends the kernels, leaves records that say so, and is raised again.
    """
    given = dict(parameters or {}) | {name: value for name, value in (("as_of", as_of), ("source", source)) if value}
    paths, lake, where = checks.notebook_paths(names, Path(folder)), open_lake(), settings()
    today = where.runs / f"{datetime.now(ZoneInfo(where.time_zone)):%Y-%m-%d}"
    today.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"WORKBENCH_LAKE": str(lake.path.resolve()), "WORKBENCH_LAKE_VERSION": str(lake.version), "WORKBENCH_RUNS": str(where.runs.resolve()),
                                "WORKBENCH_REPORTS": str(where.reports.resolve()), "PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1"}
    runs: list[Run | dict] = []
    known = {"lake": str(lake.path), "lake_version": lake.version, "freshness": freshness(lake, datetime.now(UTC).replace(tzinfo=None))}
    for path in paths:
        base = new_record(path.stem, "refused", "", slot) | {"notebook": path.stem} | known
        try:
            runs.append(Run(path, given, base=base, folder=today, environment=environment, say=progress or (lambda text: None)))
        except (WorkbenchError, ValueError) as error:  # ValueError: the file is no notebook
            runs.append(base | {"error": str(error)})
    return _all(runs, jobs, standalone)


def _all(runs: list[Run | dict], jobs: int, standalone: bool) -> list[dict]:
    reports, live = settings().reports, [r for r in runs if isinstance(r, Run)]
    reports.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run.execute, reports, standalone) for run in live]
        try:
            wait(futures)
        except KeyboardInterrupt:
            for future, run in zip(futures, live, strict=True):
                future.cancel()
                run.stop()
            wait(futures)
            raise
        finally:
            write_index(reports, settings().runs)
    ended = iter(futures)
    return [r if isinstance(r, dict) else next(ended).result() for r in runs]
