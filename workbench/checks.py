"""What a run must satisfy: the notebook exists, its parameters are its own, nothing secret goes in or stays, every cell ran.

papermill only warns of an unknown parameter, executes hostile parameter NAMES, and takes sys.exit(0) for success.
"""

import ast
import difflib
import html
import json
import keyword
import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date
from hashlib import sha1
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from workbench.errors import WorkbenchError
from workbench.record import RESULTS_MIME
from workbench.settings import root

_SECRET_NAME = re.compile(r"token(?!iz)|secret|passw|passphrase|api_?key|(access|private|signing|encryption)_?key|credential|_pwd$", re.IGNORECASE)
_SECRET_VALUE = re.compile(  # keys as well-known services shape them, a password in a URL, or 32 letters and digits well mixed
    r"^(sk|pk|rk|ghp|gho|ghs|glpat|github_pat|xox[abprs]|hf)[-_][\w.=+/-]{12,}$|^(AKIA|ASIA)[A-Z0-9]{12,}$|^AIza[\w-]{20,}$|^Bearer |^eyJ[\w-]+\."
    r"|-----BEGIN|^00D\w{12,15}!|://[^/\s:@]*:[^/\s@]+@|^(?=(?:\D*\d){6})(?=(?:[^A-Za-z]*[A-Za-z]){6})[A-Za-z0-9+/=]{32,}$")
_URL_PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def meant(name: str, known: Iterable[str]) -> str:
    """A question with the known name that is nearest to `name`, or ""."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {near[0]}? " if near else ""


def notebook_paths(names: list[str], folder: Path) -> list[Path]:
    """The notebooks that `names` mean, each once: a stem, the beginning of one (`10`), or `all`."""
    found = {p.stem: p for p in sorted(folder.glob("*.ipynb"))}
    if not found:
        raise WorkbenchError(f"There are no notebooks in {folder}.", fix="Run this in the folder that holds notebooks/.")
    chosen: dict[str, Path] = {}
    for name in names:
        wanted = Path(name).name.removesuffix(".ipynb")
        fit = list(found) if wanted == "all" else [wanted] if wanted in found else [s for s in found if wanted and s.startswith(wanted)]
        if not fit:
            raise WorkbenchError(f"There is no notebook {name!r}.", fix=f"{meant(wanted, found)}There are: {', '.join(found)}.")
        if len(fit) > 1 and wanted != "all":
            raise WorkbenchError(f"{name!r} may mean {' or '.join(fit)}.", fix="Write more of the name.")
        chosen |= {stem: found[stem] for stem in fit}
    return list(chosen.values())


def default_parameters(notebook: dict) -> dict[str, Any]:
    """The names and defaults that the cell tagged `parameters` assigns; only plain literals count."""
    source = next(("".join(c["source"]) for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])), "")
    defaults: dict[str, Any] = {}
    try:
        for line in ast.parse(source).body:
            if isinstance(line, (ast.Assign, ast.AnnAssign)):
                with suppress(ValueError, AttributeError):  # no literal, no plain name
                    target: Any = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
                    defaults[target.id] = ast.literal_eval(line.value)  # type: ignore[arg-type]
    except SyntaxError as error:
        raise WorkbenchError(f"The notebook's parameters cell is no plain Python: {error}.", fix="It may hold lines such as `days = 90` only.") from None
    return defaults


def typed_parameters(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, each value in the type of the notebook's default; names that are not the notebook's, secrets and misfits are refused.

    >>> typed_parameters({"n": "5", "share": "0.5", "stages": "New,Won", "deep": "yes"}, {"n": 1, "share": 0.1, "stages": [], "deep": False})
    {'n': 5, 'share': 0.5, 'stages': ['New', 'Won'], 'deep': True}
    """
    secrets = secrets_of(os.environ)
    for name, value in given.items():
        texts = [str(v).strip() for v in (value if isinstance(value, list) else [value])]
        if not name.isidentifier() or keyword.iskeyword(name):
            raise WorkbenchError(f"{name[:40]!r} is no name of a parameter.", fix="A name has letters, digits and _ only.")
        if _SECRET_NAME.search(name) or any(_SECRET_VALUE.search(t) or any(s in t for s in secrets) for t in texts):
            raise WorkbenchError(f"Parameter {name} looks like a secret, and parameters are kept in notebooks and reports.",
                                 fix="Put a secret into an environment variable or the keyring.")
        if name not in defaults:
            raise WorkbenchError(f"The notebook has no parameter {name!r}.", fix=f"{meant(name, defaults)}It has: {', '.join(defaults) or 'none'}.")
    return {name: _typed(name, value, defaults[name]) for name, value in given.items()}


def _typed(name: str, value: Any, default: Any) -> Any:
    kind, text, plain = type(default), value.strip() if isinstance(value, str) else value, isinstance(value, (bool, int, float, str))
    with suppress(KeyError, ValueError, OverflowError):
        if kind is list:  # of the command line: a,b or ['a', 'b']
            parts = value if isinstance(value, list) else [p.strip(" '\"") for p in re.sub(r"^\[(.*)\]$", r"\1", str(text)).split(",") if p.strip()]
            return [_typed(name, part, default[0] if default else None) for part in parts]
        if kind is bool:
            return _BOOLS[str(text).lower()]
        if kind in (int, float) and plain and not isinstance(value, bool):
            number = kind(text)
            if math.isfinite(number) and (isinstance(value, str) or number == value):
                return number
        if kind in (str, type(None)) and (plain or isinstance(value, date)):
            return value if default is None and plain else str(value)
    takes = {bool: "true or false", int: "a whole number", float: "a number", list: "a list such as a,b"}.get(kind, "one plain value")
    raise WorkbenchError(f"Parameter {name} cannot be {str(value)[:60]!r}.", fix=f"It takes {takes}; its default is {default!r}.")


def run_name(stem: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """File name of a run: the stem and each parameter that differs from its default; a value that no file name can hold ends in a hash.

    >>> run_name("10_lead_scoring", {"source": "acme", "n": 5}, {"source": "", "n": 5})
    '10_lead_scoring--source-acme'
    """
    parts = [stem]
    for name, value in given.items():
        if value != defaults[name]:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            safe = re.sub(r"[^A-Za-z0-9_.,-]", "_", text)[:40]
            parts.append(f"{name}-{safe}" + ("" if safe == text else "~" + sha1(text.encode("utf-8", "replace")).hexdigest()[:6]))
    whole = "--".join(parts)
    return whole if len(whole) <= 150 else f"{whole[:140]}~{sha1(whole.encode()).hexdigest()[:6]}"


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """Values of variables whose names look secret, and passwords inside URLs, in every form in which an output may write them; longest first."""
    found: set[str] = set()
    for name, value in environment.items():
        found |= set(_URL_PASSWORD.findall(value))
        if _SECRET_NAME.search(name) and not (value.startswith("/") and Path(value).exists()):  # the path of a key file is no secret
            found |= {value, *value.splitlines()}
    forms = {form for s in found if len(s) >= 6 for form in (s, repr(s)[1:-1], json.dumps(s)[1:-1], html.escape(s), quote(s, safe=""))}
    return sorted(forms, key=len, reverse=True)


def masked(value: Any, secrets: list[str]) -> Any:
    """`value` (text, list, dict, nested) with every secret replaced by ***.

    >>> masked({"said": ["key hunter22!"], "n": 1}, ["hunter22"])
    {'said': ['key ***!'], 'n': 1}
    """
    if isinstance(value, dict):
        return type(value)((masked(k, secrets), masked(v, secrets)) for k, v in value.items())
    if isinstance(value, list):
        return [masked(v, secrets) for v in value]
    for secret in secrets if isinstance(value, str) else []:
        value = value.replace(secret, "***")
    return value


def mask_cells(notebook: dict, secrets: list[str]) -> None:
    """Mask secrets in what the cells of a notebook say and show, also one that was written in several parts."""
    for cell in notebook["cells"] if secrets else []:
        for name in ("stdout", "stderr"):
            parts = [o for o in cell.get("outputs", []) if o["output_type"] == "stream" and o["name"] == name]
            whole = "".join(o["text"] for o in parts)
            if any(s in whole for s in secrets):
                for part in parts:  # emptied, not removed: displays are updated by their place
                    part["text"] = whole if part is parts[0] else ""
        cell.update({key: masked(cell[key], secrets) for key in ("source", "outputs") if key in cell})


def run_fault(notebook: dict) -> str | None:
    """A sentence about the first cell that failed or did not run, or about missing results; None when every cell ran."""
    code = [c for c in notebook["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    for number, cell in enumerate(code, 1):
        error = next((o for o in cell["outputs"] if o["output_type"] == "error"), None)
        if error is not None and error["ename"] == "SystemExit":
            return f"Cell {number} left the notebook (SystemExit: {error['evalue']}), so what follows it did not run."
        if error is not None:
            return f"Cell {number} stopped: {'' if error['ename'] == 'WorkbenchError' else error['ename'] + ': '}{error['evalue']}"[:600]
        if not cell["execution_count"]:
            return f"Cell {number} did not run: the kernel had ended, or the cell is tagged to be skipped."
    return None if recorded(notebook) else "The notebook recorded no results: its last cell must call record(...)."


def recorded(notebook: dict) -> dict:
    """What the notebook's `record` left: {results, cards, as_of, source}; {} when it left nothing."""
    outputs = [o for c in notebook["cells"] if c["cell_type"] == "code" for o in c["outputs"]]
    return next((o["data"][RESULTS_MIME] for o in reversed(outputs) if RESULTS_MIME in o.get("data", {})), {})


def heading(notebook: dict) -> str:
    """The notebook's first heading, the question that it answers; "" without one."""
    text = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")
    found = re.search(r"^#+\s+(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def notebook_questions() -> pd.DataFrame:
    """One row a notebook of the project: notebook (its name), question."""
    rows = [(p.stem, heading(json.loads(p.read_text(encoding="utf-8")))) for p in sorted((root() / "notebooks").glob("[0-9]*.ipynb"))]
    return pd.DataFrame(rows, columns=["notebook", "question"])
