"""One set of pins: pyproject.toml names the direct dependencies, requirements.lock and environment.yml pin them alike."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONDA_NAMES = {"python-duckdb": "duckdb"}  # conda-forge's name: PyPI's name


def direct() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = project["dependencies"] + [n for extra in project["optional-dependencies"].values() for n in extra]
    return {re.match(r"[A-Za-z0-9_.-]+", n)[0].lower().replace("_", "-") for n in names}


def locked() -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


def conda() -> dict[str, str]:
    pins = re.findall(r"^ +- ([a-z0-9._-]+)==?(\S+)$", (ROOT / "environment.yml").read_text(), re.MULTILINE)
    return {CONDA_NAMES.get(name, name): version for name, version in pins if name != "python"}


def test_environment_yml_pins_exactly_the_direct_dependencies():
    assert set(conda()) == direct()


def test_environment_yml_has_the_pins_of_the_lock():
    lock = locked()
    assert conda() == {name: lock[name] for name in direct()}


def test_the_lock_hashes_every_package():
    blocks = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements.lock").read_text().strip())
    assert len(blocks) == len(locked()) and all("--hash=sha256:" in block for block in blocks)


def test_the_lock_names_no_host_and_no_path():
    text = (ROOT / "requirements.lock").read_text()
    # names, pins, environment markers and hashes only: no address, no option that names an index, no folder
    assert re.findall(r"://|^-|--(?!hash=sha256:)|@|file:|/|\\(?!$)", text, re.MULTILINE) == []
