"""Our own shape rules; `python lint/shape.py` prints what breaks them and the lines of Python in workbench/.

Needs nothing but the standard library, so that it also runs where nothing is installed.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# The rooms from the ground up: a room imports from itself and from the rooms before it.
ROOMS = ("errors", "settings", "schema", "rows", "store", "lake", "privacy", "ledger", "connect", "features", "quality", "models",
         "plots", "report", "record", "checks", "runs", "schedule", "cli")
CLOCK_ROOMS = ("runs", "cli")  # only these read the clock
MAX_FILE, MAX_CELL, MAX_PACKAGE = 300, 12, 10600
LONG: dict[str, str] = {}  # file under workbench/ that may be longer: the reason
_CLOCKS = {"now", "utcnow", "today"}
_SQL_CLOCK = re.compile(r"\b(current_timestamp|current_date|get_current_timestamp\(|today\(\)|now\(\))", re.IGNORECASE)


def room_of(path: Path, package: Path) -> str:
    """The room of a file under workbench/: its first folder, or its own name.

    >>> room_of(Path("workbench/plots/quality.py"), Path("workbench")), room_of(Path("workbench/lake.py"), Path("workbench"))
    ('plots', 'lake')
    """
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, room) of every import from workbench, lazy ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "(relative)"
        elif isinstance(node, ast.ImportFrom) and node.module == "workbench":
            yield from ((node.lineno, alias.name) for alias in node.names)
        else:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
            for name in names if isinstance(node, (ast.Import, ast.ImportFrom)) else []:
                if name.startswith("workbench."):
                    yield node.lineno, name.split(".")[1]


def import_faults(tree: ast.AST, room: str) -> list[str]:
    """Imports that point upwards, to an unknown room, or are relative."""
    faults = []
    for line, other in imported_rooms(tree):
        if other.startswith("__"):
            continue
        if other not in ROOMS:
            faults.append(f"{line}: imports {other}, which is no room (see ROOMS in lint/shape.py)")
        elif room == "__init__" or ROOMS.index(other) > ROOMS.index(room):
            faults.append(f"{line}: {room} imports {other}, which lies above it")
    return faults


def clock_faults(tree: ast.AST) -> list[str]:
    """Calls that read the clock, in Python or in SQL text; perf_counter and monotonic measure durations and are fine."""
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            base = node.func.value
            if node.func.attr in _CLOCKS or (node.func.attr == "time" and isinstance(base, ast.Name) and base.id == "time"):
                faults.append(f"{node.lineno}: reads the clock ({ast.unparse(node.func)}); only cli and runs may")
        elif isinstance(node, ast.ImportFrom) and node.module == "time" and any(a.name == "time" for a in node.names):
            faults.append(f"{node.lineno}: imports the clock; only cli and runs may")
    return faults


def _docstrings(tree: ast.AST) -> set[ast.AST]:
    homes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {n.body[0].value for n in ast.walk(tree) if isinstance(n, homes) and n.body and isinstance(n.body[0], ast.Expr)}


def sql_clock_faults(tree: ast.AST) -> list[str]:
    """String constants that ask DuckDB for the time of day."""
    told = _docstrings(tree)
    return [f"{n.lineno}: SQL reads the clock; only cli and runs may" for n in ast.walk(tree)
            if isinstance(n, ast.Constant) and isinstance(n.value, str) and n not in told and _SQL_CLOCK.search(n.value)]


def print_faults(tree: ast.AST) -> list[str]:
    """Calls of print."""
    return [f"{n.lineno}: print; raise, return or log instead" for n in ast.walk(tree)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"]


def package_faults(package: Path) -> list[str]:
    """Everything in workbench/ that breaks a shape rule, as `file:line: sentence`."""
    faults = []
    for path in sorted(package.rglob("*.py")):
        text, room, name = path.read_text(encoding="utf-8"), room_of(path, package), str(path.relative_to(package))
        tree = ast.parse(text)
        found = print_faults(tree)
        if room not in (*ROOMS, "__init__", "__main__"):
            found.append(f"1: {room} is no room (see ROOMS in lint/shape.py)")
        elif room != "__main__":
            found += import_faults(tree, room)
        if room not in CLOCK_ROOMS:
            found += clock_faults(tree) + sql_clock_faults(tree)
        if text.count("\n") > MAX_FILE and name not in LONG:
            found.append(f"1: {text.count(chr(10))} lines; {MAX_FILE} at most, or a reason in LONG")
        if path.stem in ("utils", "util", "helpers", "misc", "common"):
            found.append("1: a helper lives with the thing that it helps")
        faults += [f"{package.name}/{name}:{fault}" for fault in found]
    for path in sorted(package.rglob("*.sql")):
        if _SQL_CLOCK.search(re.sub(r"--.*", "", path.read_text(encoding="utf-8"))):
            faults.append(f"{package.name}/{path.relative_to(package)}:1: SQL reads the clock")
    return faults


def cell_faults(cell: dict) -> list[str]:
    """What breaks the rules of one cell: length, definitions, printing in loops."""
    source = "".join(cell["source"])
    faults = [] if len(source.splitlines()) <= MAX_CELL else [f"a cell of {len(source.splitlines())} lines; {MAX_CELL} at most"]
    if cell["cell_type"] != "code":
        return faults
    try:
        tree = ast.parse("\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()))
    except SyntaxError as error:
        return [*faults, f"a cell is no Python: {error}"]
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            faults.append(f"defines {node.name}; move it into workbench/")
        if isinstance(node, (ast.For, ast.While)) and print_faults(node):
            faults.append("prints in a loop; display a frame instead")
    return faults


def notebook_faults(path: Path) -> list[str]:
    """Everything in one notebook that breaks a shape rule."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [c for c in cells if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    faults = [f"cell {i}: {fault}" for i, cell in enumerate(cells, 1) for fault in cell_faults(cell)]
    n_parameters = sum("parameters" in c.get("metadata", {}).get("tags", []) for c in code)
    if n_parameters != 1:
        faults.append(f"{n_parameters} cells are tagged parameters; exactly one must be")
    if [c.get("execution_count") for c in code] != list(range(1, len(code) + 1)):
        faults.append("was not executed from top to bottom; run `make notebooks`")
    if any(o.get("output_type") == "error" for c in code for o in c.get("outputs", [])):
        faults.append("holds an error output; run `make notebooks`")
    return [f"{path.name}: {fault}" for fault in faults]


def package_lines(package: Path) -> int:
    """Lines of Python in the package, blank and comment lines included."""
    return sum(len(p.read_text(encoding="utf-8").splitlines()) for p in package.rglob("*.py"))


def main(root: Path) -> int:
    """Print every fault and the number of lines; 1 when anything is wrong."""
    faults = package_faults(root / "workbench")
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        faults += notebook_faults(path)
    lines = package_lines(root / "workbench")
    if lines > MAX_PACKAGE:
        faults.append(f"workbench/ has {lines} lines of Python; {MAX_PACKAGE} at most")
    for fault in faults:
        print(fault)
    print(f"{lines} lines of Python in workbench/ ({MAX_PACKAGE} at most); {len(faults)} shape faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
