"""A drafted mapping as TOML text: what was decided of each file, with its reasons as comments."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from workbench.connect.mapping import Target
from workbench.connect.profile import Column, plain
from workbench.connect.tables import TextTable
from workbench.schema import WON


@dataclass
class Draft:
    """One file and what was decided of it.

    lines = column -> (field and options, why) of each field that it feeds, none where it needs no line; claims = column -> (field, why,
    what its values mean) before its line is written; won = SQL: true, false, or null while open; derived = (entity, column) whose
    values are records of their own.
    """

    path: Path
    table: TextTable
    columns: dict[str, Column]
    entity: str
    key: str = ""
    won: str = ""
    head: list[str] = field(default_factory=list)
    joins: dict[str, list[str]] = field(default_factory=dict)
    claims: dict[str, tuple[str, str, dict]] = field(default_factory=dict)
    lines: dict[str, list[tuple[dict, str]]] = field(default_factory=dict)
    derived: list[tuple[str, str]] = field(default_factory=list)

    def put(self, column: str, name: str, why: str, **options: object) -> None:
        """Let a column feed field `name`."""
        self.lines.setdefault(column, []).append(({"field": name} | {k: v for k, v in options.items() if v}, why))

    def put_won(self, column: str, why: str, values: dict) -> None:
        """Let a column feed the outcome."""
        self.put(column, WON[self.entity], why, values=values)
        target = Target(column, parts=self.joins.get(column, [column]), type="bool", values=values)
        self.won = target.typed(target.clean)

    def ask(self, question: str) -> None:
        """Ask about the file."""
        self.head.append(f"# QUESTION: {question}")

    def has(self, name: str) -> bool:
        """Whether a field is fed already."""
        return any(entry.get("field") == name for told in self.lines.values() for entry, _ in told) or any(c[0] == name for c in self.claims.values())

    @property
    def decimal(self) -> str:
        """"," where every column that tells uses it."""
        return "," if {c.decimal for c in self.columns.values() if c.decimal} == {","} else ""


def toml(value: object) -> str:
    """A value as TOML.

    >>> toml({"field": "is_won", "values": {"Closed Won": True}})
    '{ field = "is_won", values = { "Closed Won" = true } }'
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k if re.fullmatch('[A-Za-z0-9_-]+', k) else toml(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(ch if ch.isprintable() else f"\\U{ord(ch):08X}" for ch in text) + '"'


def comment(*notes: str) -> str:
    """Reasons on one line; a question among them marks it."""
    text = "; ".join(dict.fromkeys(notes))
    shown = " ".join("".join(ch if ch.isprintable() else " " for ch in text.replace("QUESTION: ", "")).split())
    return ("# QUESTION: " if "QUESTION: " in text else "# ") + shown


def _table(what: str, keys: dict, head: list[str], columns: list[str]) -> list[str]:
    return ["", comment(what), "[[file]]", *(f"{k} = {toml(v)}" for k, v in keys.items() if v), *head, "[file.columns]", *columns]


def _file_lines(f: Draft, name: str) -> list[str]:
    """The [[file]] of a draft, and one for each entity whose records its values become."""
    placeholders = list(dict.fromkeys(p for c in f.columns.values() for p in c.placeholders))
    keys: dict = {"name": name, "entity": f.entity, "placeholders": placeholders, "decimal": f.decimal, "join": f.joins}
    told = {c: list(zip(*f.lines[c], strict=True)) for c in f.columns if f.lines.get(c)}  # (entries, reasons)
    lines = [f"{toml(c)} = {toml(entries if len(entries) > 1 else entries[0])}  {comment(*why)}" for c, (entries, why) in told.items()]
    out = _table(f"{f.path.name}: {len(f.table.columns)} columns, {next(iter(f.columns.values())).n:,} rows", keys, f.head, lines)
    for entity, column in f.derived:
        values = {k: v for k, v in f.lines[column][0][0].items() if k == "values"}
        made = f"{toml(column)} = {toml([{'field': name} | values for name in ('id', 'name')])}"
        keys = {"name": name, "entity": entity, "distinct": True, "placeholders": placeholders}
        out += _table(f"each {entity} that column {toml(column)} names, once", keys, [], [made])
    return out


def mapping_text(files: list[Draft]) -> str:
    """The whole mapping; files without an entity are named as left out."""
    folder = Path(os.path.commonpath([f.path.resolve().parent for f in files]))
    stem = files[0].path.name.split(".")[0] if len(files) == 1 else folder.name
    source = plain(stem).replace(" ", "_") or "export"
    out = ["# Drafted from the files; each line says why. Answer the lines marked QUESTION, then: workbench import THIS_FILE --data FOLDER",
           "# known_at: assumed = it stood like this at creation, on your word; current_only and outcome never train a model (docs/mapping.md).",
           f'source = "{source}{"_export" * (source == "demo")}"  # the name that ids begin with',
           "# exported_on = 2024-12-31  # QUESTION: on which day were the files exported? Without it their latest event counts, or now"]
    if any(c.kind == "time" for f in files for c in f.columns.values()):
        out.append('time_zone = "UTC"  # QUESTION: in which time zone are times that state none, e.g. "Europe/Berlin"?')
    for f in sorted(files, key=lambda f: not f.entity):
        if f.entity:
            out += _file_lines(f, f.path.resolve().relative_to(folder).as_posix())
        else:
            out += ["", comment(f"QUESTION: is {toml(f.path.name)} needed? It is left out: neither its name nor its columns tell what a row is")]
    return "\n".join(out) + "\n"
