"""The shape rules hold for this tree, and each of them fires on a planted fault."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("shape", ROOT / "lint" / "shape.py")
shape = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shape)


def test_the_package_keeps_its_shape():
    assert shape.package_faults(ROOT / "workbench") == []


def test_the_package_stays_small():
    assert shape.package_lines(ROOT / "workbench") <= shape.MAX_PACKAGE


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_keep_their_shape(path):
    assert shape.notebook_faults(path) == []


FAULTS = {
    "an upward import": ("lake.py", "from workbench.runs import run\n", "lies above it"),
    "a lazy upward import": ("lake.py", "def f():\n    import workbench.cli\n", "lies above it"),
    "an import of the package's own room from above": ("errors.py", "from workbench import schema\n", "lies above it"),
    "a relative import": ("lake.py", "from . import store\n", "no room"),
    "an unknown room": ("attic.py", "x = 1\n", "attic is no room"),
    "a print": ("lake.py", "print(1)\n", "print"),
    "datetime.now": ("lake.py", "from datetime import datetime\nx = datetime.now()\n", "reads the clock"),
    "time.time": ("lake.py", "import time\nx = time.time()\n", "reads the clock"),
    "a clock in SQL": ("lake.py", "x = 'select current_date'\n", "SQL reads the clock"),
    "a clock in an SQL file": ("features/lead.sql", "select now() as t\n", "SQL reads the clock"),
    "a long file": ("lake.py", "x = 1\n" * 301, "301 lines"),
    "utils.py": ("connect/utils.py", "x = 1\n", "a helper lives"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_package_rule_fires(tmp_path, name):
    file, text, sentence = FAULTS[name]
    path = tmp_path / "workbench" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert any(sentence in fault for fault in shape.package_faults(tmp_path / "workbench"))


def test_downward_imports_and_durations_are_fine(tmp_path):
    package = tmp_path / "workbench"
    package.mkdir()
    (package / "lake.py").write_text("import time\nfrom workbench import schema\nfrom workbench.errors import WorkbenchError\n"
                                     "x = time.perf_counter()\n")
    (package / "runs.py").write_text("from datetime import datetime\nx = datetime.now()\n")
    assert shape.package_faults(package) == []


def notebook(tmp_path, *sources, tags=("parameters",), counts=None, outputs=()):
    cells = [{"cell_type": "code", "source": [s], "metadata": {"tags": list(tags) if i == 0 else []}, "outputs": list(outputs),
              "execution_count": (counts or range(1, len(sources) + 1))[i]} for i, s in enumerate(sources)]
    path = tmp_path / "00_test.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    return shape.notebook_faults(path)


def test_a_good_notebook_has_no_fault(tmp_path):
    assert notebook(tmp_path, 'as_of = ""', "%matplotlib inline\nx = 1") == []


@pytest.mark.parametrize("fault", [
    ({"tags": ()}, ["x = 1"], "exactly one"),
    ({"counts": (2, 1)}, ["x = 1", "y = 2"], "top to bottom"),
    ({"counts": (None,)}, ["x = 1"], "top to bottom"),
    ({"outputs": [{"output_type": "error"}]}, ["x = 1"], "error output"),
    ({}, ["def f(): pass"], "defines f"),
    ({}, ["class A: pass"], "defines A"),
    ({}, ["for i in x:\n    print(i)"], "prints in a loop"),
    ({}, ["x = 1\n" * 13], "13 lines"),
    ({}, ["x ="], "no Python"),
], ids=lambda f: f[2])
def test_each_notebook_rule_fires(tmp_path, fault):
    options, sources, sentence = fault
    assert any(sentence in f for f in notebook(tmp_path, *sources, **options))


def test_the_truth_of_a_world_is_named_by_its_generator_only():
    named = {p.relative_to(ROOT).as_posix() for p in (ROOT / "workbench").rglob("*.py") if "world.json" in (text := p.read_text(encoding="utf-8")) or "lead.parquet" in text}
    assert named == {"workbench/connect/demo_worlds.py"}
