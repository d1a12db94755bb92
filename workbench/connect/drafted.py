"""A drafted mapping as TOML text: what was decided of each file, with its reasons as comments."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from workbench.connect.profile import Column
from workbench.connect.tables import TextTable


@dataclass
class Draft:
    """One file and what was decided of it: lines = column -> entries (field and options), notes = column -> why."""

    path: Path
    table: TextTable
    columns: dict[str, Column]
    entity: str = ""
    key: str = ""
    lines: dict[str, list[dict]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    head: list[str] = field(default_factory=list)
    joins: dict[str, list[str]] = field(default_factory=dict)
    derived: list[tuple[str, str]] = field(default_factory=list)  # (entity, column) whose values are records of their own
    won: str = ""  # SQL: true, false, or null while open

    def put(self, column: str, name: str, why: str, **options: object) -> None:
        self.lines.setdefault(column, []).append({"field": name} | options)
        self.notes.setdefault(column, []).append(why)

    def join(self, name: str, parts: list[str]) -> None:
        self.joins[name] = parts
        self.lines |= {p: [] for p in parts}

    def ignore(self, column: str, why: str) -> None:
        self.lines[column], self.notes[column] = [{"ignore": True}], [why]

    def decimal(self) -> str:
        """"," where every column that tells uses it."""
        return "," if {c.decimal for c in self.columns.values() if c.decimal} == {","} else ""

    def has(self, name: str) -> bool:
        return any(e.get("field") == name for entries in self.lines.values() for e in entries)


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(ch if ch.isprintable() else f"\\u{ord(ch):04X}" if ord(ch) < 0x10000 else f"\\U{ord(ch):08X}" for ch in text) + '"'


def _entry(entry: dict) -> str:
    return "{ " + ", ".join(f"{k} = {toml(v)}" for k, v in entry.items()) + " }"


def _comment(notes: list[str]) -> str:
    """Reasons on one line; a question among them marks it."""
    text = "; ".join(dict.fromkeys(notes))
    shown = " ".join("".join(ch if ch.isprintable() else " " for ch in text.replace("QUESTION: ", "")).split())
    return ("# QUESTION: " if "QUESTION: " in text else "# ") + shown


def _file_lines(f: Draft, name: str) -> list[str]:
    out = ["", _comment([f"{f.path.name}: {len(f.columns)} columns, {next(iter(f.columns.values())).n:,} rows"]), "[[file]]",
           f"name = {toml(name)}", f'entity = "{f.entity}"', *f.head]
    found = list(dict.fromkeys(p for c in f.columns.values() for p in c.placeholders))
    if found:
        out.append(f"placeholders = {toml(found)}  # they look like values and mean missing")
    if f.decimal():
        out.append('decimal = ","  # 1.234,50')
    if f.joins:
        out.append(f"join = {toml(f.joins)}")
    out.append("[file.columns]")
    order = [*f.columns, *f.joins]
    for column in sorted(f.lines, key=order.index):
        entries = f.lines[column]
        text = _entry(entries[0]) if len(entries) == 1 else "[" + ", ".join(map(_entry, entries)) + "]"
        if entries:
            out.append(f"{toml(column)} = {text}  {_comment(f.notes.get(column, []))}")
    for entity, column in f.derived:
        values = {k: v for k, v in f.lines[column][0].items() if k == "values"}
        text = ", ".join(_entry({"field": name} | values) for name in ("id", "name"))
        out += ["", _comment([f"each {entity} that column {toml(column)} names, once"]), "[[file]]", f"name = {toml(name)}", f'entity = "{entity}"', "distinct = true"]
        out += [f"placeholders = {toml(found)}"] * bool(found) + ["[file.columns]", f"{toml(column)} = [{text}]"]
    return out


def mapping_text(files: list[Draft]) -> str:
    """The whole mapping; files without an entity are named as left out."""
    folder = Path(os.path.commonpath([f.path.resolve().parent for f in files]))
    stem = files[0].path.name.split(".")[0] if len(files) == 1 else folder.name
    source = re.sub(r"[^a-z0-9]+", "_", unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()).strip("_") or "export"
    source = f"{source}_export" if source == "demo" else source
    timed = any(c.kind == "time" for f in files for c in f.columns.values())
    out = ["# Drafted from the files; each line says why. Answer the lines marked QUESTION, then: workbench import THIS_FILE --data FOLDER",
           "# known_at: assumed = it stood like this at creation, on your word; current_only and outcome never train a model (docs/mapping.md).",
           f'source = "{source}"  # the name that ids begin with', "# exported_on = 2024-12-31  # QUESTION: on which day were the files exported? Without it their latest event counts, or now"]
    out += ['time_zone = "UTC"  # QUESTION: in which time zone are times that state none, e.g. "Europe/Berlin"?'] if timed else []
    for f in sorted(files, key=lambda f: not f.entity):
        if f.entity:
            out += _file_lines(f, f.path.resolve().relative_to(folder).as_posix())
        else:
            out += ["", _comment([f"QUESTION: is {toml(f.path.name)} needed? It is left out: neither its name nor its columns tell what a row is"])]
    return "\n".join(out) + "\n"
