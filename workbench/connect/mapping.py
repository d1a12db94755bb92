"""A mapping: which column of which file is which field, when it became known, and which values mean what (docs/mapping.md)."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from dataclasses import field as made
from datetime import date, datetime
from pathlib import Path

from workbench import schema
from workbench.errors import WorkbenchError
from workbench.settings import instant

_KINDS = {str: "text", list: "list", dict: "table", bool: "true/false", int: "number", float: "number", date: "date", datetime: "time"}
TYPES = tuple(schema.DUCKDB_TYPES)
# Keys of a mapping, of each [[file]] and of each column, with the type of value that they take.
_KEYS = {"source": str, "exported_on": (date, datetime), "time_zone": str, "bad_share": (int, float), "file": list}
_FILE_KEYS = {"name": str, "entity": str, "columns": dict, "join": dict, "placeholders": list, "constants": dict, "order_by": str, "distinct": bool,
              "decimal": str, "delimiter": str, "encoding": str, "sheet": str}
_COLUMN_KEYS = {"field": str, "type": str, "format": (str, list), "decimal": str, "known_at": str, "values": dict, "placeholders": list, "reference": str,
                "personal": bool, "ignore": bool, "meaning": str}


@dataclass(frozen=True)
class Target:
    """One field that a column feeds."""

    column: str
    field: str
    kind: str
    known_at: str
    format: tuple[str, ...] = ()
    decimal: str = "."
    values: dict = made(default_factory=dict)
    placeholders: tuple[str, ...] = ()
    reference: str = ""
    personal: bool = False
    meaning: str = ""


@dataclass(frozen=True)
class FileMapping:
    """One file (a glob is allowed) that holds records of one entity; `joined` = columns made of others, text joined by a space."""

    name: str
    entity: str
    targets: tuple[Target, ...]
    ignored: frozenset
    constants: dict
    joined: dict
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
    exported_at: datetime | None = None
    time_zone: str = "UTC"
    bad_share: float = 0.05


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
    _known(raw, _KEYS, name)
    if not re.fullmatch(r"[a-z0-9_]+", raw.get("source", "")):
        raise WorkbenchError(f"{name}: source {raw.get('source')!r} is no source name.", fix="Use a-z, 0-9 and _.")
    if not raw.get("file") or not all(isinstance(f, dict) for f in raw["file"]):
        raise WorkbenchError(f"{name} names no [[file]].", fix="Draft one: `workbench mapping FILE...`.")
    zone, share = raw.get("time_zone", "UTC"), float(raw.get("bad_share", 0.05))
    if not 0 <= share <= 1:
        raise WorkbenchError(f"{name}: bad_share = {share} is no share.", fix="Write 0.05 for 5 %.")
    exported = instant(raw.get("exported_on"), zone)
    instant("2000-01-01", zone)  # refuses an unknown time zone
    return Mapping(raw["source"], tuple(_file(f, name) for f in raw["file"]), exported, zone, share)


def _known(given: object, known: dict, where: str) -> None:
    if not isinstance(given, dict):
        raise WorkbenchError(f"{where}: {given!r} is no table of keys.", fix='Write { field = "..." }.')
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise WorkbenchError(f"{where}: key {key!r} is unknown.", fix=f"Did you mean {near[0]!r}?" if near else f"Keys: {', '.join(sorted(known))}.")
        if not isinstance(value, known[key]) or (known[key] is not bool and isinstance(value, bool)):
            kinds = known[key] if isinstance(known[key], tuple) else (known[key],)
            raise WorkbenchError(f"{where}: {key} = {value!r} is not of type {' or '.join(_KINDS[k] for k in kinds)}.", fix="See docs/mapping.md.")


def _file(raw: dict, name: str) -> FileMapping:
    where = f"{name}, file {raw.get('name')!r}"
    _known(raw, _FILE_KEYS, where)
    if not raw.get("name") or not raw.get("entity"):
        raise WorkbenchError(f"{where}: name and entity are needed.", fix="See docs/mapping.md.")
    entity = schema.entity(raw["entity"])
    targets, ignored = [], set()
    for column, told in raw.get("columns", {}).items():
        for one in told if isinstance(told, list) else [told]:
            _known(one, _COLUMN_KEYS, f"{where}, column {column!r}")
            if one.get("ignore"):
                ignored.add(column)
            else:
                targets.append(_target(column, one, entity, raw, where))
    for column, parts in raw.get("join", {}).items():
        if not isinstance(parts, list) or not parts or not all(isinstance(p, str) for p in parts):
            raise WorkbenchError(f"{where}: join {column!r} names no columns.", fix='Write e.g. "Full name" = ["First Name", "Last Name"].')
    for one in [*raw.get("constants", {})]:
        if one not in entity.fields:
            raise WorkbenchError(f"{where}: {entity.name} has no field {one!r} for a constant.", fix=f"Fields: {', '.join(entity.fields)}.")
    names = [t.field for t in targets] + [*raw.get("constants", {})]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise WorkbenchError(f"{where}: {', '.join(twice)} is fed by two columns.", fix="Map each field once; join = { ... } makes one column of several.")
    if raw.get("distinct") and "id" not in names:
        raise WorkbenchError(f"{where}: distinct needs a key.", fix='Map one column to { field = "id" }.')
    return FileMapping(raw["name"], raw["entity"], tuple(targets), frozenset(ignored), raw.get("constants", {}), raw.get("join", {}), raw.get("distinct", False),
                       raw.get("order_by", ""), raw.get("delimiter", ""), raw.get("encoding", ""), raw.get("sheet", ""))


def _target(column: str, one: dict, entity: schema.Entity, file: dict, where: str) -> Target:
    where, name = f"{where}, column {column!r}", one.get("field", "")
    known = entity.fields.get(name)
    if name != "id" and known is None and not re.fullmatch(r"x_[a-z0-9_]+", name):
        near = difflib.get_close_matches(name, entity.fields, 1)
        raise WorkbenchError(f"{where}: {entity.name} has no field {name!r}.",
                             fix=f"Did you mean {near[0]!r}? " * bool(near) + "A field of your own is called x_...")
    kind = "text" if name == "id" else known.kind if known else one.get("type", "text")
    if one.get("type", kind) != kind:
        raise WorkbenchError(f"{where}: {name} is {kind}, not {one['type']}.", fix="Leave type out, or feed a field of your own (x_...).")
    default = "fixed" if name == "id" else known.known_at if known else "assumed"
    told = one.get("known_at", "assumed" if default == "historized" else default)
    if told == "historized":
        raise WorkbenchError(f"{where}: an export has no history.", fix="Use fixed or assumed (it stood like this at creation), current_only or outcome.")
    if kind not in TYPES or told not in schema.KNOWN_AT:
        raise WorkbenchError(f"{where}: type {kind!r} or known_at {told!r} is unknown.",
                             fix=f"Types: {', '.join(TYPES)}; known_at: fixed, assumed, current_only, outcome.")
    decimal, reference = one.get("decimal", file.get("decimal", ".")), one.get("reference", known.references if known else "")
    if decimal not in (".", ","):
        raise WorkbenchError(f"{where}: decimal = {decimal!r} is no decimal sign.", fix='Use "." or ",".')
    if reference:
        schema.entity(reference)
    formats = one.get("format", [])
    return Target(column, name, kind, told, tuple([formats] if isinstance(formats, str) else map(str, formats)), decimal, one.get("values", {}),
                  tuple(map(str, one.get("placeholders", file.get("placeholders", [])))), reference,
                  one.get("personal", bool(known and known.personal)), one.get("meaning", known.meaning if known else f"column {column!r} of the export"))
