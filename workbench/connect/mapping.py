"""A mapping: which column of which file is which field, when it became known, and which values mean what (docs/mapping.md)."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field as made
from datetime import date, datetime
from pathlib import Path

from workbench import schema
from workbench.errors import WorkbenchError
from workbench.settings import instant

_KINDS = {str: "text", list: "list", dict: "table", bool: "true/false", int: "number", float: "number", date: "date", datetime: "time"}
# Keys of a mapping, of each [[file]] and of each column, with the type of value that they take.
_KEYS = {"source": str, "exported_on": (date, datetime), "time_zone": str, "bad_share": (int, float), "file": list}
_FILE_KEYS = {"name": str, "entity": str, "columns": dict, "join": dict, "placeholders": list, "constants": dict, "order_by": str, "distinct": bool,
              "decimal": str, "delimiter": str, "encoding": str, "sheet": str}
_COLUMN_KEYS = {"field": str, "type": str, "format": (str, list), "decimal": str, "known_at": str, "values": dict, "placeholders": list,
                "reference": str, "personal": bool, "ignore": bool, "meaning": str}


@dataclass(frozen=True)
class Target:
    """One field that a column feeds."""

    column: str
    field: str
    type: str
    known_at: str = "fixed"
    format: tuple[str, ...] = ()
    decimal: str = "."
    values: dict = made(default_factory=dict)
    placeholders: tuple[str, ...] = ()
    reference: str = ""
    personal: bool = False
    meaning: str = ""


@dataclass(frozen=True)
class FileMapping:
    """One file (a glob is allowed) that holds records of one entity; `join` = columns made of others, text joined by a space."""

    name: str
    entity: str
    targets: tuple[Target, ...]
    ignored: frozenset[str]
    constants: dict = made(default_factory=dict)
    join: dict = made(default_factory=dict)
    distinct: bool = False
    order_by: str = ""
    delimiter: str = ""
    encoding: str = ""
    sheet: str = ""


@dataclass(frozen=True)
class Mapping:
    """All files of one source."""

    source: str
    files: tuple[FileMapping, ...]
    exported_at: datetime | None
    time_zone: str
    bad_share: float


def read_mapping(path: str | Path) -> Mapping:
    """Read and check a mapping file; errors name the key and the nearest right one."""
    path = Path(path)
    if not path.is_file():
        raise WorkbenchError(f"There is no mapping {path}.", fix="Draft one: `workbench mapping FILE... > mapping.toml`.")
    try:
        return parse_mapping(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise WorkbenchError(f"{path} is not UTF-8 text.", fix="A mapping is a TOML file; the data files go with --data FOLDER.") from None


def parse_mapping(text: str, name: str = "mapping") -> Mapping:
    """A mapping from TOML text.

    >>> m = parse_mapping('source="s"\\n[[file]]\\nname="a.csv"\\nentity="lead"\\n[file.columns]\\nId={field="id"}')
    >>> m.files[0].targets[0].field
    'id'
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WorkbenchError(f"{name} is not valid TOML: {error}.", fix="Mend the line that it names.") from None
    _check_keys(raw, _KEYS, name)
    source, files, zone, share = raw.get("source", ""), raw.get("file", []), raw.get("time_zone", "UTC"), float(raw.get("bad_share", 0.05))
    _refuse(name, (
        (not re.fullmatch(r"[a-z0-9_]+", source), f"source {source!r} is no source name", "Use a-z, 0-9 and _."),
        (not files or not all(isinstance(f, dict) for f in files), "it names no [[file]]", "Draft one: `workbench mapping FILE...`."),
        (not 0 <= share <= 1, f"bad_share = {share} is no share", "Write 0.05 for 5 %.")))
    instant("2000-01-01", zone)  # refuses an unknown time zone
    return Mapping(source, tuple(_file(f, name) for f in files), instant(raw.get("exported_on"), zone), zone, share)


def _refuse(where: str, checks: Iterable[tuple[bool, str, str]]) -> None:
    """Raise the first of (wrong, what, fix) that is wrong."""
    for wrong, what, fix in checks:
        if wrong:
            raise WorkbenchError(f"{where}: {what}.", fix=fix)


def _near(name: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


def _check_keys(given: object, known: dict, where: str) -> None:
    if not isinstance(given, dict):
        raise WorkbenchError(f"{where}: {given!r} is no table of keys.", fix='Write { field = "..." }.')
    for key, value in given.items():
        kinds = known.get(key, object)
        told = " or ".join(_KINDS.get(k, "") for k in (kinds if isinstance(kinds, tuple) else (kinds,)))
        fits = isinstance(value, kinds) and isinstance(value, bool) <= (kinds is bool)  # true is a number to Python
        _refuse(where, ((key not in known, f"key {key!r} is unknown", _near(key, known, f"Keys: {', '.join(known)}.")),
                        (not fits, f"{key} = {value!r} is not of type {told}", "See docs/mapping.md.")))


def _file(raw: dict, name: str) -> FileMapping:
    where = f"{name}, file {raw.get('name')!r}"
    _check_keys(raw, _FILE_KEYS, where)
    _refuse(where, ((not raw.get("name") or not raw.get("entity"), "name and entity are needed", "See docs/mapping.md."),))
    entity, constants, join = schema.entity(raw["entity"]), raw.get("constants", {}), raw.get("join", {})
    told = [(column, one) for column, some in raw.get("columns", {}).items() for one in (some if isinstance(some, list) else [some])]
    for column, one in told:
        _check_keys(one, _COLUMN_KEYS, f"{where}, column {column!r}")
    targets = tuple(_target(column, one, entity, raw, f"{where}, column {column!r}") for column, one in told if not one.get("ignore"))
    names = [t.field for t in targets] + [*constants]
    twice = ", ".join(sorted({n for n in names if names.count(n) > 1}))
    unknown = ", ".join(repr(c) for c in constants if c not in entity.fields)
    sound = {c for c, parts in join.items() if isinstance(parts, list) and parts and all(isinstance(p, str) for p in parts)}
    empty = ", ".join(repr(c) for c in join if c not in sound)
    _refuse(where, (
        (bool(empty), f"join {empty} names no columns", 'Write e.g. "Full name" = ["First Name", "Last Name"].'),
        (bool(unknown), f"{entity.name} has no field {unknown} for a constant", f"Fields: {', '.join(entity.fields)}."),
        (bool(twice), f"{twice} is fed by two columns", "Map each field once; join = { ... } makes one column of several."),
        (raw.get("distinct", False) and "id" not in names, "distinct needs a key", 'Map one column to { field = "id" }.')))
    return FileMapping(targets=targets, ignored=frozenset(column for column, one in told if one.get("ignore")),
                       **{k: v for k, v in raw.items() if k not in ("columns", "placeholders", "decimal")})


def _target(column: str, one: dict, entity: schema.Entity, file: dict, where: str) -> Target:
    name, kind = one.get("field", ""), one.get("type", "text")
    own = name == "id" or re.fullmatch(r"x_[a-z0-9_]+", name)
    known = entity.fields.get(name) or schema.Field(name, "text" if name == "id" else kind, "assumed", f"column {column!r} of the export")
    told = {"type": known.kind, "known_at": "assumed" if known.known_at == "historized" else known.known_at, "meaning": known.meaning,
            "reference": known.references, "personal": known.personal, "decimal": file.get("decimal", "."), "format": [],
            "placeholders": file.get("placeholders", [])} | one
    unknown = known.kind not in schema.DUCKDB_TYPES or told["known_at"] not in schema.KNOWN_AT
    _refuse(where, (
        (not own and name not in entity.fields, f"{entity.name} has no field {name!r}",
         _near(name, entity.fields, "") + " A field of your own is called x_..."),
        (told["type"] != known.kind, f"{name} is {known.kind}, not {told['type']}", "Leave type out, or feed a field of your own (x_...)."),
        (told["known_at"] == "historized", "an export has no history", "Use fixed or assumed (as at creation), current_only or outcome."),
        (unknown, f"type {known.kind!r} or known_at {told['known_at']!r} is unknown",
         f"Types: {', '.join(schema.DUCKDB_TYPES)}; known_at: fixed, assumed, current_only, outcome."),
        (told["decimal"] not in (".", ","), f"decimal = {told['decimal']!r} is no decimal sign", 'Use "." or ",".')))
    if told["reference"]:
        schema.entity(told["reference"])
    told["format"] = [told["format"]] if isinstance(told["format"], str) else told["format"]
    return Target(column=column, **told | {c: tuple(map(str, told[c])) for c in ("format", "placeholders")})
