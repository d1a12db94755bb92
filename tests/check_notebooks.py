"""Run the committed notebooks on the small demo; `python -m tests.check_notebooks --write` keeps their outputs.

Without --write nothing is changed: every notebook must run, and the cells tagged nbval-check-output must show what is committed.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"  # a widget that no kernel stands behind shows an error
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def demo_environment(folder: Path) -> dict[str, str]:
    """The environment in which notebooks see the small demo organisation, made in `folder`."""
    environment = os.environ | {"WORKBENCH_LAKE": str(folder), "PYTHONWARNINGS": "ignore", "JUPYTER_PLATFORM_DIRS": "1"}
    environment.pop("WORKBENCH_LAKE_VERSION", None)
    subprocess.run([sys.executable, "-c", "from workbench.cli import main; main()", "demo", "--size", "small"], check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    return environment


def nbval(environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Run nbval over notebooks/ in this Python: everything must run, tagged outputs must be equal."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(ROOT / "notebooks"), "--nbval-lax",
               "--nbval-current-env", "--nbval-cell-timeout=600", "--sanitize-with", str(ROOT / "tests" / "nbval_sanitize.cfg"), *map(str, NOTEBOOKS)]
    return subprocess.run(command, cwd=ROOT / "notebooks", env=environment, capture_output=True, text=True)


def write(path: Path) -> None:
    """Run one notebook from top to bottom and keep its outputs, without times and widget states."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False,
                   resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                if "text/html" in output.get("data", {}):
                    output.data.pop(WIDGET, None)  # the static form that it brings stays
            cell.outputs = [o for o in cell.outputs if o.output_type != "stream" and WIDGET not in o.get("data", {})]
    notebook.metadata = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}, "language_info": {"name": "python"}}
    nbformat.write(notebook, path)


def main() -> int:
    """0 when every notebook ran (and, without --write, showed what is committed)."""
    with tempfile.TemporaryDirectory() as folder:
        environment = demo_environment(Path(folder) / "lake")
        if "--write" not in sys.argv:
            done = nbval(environment)
            sys.stdout.write(done.stdout + done.stderr)
            return done.returncode
        os.environ.update(environment)
        for path in NOTEBOOKS:
            sys.stdout.write(f"running {path.name}\n")
            sys.stdout.flush()
            write(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
